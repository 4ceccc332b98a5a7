"""Budgets where tasks are worked at: a run that may not begin does nothing, and what a workspace took is put on record."""

from dataclasses import replace
from pathlib import Path

import pytest

from shadow.core.events import RunFinished, RunStarted
from shadow.core.ids import WorkspaceId
from shadow.core.quota import Budgets
from shadow.core.tasks import TaskState
from shadow.core.workspaces import CpuTime, WorkspaceSpec, WorkspaceState
from shadow.db.database import Database
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.tasks import kinds
from shadow.tasks.ending import Archiving, CleaningUp, CleanupPolicy, Deleting, Hibernating
from shadow.tasks.running import Running
from shadow.tasks.service import TaskLimits, Tasks
from tests.support.jobs import ended, worker
from tests.support.shops import HOST, jobs_of, make_shop, make_tasks, put_task
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

NEVER = CleanupPolicy(hibernate_after_s=None, archive_after_s=None)


class Metered(MockWorkspaceManager):
    """Each of its workspaces has taken ``used_s`` of CPU time, while anything runs in it."""

    used_s = 0.0

    async def cpu_time(self, workspace_id: WorkspaceId) -> CpuTime | None:
        runs = (await self.status(workspace_id)).state is WorkspaceState.READY
        return CpuTime(since=100.0, used_s=self.used_s) if runs else None


async def spent(tasks: Tasks) -> tuple[float, int]:
    (one,) = await tasks.spenders.usage(["local"])
    return one.spending.day.cpu_s, one.spending.storage_bytes


async def clean_up(tasks: Tasks) -> None:
    async with tasks.database.write() as transaction:
        job = await tasks.clean_up(transaction)
    await ended(tasks.database, job.id)


async def test_a_run_that_may_spend_nothing_wakes_nothing(database: Database, tmp_path: Path) -> None:
    tasks = make_tasks(database)
    manager = MockWorkspaceManager()
    workspace = await manager.create(WorkspaceSpec())
    await manager.hibernate(workspace.id, keep_s=600.0)
    for number, budgets in enumerate((Budgets(tokens_day=0), Budgets(cpu_s_month=0), Budgets(storage_bytes=0))):
        task = await put_task(
            database, TaskState.HIBERNATED, id_=f"task_{number}", workspace_id=workspace.id if number == 0 else None
        )
        await tasks.send(task.id, "Go on.")
        spenders = replace(tasks, limits=TaskLimits(budgets=budgets))
        async with worker(database, {kinds.RUN: Running(make_shop(spenders, tmp_path, manager))}, host=HOST):
            await ended(database, (await jobs_of(database, task.id))[-1].id)
        told = [one.event for one in await tasks.events(task.id)]
        (finished,) = [event for event in told if isinstance(event, RunFinished)]
        limit = ("tokens_day", "cpu_s_month", "storage_bytes")[number]
        assert (finished.status, finished.code) == ("limit_reached", limit)
        assert sum(isinstance(event, RunStarted) for event in told) == 1
        assert (await manager.status(workspace.id)).state is WorkspaceState.STOPPED


@pytest.mark.parametrize("kind", [kinds.HIBERNATE, kinds.ARCHIVE, kinds.DELETE])
async def test_what_a_workspace_took_is_on_record_when_it_goes(database: Database, tmp_path: Path, kind: str) -> None:
    tasks, manager = make_tasks(database), Metered()
    shop = make_shop(tasks, tmp_path, manager)
    workspace = await manager.create(WorkspaceSpec())
    async with await manager.attach(workspace.id) as executor:
        await executor.write_file("a", b"x" * 5000)
    task = await put_task(database, TaskState.IDLE, workspace_id=workspace.id)
    shop.artifacts.put(task.id, "a.patch", b"x" * 100)
    handlers = {
        kinds.HIBERNATE: Hibernating(shop),
        kinds.ARCHIVE: Archiving(shop),
        kinds.DELETE: Deleting(shop),
        kinds.clean_up_of(HOST): CleaningUp(shop, NEVER),
    }
    async with worker(database, handlers, host=HOST):
        manager.used_s = 2.0
        for _ in range(2):
            await clean_up(tasks)
            cpu_s, size_bytes = await spent(tasks)
            assert cpu_s == 2.0
            assert size_bytes >= 5100
        manager.used_s = 2.5
        ask = {kinds.HIBERNATE: tasks.hibernate, kinds.ARCHIVE: tasks.archive, kinds.DELETE: tasks.delete}[kind]
        await ask(task.id)
        left = {kinds.HIBERNATE: size_bytes, kinds.ARCHIVE: 100, kinds.DELETE: 0}[kind]

        async def is_on_record() -> bool:
            return await spent(tasks) == (2.5, left)

        await until(is_on_record)
        await clean_up(tasks)
    assert await is_on_record()
