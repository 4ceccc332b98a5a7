"""A remote that does not answer: the task waits for it, says so, and not for ever."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from shadow.bootstrap import make_manager, make_worker, open_tasks
from shadow.core.errors import Unavailable
from shadow.core.events import AttemptFailed, RunFinished, TaskEvent, TaskFailed, WorkDelivered
from shadow.core.repositories import parse_repository
from shadow.core.tasks import Task, TaskState
from shadow.settings import Settings
from shadow.tasks.initialising import Initialising
from shadow.tasks.service import Tasks
from shadow.tasks.values import TaskSettings
from tests.support.git_servers import GitServer, git, http_server, make_repository

pytestmark = pytest.mark.anyio
WITHIN_S = 60.0
E = TypeVar("E", bound=TaskEvent)


@pytest.fixture
def server(tmp_path: Path) -> Generator[GitServer]:
    source = make_repository(tmp_path / "served" / "source", {"a.txt": b"one\n"})
    git(source, "config", "http.receivepack", "true")
    with http_server(tmp_path / "served") as serving:
        yield serving


def down(request: BaseHTTPRequestHandler) -> bool:
    request.send_error(503)
    return True


@asynccontextmanager
async def at_work(directory: Path) -> AsyncGenerator[tuple[Tasks, Settings]]:
    settings = Settings(data_dir=directory / "data")
    async with open_tasks(settings) as tasks:
        worker = await make_worker(settings, tasks)
        running = asyncio.create_task(worker.run())
        try:
            yield tasks, settings
        finally:
            worker.drain(within_s=1)
            await running
            manager = make_manager(settings)
            for status in await manager.list():
                await manager.destroy(status.id)


async def made(tasks: Tasks, directory: Path, server: GitServer, *steps: dict[str, Any], owner: str = "local") -> Task:
    script = directory / "script.yaml"
    script.write_text(yaml.safe_dump({"version": 1, "steps": list(steps)}))
    repository = parse_repository(f"{server.url}/source", local_user=True)
    return await tasks.create(repository, "Do it", model=f"scripted:{script}", settings=TaskSettings(), owner=owner)


def shell(command: str) -> dict[str, Any]:
    return {"calls": [{"tool": "run_terminal_cmd", "arguments": {"command": command, "timeout_s": 60}}]}


FINISH = {"calls": [{"tool": "finish", "arguments": {"summary": "Did it.", "success": True}}]}


async def told(tasks: Tasks, task: Task, kind: type[E]) -> E:
    """The first event of that kind."""
    async with asyncio.timeout(WITHIN_S):
        async for recorded in tasks.follow(task.id):
            if isinstance(recorded.event, kind):
                return recorded.event
    raise AssertionError(f"there was no {kind}")


async def until_ready_to_deliver(tasks: Tasks, settings: Settings, task: Task, server: GitServer) -> None:
    """The agent is at work until the server is away."""
    async with asyncio.timeout(WITHIN_S):
        while (task := await tasks.find(task.id)).state is not TaskState.RUNNING:
            await asyncio.sleep(0.05)
    server.answer = down
    assert task.workspace_id is not None
    async with await make_manager(settings).attach(task.workspace_id) as executor:
        await executor.write_file("go", b"")


WORK = (shell("echo two >> a.txt; while [ ! -e go ]; do sleep 0.05; done"), FINISH)


async def test_a_start_waits_for_the_remote_and_says_so(tmp_path: Path, server: GitServer) -> None:
    server.answer = down
    async with at_work(tmp_path) as (tasks, _):
        task = await made(tasks, tmp_path, server, {"text": "Nothing to do."})
        failed = await told(tasks, task, AttemptFailed)
        server.answer = None
        assert (failed.what, failed.code, failed.attempt) == ("initialise", "remote_unreachable", 1)
        assert "503" in failed.message
        assert 0 < failed.wait_s <= 3
        assert failed.attempts <= 6  # whoever mistyped an address does not wait for an hour
        assert (await told(tasks, task, RunFinished)).status == "done"


async def test_a_delivery_waits_for_the_remote_and_says_so(tmp_path: Path, server: GitServer) -> None:
    async with at_work(tmp_path) as (tasks, settings):
        task = await made(tasks, tmp_path, server, *WORK)
        await until_ready_to_deliver(tasks, settings, task, server)
        failed = await told(tasks, task, AttemptFailed)
        server.answer = None
        assert (failed.what, failed.code, failed.attempt) == ("DELIVER", "remote_unreachable", 1)
        delivered = await told(tasks, task, WorkDelivered)
        assert (await told(tasks, task, RunFinished)).status == "done"
        branch = (await tasks.find(task.id)).checkout
        assert branch is not None
        assert git(tmp_path / "served/source", "rev-parse", branch.branch) == delivered.commit


async def test_a_delivery_that_waits_can_be_stopped_and_the_next_run_delivers(
    tmp_path: Path, server: GitServer
) -> None:
    async with at_work(tmp_path) as (tasks, settings):
        task = await made(tasks, tmp_path, server, *WORK)
        await until_ready_to_deliver(tasks, settings, task, server)
        await told(tasks, task, AttemptFailed)
        await tasks.stop(task.id)
        finished = await told(tasks, task, RunFinished)
        assert (finished.status, finished.undelivered is not None) == ("interrupted", True)
        assert (await tasks.find(task.id)).state is TaskState.IDLE
        server.answer = None
        again = tmp_path / "again.yaml"
        again.write_text(yaml.safe_dump({"version": 1, "steps": [FINISH]}))
        await tasks.send(task.id, "Go on", model=f"scripted:{again}")
        delivered = await told(tasks, task, WorkDelivered)
        assert [change.path for change in delivered.changes] == ["a.txt", "go"]


async def test_a_mistyped_host_fails_the_start_at_once(tmp_path: Path, server: GitServer) -> None:
    server.url = "https://githib.invalid"
    async with at_work(tmp_path) as (tasks, _):
        task = await made(tasks, tmp_path, server, FINISH)
        failed = await told(tasks, task, TaskFailed)
        assert "githib.invalid" in failed.message
        assert not any(isinstance(one.event, AttemptFailed) for one in await tasks.events(task.id))


async def test_the_wait_is_bounded() -> None:
    policy = Initialising.retries
    waits_s = [policy.wait_s(n) for n in range(1, 100) if policy.again(Unavailable(""), n)]
    assert 20 <= sum(waits_s) <= 120


async def test_the_worker_reaches_nothing_inside_for_members_of_a_server(tmp_path: Path, server: GitServer) -> None:
    """Whatever let their task in: it fails at once, and the server that it names hears nothing."""
    async with at_work(tmp_path) as (tasks, _):
        task = await made(tasks, tmp_path, server, owner="user_alice")
        failed = await told(tasks, task, TaskFailed)
        assert failed.code in ("rejected", "denied")
        assert server.requests == []
