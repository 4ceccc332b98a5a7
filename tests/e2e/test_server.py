"""A task through the API alone, in real processes: followed by a WebSocket, its server killed, delivered all the same."""

import asyncio
import signal
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.support.git_servers import git, make_repository
from tests.support.servers import Caller, logged_in, running

pytestmark = pytest.mark.anyio

ENDS_WITHIN_S = 90.0


def script(directory: Path, *steps: dict[str, Any]) -> str:
    path = directory / f"script{len(list(directory.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "steps": list(steps)}))
    return f"scripted:{path}"


def shell(command: str) -> dict[str, Any]:
    arguments = {"command": command, "timeout_s": 60}
    return {"calls": [{"tool": "run_terminal_cmd", "arguments": arguments}]}


FINISH: dict[str, Any] = {"calls": [{"tool": "finish", "arguments": {"summary": "Did it.", "success": True}}]}


class Reader:
    """Follows a task whatever happens to the server, each time from the last event that it has."""

    def __init__(self, caller: Caller, task: str) -> None:
        self._caller = caller
        self._task = task
        self.found: list[dict[str, Any]] = []
        self.connections = 0

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(ENDS_WITHIN_S):
            while True:
                try:
                    self.connections += 1
                    after = self.found[-1]["seq"] if self.found else 0
                    async with aclosing(self._caller.events(self._task, after=after)) as events:  # type: ignore[type-var]
                        async for event in events:
                            assert event["seq"] == (self.found[-1]["seq"] if self.found else 0) + 1
                            self.found.append(event)
                            if event["event"]["kind"] == kind:
                                return event["event"]
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)

    def kinds(self) -> list[str]:
        return [event["event"]["kind"] for event in self.found]


async def begin(caller: Caller, source: Path, model: str) -> str:
    asked = {"repository": str(source), "instruction": "Do it.", "model": model}
    return (await caller.call("POST", "/v1/tasks", asked))["id"]


async def test_a_task_survives_the_kill_of_its_server_and_its_reader_sees_one_sequence(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    model = script(tmp_path, shell("echo begun; sleep 4; echo once >> done.txt"), FINISH)
    home = tmp_path / "home"
    home.mkdir()
    async with running(home) as server, logged_in(server) as caller:
        task = await begin(caller, source, model)
        reader = Reader(caller, task)
        await reader.until("command_started")
        server.end(signal.SIGKILL)
        await server.start()
        finished = await reader.until("run_finished")
        assert (finished["status"], reader.kinds().count("tool_started")) == ("done", 2)
        assert reader.connections >= 2
        assert reader.kinds().count("work_delivered") == 1
        branch = (await caller.call("GET", f"/v1/tasks/{task}"))["branch"]
        assert git(source, "show", f"{branch}:done.txt").strip() == "once"
        page = await caller.call("GET", f"/v1/tasks/{task}/events?limit=1000")
        assert page["events"][: len(reader.found)] == reader.found
        await caller.call("DELETE", f"/v1/tasks/{task}")
        await gone(caller, task)


async def gone(caller: Caller, task: str) -> None:
    async with asyncio.timeout(ENDS_WITHIN_S):
        while True:
            async with caller.session.get(f"{caller.url}/v1/tasks/{task}", headers=caller.headers) as response:
                if response.status == 404:
                    return
            await asyncio.sleep(0.1)


async def test_a_workspace_is_worked_in_through_the_server(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    async with running(home) as server, logged_in(server) as caller:
        task = await begin(caller, source, script(tmp_path, FINISH))
        await Reader(caller, task).until("run_finished")
        workspace = (await caller.call("GET", f"/v1/tasks/{task}"))["workspace_id"]
        base = f"/v1/workspaces/{workspace}"
        done = await caller.call("POST", f"{base}/commands?wait_s=20", {"argv": ["cat", "a.txt"]})
        assert done["command"]["ending"]["code"] == 0
        async with caller.session.get(f"{caller.url}{base}/files?path=a.txt", headers=caller.headers) as response:
            assert (response.status, await response.read()) == (200, b"one\n")
        await caller.call("GET", "/v1/workspaces/ws_0000000000/files?path=a.txt", expect=404)
        await caller.call("DELETE", f"/v1/tasks/{task}")
        await gone(caller, task)


async def test_sigterm_ends_it_soon(tmp_path: Path) -> None:
    async with running(tmp_path, SHADOW_LOG_LEVEL="info") as server:
        assert server.end(signal.SIGTERM) == 0
        assert "server.stopped" in server.log()
