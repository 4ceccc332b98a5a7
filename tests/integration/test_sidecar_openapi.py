"""The API keeps to its description, whatever it is sent: the OpenAPI document played against a real sidecar under a holder."""

import json
import subprocess
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

from shadow.execution.holder.config import holder_argv
from tests.support.described import loaded
from tests.support.sidecar_processes import holder_config
from tests.support.sidecars import TOKEN, listen_tcp

DOCUMENT = Path(__file__).parents[2] / "docs" / "sidecar-openapi.json"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
ENDLESS = ["/v1/watch", "/v1/terminals/{terminal_id}/attach"]
"""They answer for as long as one listens: other tests do."""
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
    ended_command: str
    ended_terminal: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    directory = tmp_path_factory.mktemp("served")
    listener, endpoint = listen_tcp()
    with listener:
        # No program is found by its name: what is made up here must not run by chance.
        config = holder_config(directory, listener, path=str(directory / "nothing"))
        process = subprocess.Popen(holder_argv(), stdin=subprocess.PIPE, pass_fds=(listener.fileno(),), env={})
        try:
            assert process.stdin is not None
            process.stdin.write(config.to_json())
            process.stdin.close()
            root = directory / "root"
            (root / "a").mkdir()
            (root / "a" / "file.txt").write_text("one\ntwo\n")
            subprocess.run(["git", "init", "-q", str(root)], check=True)
            url = f"http://{endpoint.host}:{endpoint.port}"
            ended = [
                requests.post(f"{url}/v1/{noun}", json={"argv": ["/bin/true"]}, headers=HEADERS, timeout=20).json()[
                    "id"
                ]
                for noun in ("commands", "terminals")
            ]
            yield Served(url, *ended)
        finally:
            process.terminate()
            process.wait(20)


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
    if case.path_parameters and len(str(case.body)) % 2:
        # Half of what asks for one of them finds one.
        for name, known in (("command_id", served.ended_command), ("terminal_id", served.ended_terminal)):
            if name in case.path_parameters:
                case.path_parameters[name] = known
    lease_s = case.body.get("lease_s") if case.path == "/v1/lease" and isinstance(case.body, dict) else None
    if type(lease_s) in (int, float) and lease_s > 0:
        case.body["lease_s"] += 3600  # or the workspace ends itself
    case.call_and_validate(base_url=served.url, headers=HEADERS, checks=CHECKS, timeout=20)


def operations() -> list[tuple[str, str]]:
    return [(method, path) for path, methods in document["paths"].items() for method in methods]


@pytest.mark.parametrize(("method", "path"), operations())
@pytest.mark.parametrize("token", [None, "another token"])
def test_nothing_is_done_without_the_token(served: Served, method: str, path: str, token: str | None) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    response = requests.request(method, served.url + path, headers=headers, json={}, timeout=20)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_the_document_is_served(served: Served) -> None:
    response = requests.get(f"{served.url}/v1/openapi.json", headers=HEADERS, timeout=20)
    assert response.json() == document


def test_each_body_has_a_bound_that_is_kept(served: Served) -> None:
    bounds = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            bound = operation.get("requestBody", {}).get("x-max-bytes")
            if bound is None:
                continue
            url = served.url + path.format(command_id=served.ended_command, terminal_id=served.ended_terminal)
            query = {"writer": "w"} if path.endswith("/input") else {}
            announced = {**HEADERS, "Content-Length": str(bound + 1), "Expect": "100-continue"}
            request = requests.Request(method, url, headers=announced, params=query).prepare()
            request.headers["Content-Length"] = str(bound + 1)  # none of it is sent: it is refused by its length
            with requests.Session() as session, session.send(request, timeout=20, stream=True) as response:
                assert (path, response.status_code) == (path, 413)
            bounds += 1
    assert bounds > 20
