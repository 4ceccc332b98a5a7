"""A workspace that does not answer, through the server: one breaker for everybody who asks, and ``/metrics`` tells it."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shadow.core.ids import WorkspaceId
from tests.e2e.test_server import FINISH, Reader, begin, script
from tests.support.git_servers import make_repository
from tests.support.local_workspaces import holder_pid
from tests.support.metrics import metrics, refused
from tests.support.servers import Caller, logged_in, running

pytestmark = pytest.mark.anyio

WITHIN_S = 60.0
STATES = "shadow_server_sidecar_breakers"
OPENS = "shadow_server_sidecar_breaker_opens_total"
UNANSWERED = "shadow_server_sidecar_unanswered_calls"


@contextmanager
def stopped(data_dir: Path, workspace: WorkspaceId) -> Iterator[None]:
    """Its sidecar takes no step; nor does its holder, which would set it going again."""
    holder = holder_pid(data_dir, workspace)
    sidecars = [pid for pid in descendants(holder) if b"shadow.sidecar.main" in _command_line(pid)]
    assert sidecars
    for pid in (holder, *sidecars):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in (*sidecars, holder):
            os.kill(pid, signal.SIGCONT)


def descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [one for child in children for one in (child, *descendants(child))]


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def until_breaker(caller: Caller, state: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (await metrics(caller))[STATES][(state,)] != 1:
            await asyncio.sleep(0.02)


async def test_a_workspace_that_does_not_answer_opens_its_breaker_for_everybody(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    settings = {
        "SHADOW_SIDECAR_ANSWER_S": "1",
        "SHADOW_SIDECAR_RETRY_WAITS_S": "0",
        "SHADOW_SIDECAR_BREAKER_OPEN_S": "3",
    }
    async with running(home, **settings) as server, logged_in(server) as caller:
        task = await begin(caller, source, script(tmp_path, FINISH))
        await Reader(caller, task).until("run_finished")
        workspace = (await caller.call("GET", f"/v1/tasks/{task}"))["workspace_id"]
        read = f"/v1/workspaces/{workspace}/files/stat?path=a.txt"
        await caller.call("GET", read)
        before = await metrics(caller)
        assert before[STATES] == {("closed",): 1, ("half_open",): 0, ("open",): 0}
        assert UNANSWERED not in before
        with stopped(home / "data", workspace):
            failed = await asyncio.gather(*(refused(caller, "GET", read) for _ in range(5)))
            assert {status for status, _ in failed} == {503}
            status, error = await refused(caller, "GET", read)
            details = error["details"]
            assert isinstance(details, dict)
            assert (status, error["code"], details["breaker"], details["failures"]) == (503, "unavailable", "open", 5)
            assert "not sent" in str(error["message"])
            told = await metrics(caller)
            assert told[STATES][("open",)] == 1
            assert told[OPENS][()] == before[OPENS][()] + 1
            assert told[UNANSWERED] == {(workspace, "open"): 5}
            async with asyncio.timeout(WITHIN_S):
                while (await refused(caller, "GET", read))[1]["details"]["failures"] == 5:  # type: ignore[index]
                    await asyncio.sleep(0.05)  # at last one was let through, and failed too
            assert (await metrics(caller))[OPENS][()] == before[OPENS][()] + 2
            probe = asyncio.create_task(_when_let_through(caller, read))
            await until_breaker(caller, "half_open")
        await probe
        after = await metrics(caller)
        assert after[STATES] == {("closed",): 1, ("half_open",): 0, ("open",): 0}
        assert UNANSWERED not in after
        await caller.call("DELETE", f"/v1/tasks/{task}")
        async with asyncio.timeout(WITHIN_S):
            while any((await metrics(caller))[STATES].values()):
                await asyncio.sleep(0.05)


async def _when_let_through(caller: Caller, path: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            async with caller.session.get(caller.url + path, headers=caller.headers) as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)
