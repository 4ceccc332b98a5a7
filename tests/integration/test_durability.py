"""Workers that are killed at any moment, again and again: every task ends, and everything it does it has done once."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from shadow.bootstrap import make_manager, open_tasks
from shadow.core.events import (
    CheckpointTaken,
    CommandOutput,
    Recorded,
    RunFinished,
    RunStarted,
    ToolFinished,
    ToolStarted,
    WorkDelivered,
)
from shadow.core.jobs import JobState
from shadow.core.repositories import LocalRepository
from shadow.core.tasks import TaskId, TaskState
from shadow.db import jobs
from shadow.settings import Settings
from shadow.tasks.service import MAX_ATTEMPTS, Tasks
from shadow.tasks.values import RunOptions, TaskSettings
from shadow.tasks.workshop import WORKING_LEASE_S
from tests.support.databases import Place, shared_place
from tests.support.git_servers import git, make_repository

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
__all__ = ["shared_place"]

TASKS = 3
KILLS_WHILE_ARCHIVING = 3
ENDS_WITHIN_S = 120.0


def environment(place: Place, directory: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHADOW_", "AGENT_MODE", "XDG_"))}
    return inherited | {
        "SHADOW_DATA_DIR": str(directory / "data"),
        "SHADOW_DATABASE_URL": place.url or "",
        "SHADOW_WORKER_LEASE_S": "1",
        "SHADOW_WORKER_SLOTS": str(TASKS),
        "SHADOW_LOG_LEVEL": "error",
    }


@contextmanager
def worker(env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    argv = [sys.executable, "-m", "tests.support.worker_process"]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def opened(place: Place, directory: Path) -> AsyncGenerator[tuple[Tasks, Settings]]:
    values: dict[str, Any] = {"data_dir": directory / "data"}
    if place.url is not None:
        values["database_url"] = SecretStr(place.url)
    settings = Settings(**values)
    async with open_tasks(settings) as tasks:
        try:
            yield tasks, settings
        finally:
            manager = make_manager(settings)
            for status in await manager.list():
                await manager.destroy(status.id)


def shell(command: str) -> dict[str, Any]:
    return {"tool": "run_terminal_cmd", "arguments": {"command": command, "timeout_s": 60}}


STEPS: Sequence[dict[str, Any]] = (
    {"text": "I begin. " * 20, "calls": [shell("echo 1 >> log; sleep 0.3; echo done 1")]},
    {
        "calls": [
            {"tool": "edit_file", "arguments": {"path": "made", "content": "as written\n"}},
            shell("echo 2 >> log; sleep 0.2"),
            {"tool": "search_replace", "arguments": {"path": "a.txt", "old": "one", "new": "one one"}},
        ]
    },
    {"text": "Nearly there. " * 20, "calls": [shell("echo 3 >> log; sleep 0.3; seq 1 500")]},
    {"calls": [{"tool": "finish", "arguments": {"summary": "Did it.", "success": True}}]},
)


async def until_all_end(tasks: Tasks, ids: Sequence[TaskId]) -> None:
    end = time.monotonic() + ENDS_WITHIN_S
    while any([await at_work(tasks, task_id) for task_id in ids]):
        assert time.monotonic() < end, await standing(tasks, ids)
        await asyncio.sleep(0.1)


async def at_work(tasks: Tasks, task_id: TaskId) -> bool:
    async with tasks.database.read() as connection:
        return bool(await jobs.of_task(connection, task_id, open_only=True))


async def standing(tasks: Tasks, ids: Sequence[TaskId]) -> str:
    async with tasks.database.read() as connection:
        return "\n".join(str(await jobs.of_task(connection, task_id)) for task_id in ids)


def check_log(recorded: Sequence[Recorded]) -> None:
    assert [one.seq for one in recorded] == list(range(1, len(recorded) + 1))
    events = [one.event for one in recorded]
    calls = Counter(event.result.call_id for event in events if isinstance(event, ToolFinished))
    assert len(calls) == 6
    assert set(calls.values()) == {1}
    begun = Counter(event.call_id for event in events if isinstance(event, ToolStarted))
    assert begun == calls
    for call_id in calls:
        pieces = [event for event in events if isinstance(event, CommandOutput) and event.call_id == call_id]
        assert all(before.end == after.start for before, after in pairwise(pieces))
    kinds = Counter(type(event) for event in events)
    assert (kinds[RunStarted], kinds[RunFinished], kinds[WorkDelivered]) == (1, 1, 1)
    assert kinds[CheckpointTaken] >= 3


async def check_effects(tasks: Tasks, task_id: TaskId, source: Path) -> None:
    task = await tasks.find(task_id)
    recorded = await tasks.events(task_id)
    assert (task.state, task.outcome) == (TaskState.IDLE, "done"), [one.event for one in recorded[-8:]]
    check_log(recorded)
    assert task.checkout is not None
    branch = task.checkout.branch
    assert git(source, "show", f"{branch}:log") == "1\n2\n3"
    assert git(source, "show", f"{branch}:made") == "as written"
    assert git(source, "show", f"{branch}:a.txt") == "one one"
    assert git(source, "rev-list", "--count", f"main..{branch}").strip() == "1"


async def check_jobs(tasks: Tasks, ids: Sequence[TaskId], *, each: int) -> None:
    async with tasks.database.read() as connection:
        for task_id in ids:
            done = await jobs.of_task(connection, task_id)
            assert [job.state for job in done] == [JobState.DONE] * each, done


async def check_workspaces(tasks: Tasks, settings: Settings, ids: Sequence[TaskId]) -> None:
    owned = {(await tasks.find(task_id)).workspace_id for task_id in ids}
    manager = make_manager(settings)
    for status in await manager.list():
        # What was made and never came on record ends by its own short lease.
        assert status.id in owned or (status.lease_expires_at or 0) < time.time() + WORKING_LEASE_S + 60, status


async def until_none_is_worn(tasks: Tasks, ids: Sequence[TaskId]) -> None:
    """A job may lose so many workers without a step done: on a slow machine each might die before it is through with one."""
    async with asyncio.timeout(ENDS_WITHIN_S):
        while True:
            async with tasks.database.read() as connection:
                found = [job for task_id in ids for job in await jobs.of_task(connection, task_id, open_only=True)]
            if all(job.attempts < MAX_ATTEMPTS // 2 for job in found):
                return
            await asyncio.sleep(0.1)


async def kill_and_go_on(place: Place, directory: Path, *, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    source = make_repository(directory / "project", {"a.txt": b"one\n"})
    script = directory / "script.yaml"
    script.write_text(yaml.safe_dump({"version": 1, "model": {"pace_s": 0.01}, "steps": list(STEPS)}))
    wanted = TaskSettings(options=RunOptions(check="grep -c . log"))
    env = environment(place, directory)
    async with opened(place, directory) as (tasks, settings):
        ids: list[TaskId] = []
        left = kills - KILLS_WHILE_ARCHIVING
        while left:
            for _ in range(TASKS):
                made = await tasks.create(
                    LocalRepository(path=str(source)), "Do it", model=f"scripted:{script}", settings=wanted
                )
                ids.append(made.id)
            while left and any([await at_work(tasks, task_id) for task_id in ids[-TASKS:]]):
                with worker(env) as process:
                    await asyncio.sleep(draw.uniform(0.05, 2.0))
                    await until_none_is_worn(tasks, ids[-TASKS:])
                    process.send_signal(draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                    if process.wait() == -signal.SIGKILL:
                        left -= 1
        with worker(env):
            await until_all_end(tasks, ids)
        for task_id in ids:
            await check_effects(tasks, task_id, source)
        await check_jobs(tasks, ids, each=2)
        await check_workspaces(tasks, settings, ids)
        for task_id in ids:
            await tasks.archive(task_id)
        for _ in range(KILLS_WHILE_ARCHIVING):
            with worker(env) as process:
                await asyncio.sleep(draw.uniform(0.2, 1.2))
                process.kill()
        with worker(env):
            await until_all_end(tasks, ids)
        assert {(await tasks.find(task_id)).state for task_id in ids} == {TaskState.ARCHIVED}
        assert {(await tasks.find(task_id)).workspace_id for task_id in ids} == {None}
        await check_jobs(tasks, ids, each=3)
        await check_workspaces(tasks, settings, ids)


async def test_tasks_survive_killed_workers(shared_place: Place, tmp_path: Path) -> None:
    await kill_and_go_on(shared_place, tmp_path, kills=20, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_tasks_survive_hundreds_of_killed_workers(shared_place: Place, tmp_path: Path) -> None:
    await kill_and_go_on(shared_place, tmp_path, kills=150, seed=2)
