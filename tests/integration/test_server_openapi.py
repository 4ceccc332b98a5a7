"""The server keeps to its description, whatever it is sent: the OpenAPI document played against a real one that listens."""

import asyncio
import json
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from shadow.core.accounts import Role
from shadow.db.database import open_database
from tests.support.api_servers import serving_api, workspaces
from tests.support.described import loaded

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
ENDLESS = [
    "/v1/workspaces/{workspace_id}/watch",
    "/v1/workspaces/{workspace_id}/terminals/{terminal_id}/attach",
    "/v1/tasks/{task_id}/events/stream",
    "/v1/tasks/{task_id}/events/attach",
]
"""They answer for as long as one listens: other tests do."""
KNOWN = {"task_id": "task_known", "workspace_id": "ws_known"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


document = json.loads(DOCUMENT.read_bytes())
schema = loaded(document, endless=ENDLESS)


@dataclass(frozen=True)
class Served:
    url: str
    token: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    directory = tmp_path_factory.mktemp("served")
    found: list[Served] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def serve() -> None:
        async with (
            open_database(directory, url="sqlite://") as database,
            workspaces(directory / "w", "ws_known") as manager,
            serving_api(database, manager) as api,
        ):
            await api.accounts.first_user()
            admin, token = await api.user("admin", Role.ADMIN)
            await api.add_task("task_known", owner=admin.id, workspace_id="ws_known")
            found.append(Served(api.url, token))
            ready.set()
            await end.wait()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)


@schema.parametrize()
@settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_the_api_keeps_to_its_description(served: Served, case: Any) -> None:
    ends = case.path in ("/v1/logout", "/v1/users/{user_id}") or case.method == "DELETE"
    if case.path_parameters and not ends and len(str(case.body)) % 2 == 0:
        # Half of what asks for one of them finds one.
        case.path_parameters |= {name: id_ for name, id_ in KNOWN.items() if name in case.path_parameters}
    headers = {} if case.path == "/v1/logout" else {"Authorization": f"Bearer {served.token}"}
    case.call_and_validate(base_url=served.url, headers=headers, checks=CHECKS, timeout=20)


def test_the_document_is_served(served: Served) -> None:
    response = requests.get(
        f"{served.url}/v1/openapi.json", headers={"Authorization": f"Bearer {served.token}"}, timeout=20
    )
    assert response.json() == document
