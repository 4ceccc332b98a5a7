"""What becomes of tasks that nobody uses: put to sleep, archived, deleted; and what is gone is put on record."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import update

from shadow.bootstrap import make_manager, make_worker, open_tasks
from shadow.core.commands import CommandSpec, shell
from shadow.core.errors import NotFound
from shadow.core.jobs import Job, JobState
from shadow.core.repositories import LocalRepository
from shadow.core.tasks import Task, TaskState
from shadow.core.terminals import TerminalSpec
from shadow.core.workspaces import WorkspaceState
from shadow.db import jobs
from shadow.db.jobs import JOBS
from shadow.db.tables import schedules
from shadow.settings import Settings
from shadow.tasks.service import Tasks
from shadow.tasks.values import TaskSettings
from tests.support.databases import POSTGRESQL, make_place
from tests.support.git_servers import make_repository

pytestmark = pytest.mark.anyio
WITHIN_S = 40.0


@asynccontextmanager
async def at_work(directory: Path, **policy: Any) -> AsyncGenerator[tuple[Tasks, Settings]]:
    """Tasks, and a worker for all of them."""
    settings = Settings(data_dir=directory / "data", **policy)
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


async def idle_task(tasks: Tasks, directory: Path) -> Task:
    source = make_repository(directory / "project", {"a.txt": b"one\n"})
    script = directory / "script.yaml"
    script.write_text(yaml.safe_dump({"version": 1, "steps": [{"text": "Nothing to do."}]}))
    task = await tasks.create(
        LocalRepository(path=str(source)), "x", model=f"scripted:{script}", settings=TaskSettings()
    )
    await until(lambda: has_state(tasks, task, TaskState.IDLE, runs=1))
    return await tasks.find(task.id)


async def has_state(tasks: Tasks, task: Task, state: TaskState, *, runs: int = 0) -> bool:
    found = await tasks.find(task.id)
    return found.state is state and found.runs >= runs


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + WITHIN_S
    while not await condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def clean_up(tasks: Tasks) -> Job:
    """As when the time for it has come."""
    async with tasks.database.write() as transaction:
        return await tasks.clean_up(transaction)


async def is_over(tasks: Tasks, job: Job) -> bool:
    async with tasks.database.read() as connection:
        return (await jobs.get(connection, job.id)).state is JobState.DONE


async def test_an_idle_task_is_put_to_sleep(tmp_path: Path) -> None:
    async with at_work(tmp_path, task_hibernate_after_s=0.1) as (tasks, settings):
        task = await idle_task(tasks, tmp_path)
        await asyncio.sleep(0.2)
        await clean_up(tasks)
        await until(lambda: has_state(tasks, task, TaskState.HIBERNATED))
        assert task.workspace_id is not None
        status = await make_manager(settings).status(task.workspace_id)
        assert status.state is WorkspaceState.STOPPED
        assert (status.lease_expires_at or 0) > time.time() + 20 * 24 * 3600


async def test_a_task_that_nobody_needs_is_archived_and_then_forgotten(tmp_path: Path) -> None:
    async with at_work(tmp_path, task_archive_after_s=0.1) as (tasks, settings):
        task = await idle_task(tasks, tmp_path)
        await asyncio.sleep(0.2)
        await clean_up(tasks)
        await until(lambda: has_state(tasks, task, TaskState.ARCHIVED))
        assert await make_manager(settings).list() == []
    async with at_work(tmp_path, task_delete_after_s=0.1) as (tasks, _):
        await asyncio.sleep(0.2)
        await clean_up(tasks)

        async def is_gone() -> bool:
            try:
                await tasks.find(task.id)
            except NotFound:
                return True
            return False

        await until(is_gone)


async def test_a_task_in_use_is_left_alone(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (tasks, settings):
        task = await idle_task(tasks, tmp_path)
        await clean_up(tasks)
        await asyncio.sleep(0.5)
        assert (await tasks.find(task.id)).state is TaskState.IDLE
        assert [status.id for status in await make_manager(settings).list()] == [task.workspace_id]


async def test_a_workspace_that_is_gone_is_put_on_record(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (tasks, settings):
        task = await idle_task(tasks, tmp_path)
        assert task.workspace_id is not None
        await make_manager(settings).destroy(task.workspace_id)
        await clean_up(tasks)
        await until(lambda: has_state(tasks, task, TaskState.ARCHIVED))
        assert (await tasks.find(task.id)).workspace_id is None


async def test_each_host_sees_to_its_own_workspaces(tmp_path: Path) -> None:
    """Two hosts with one database: what only one of them can see is not left to whoever is first."""
    shared = {"database_url": SecretStr(make_place(POSTGRESQL, tmp_path).url or "")}
    made: list[Task] = []
    for name in ("one", "two"):
        async with at_work(tmp_path / name, **shared) as (tasks, _):
            made.append(await idle_task(tasks, tmp_path / name))  # its workspace goes with the end of the block
    assert made[0].host != made[1].host
    async with at_work(tmp_path / "one", **shared) as (tasks, _), at_work(tmp_path / "two", **shared):
        async with tasks.database.write() as transaction:
            await transaction.connection.execute(update(schedules).values(next_at=0.0))
            transaction.tell(JOBS)
        for task in made:
            await until(lambda task=task: has_state(tasks, task, TaskState.ARCHIVED))


async def test_a_task_is_not_put_to_sleep_under_a_persons_command(tmp_path: Path) -> None:
    async with at_work(tmp_path, task_hibernate_after_s=0.1) as (tasks, settings):
        task = await idle_task(tasks, tmp_path)
        assert task.workspace_id is not None
        async with await make_manager(settings).attach(task.workspace_id) as executor:
            command = await executor.start(CommandSpec(argv=shell("sleep 600")))
            await asyncio.sleep(0.2)
            job = await clean_up(tasks)
            await until(lambda: is_over(tasks, job))
            assert (await tasks.find(task.id)).state is TaskState.IDLE
            assert (await executor.get_command(command.id)).ending is None
            await executor.kill(command.id)
        await clean_up(tasks)
        await until(lambda: has_state(tasks, task, TaskState.HIBERNATED))


async def test_a_task_is_not_put_to_sleep_under_a_persons_terminal(tmp_path: Path) -> None:
    async with at_work(tmp_path, task_hibernate_after_s=0.1) as (tasks, settings):
        task = await idle_task(tasks, tmp_path)
        assert task.workspace_id is not None
        async with await make_manager(settings).attach(task.workspace_id) as executor:
            terminal = await executor.create_terminal(TerminalSpec(argv=("cat",)))
            await asyncio.sleep(0.2)
            await clean_up(tasks)
            await asyncio.sleep(1)
            assert (await tasks.find(task.id)).state is TaskState.IDLE
            await executor.kill_terminal(terminal.id)
        await clean_up(tasks)
        await until(lambda: has_state(tasks, task, TaskState.HIBERNATED))
