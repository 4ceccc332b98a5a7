"""Tasks of another host: its workers do what needs the workspace, where they can come at all; letting go needs none of them."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from shadow.core.errors import NotFound
from shadow.core.ids import WorkspaceId
from shadow.core.jobs import JobState
from shadow.core.tasks import TaskState
from shadow.core.workspaces import WorkspaceSpec
from shadow.db.database import Database
from shadow.db.tables import jobs as table
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.tasks import kinds
from shadow.tasks.elsewhere import FORGET_AFTER_S, OtherHost, leave_to_its_host, watch_for_its_host
from shadow.tasks.ending import Archiving, CleaningUp, CleanupPolicy, Deleting, Freeing
from shadow.tasks.running import BEGIN, Running
from tests.support.databases import Place
from tests.support.jobs import Does, ended, worker
from tests.support.shops import HOST, add_job, jobs_of, leave_half_done, make_shop, make_tasks, open_kinds, put_task

pytestmark = pytest.mark.anyio
THERE = "there"
SOON_S = 0.6


@pytest.fixture
async def database(shared_place: Place) -> AsyncGenerator[Database]:
    async with shared_place.open() as opened:
        yield opened


async def free_jobs(database: Database) -> list[tuple[str | None, JobState]]:
    async with database.read() as connection:
        rows = await connection.execute(select(table.c.host, table.c.state).where(table.c.kind == kinds.FREE))
    return [(host, JobState(state)) for host, state in rows]


async def test_what_needs_the_other_host_is_left_to_it_or_refused(database: Database) -> None:
    here = make_tasks(database)
    task = await put_task(database, TaskState.IDLE, host=THERE)
    if not database.is_shared:
        for act in (here.send(task.id, "x"), here.hibernate(task.id), here.resume(task.id)):
            with pytest.raises(OtherHost, match=THERE):
                await act
        assert await open_kinds(database, task.id) == []
        return
    await here.send(task.id, "x")
    (job,) = await jobs_of(database, task.id)
    assert (job.kind, job.host) == (kinds.RUN, THERE)


async def test_who_waits_is_told_that_nobody_comes(database: Database) -> None:
    task = await put_task(database, TaskState.IDLE, host=THERE)
    await add_job(make_tasks(database, host=THERE), task, kinds.RUN)
    async with asyncio.timeout(30):
        with pytest.raises(OtherHost, match=THERE) as refused:
            await watch_for_its_host(database, task.id, HOST, within_s=SOON_S)
    assert refused.value.details == {"task_id": task.id, "host": THERE}


async def test_who_waits_goes_on_waiting_while_somebody_is_at_it(database: Database) -> None:
    task = await put_task(database, TaskState.IDLE, host=THERE)
    there = make_tasks(database, host=THERE)
    goes_on = asyncio.Event()
    begun = asyncio.Event()

    async def run(_: object) -> None:
        begun.set()
        await goes_on.wait()

    async with worker(database, {kinds.RUN: Does(run)}, host=THERE):
        job = await add_job(there, task, kinds.RUN)
        await asyncio.wait_for(begun.wait(), 20)
        watch = asyncio.ensure_future(watch_for_its_host(database, task.id, HOST, within_s=SOON_S))
        assert (await asyncio.wait({watch}, timeout=4 * SOON_S))[0] == set()
        goes_on.set()
        await ended(database, job.id)
    # Nothing is left to wait for: nor is that an error.
    assert (await asyncio.wait({watch}, timeout=2 * SOON_S))[0] == set()
    watch.cancel()


@pytest.mark.parametrize("how", [kinds.ARCHIVE, kinds.DELETE])
async def test_it_is_let_go_of_at_once_and_its_workspace_when_its_host_comes(
    database: Database, tmp_path: Path, how: str
) -> None:
    here, there = make_tasks(database), make_tasks(database, host=THERE)
    manager_there = MockWorkspaceManager()
    workspace = await manager_there.create(WorkspaceSpec())
    task = await put_task(database, TaskState.IDLE, host=THERE, workspace_id=workspace.id)
    shop_there = make_shop(there, tmp_path / THERE, manager_there)
    shop_there.artifacts.put(task.id, "a.patch", b"x")
    await (here.archive if how == kinds.ARCHIVE else here.delete)(task.id)
    (job,) = await jobs_of(database, task.id)
    shop = make_shop(here, tmp_path / HOST)
    async with worker(
        database, {kinds.ARCHIVE: Archiving(shop), kinds.DELETE: Deleting(shop), kinds.FREE: Freeing(shop)}, host=HOST
    ):
        (job,) = await ended(database, job.id)
        assert job.state is JobState.DONE, job.error
        assert await free_jobs(database) == [(THERE, JobState.WAITING)]
    left = [(task.state, task.workspace_id) for task in await here.list(limit=10)]
    assert left == ([(TaskState.ARCHIVED, None)] if how == kinds.ARCHIVE else [])
    assert [status.id for status in await manager_there.list()] == [workspace.id]
    async with worker(database, {kinds.FREE: Freeing(shop_there)}, host=THERE):
        await _until_free(database)
    assert await manager_there.list() == []
    if how == kinds.ARCHIVE:
        assert shop_there.artifacts.get(task.id, "a.patch") == b"x"
    else:
        with pytest.raises(NotFound):
            shop_there.artifacts.get(task.id, "a.patch")


async def _until_free(database: Database) -> None:
    async with asyncio.timeout(20):
        while await free_jobs(database) != [(THERE, JobState.DONE)]:
            await asyncio.sleep(0.02)


async def test_nobody_waits_for_ever_for_a_host_that_is_gone(database: Database, tmp_path: Path) -> None:
    here = make_tasks(database)
    task = await put_task(database, TaskState.IDLE, host=THERE, workspace_id=WorkspaceId("ws_there"))
    for age_s, state in ((FORGET_AFTER_S - 60, JobState.WAITING), (FORGET_AFTER_S + 60, JobState.CANCELLED)):
        async with database.write() as transaction:
            await transaction.connection.execute(delete(table))
            await leave_to_its_host(transaction, task, artifacts_too=True, entropy=os.urandom)
            await transaction.connection.execute(update(table).values(created_at=transaction.now - age_s))
            job = await here.clean_up(transaction)
        policy = CleanupPolicy(hibernate_after_s=None, archive_after_s=None)
        cleaning = CleaningUp(make_shop(here, tmp_path), policy)
        async with worker(database, {kinds.clean_up_of(HOST): cleaning}, host=HOST):
            await ended(database, job.id)
        assert await free_jobs(database) == [(THERE, state)]


async def test_a_run_that_its_host_left_ends_here_when_the_task_is_archived(database: Database, tmp_path: Path) -> None:
    here, there = make_tasks(database), make_tasks(database, host=THERE)
    task = await put_task(database, TaskState.RUNNING, host=THERE)
    begun = json.dumps({"number": 1, "text": "x", "slept": False})
    await leave_half_done(there, task, kinds.RUN, {BEGIN: begun}, host=THERE)
    await here.archive(task.id)
    shop = make_shop(here, tmp_path)
    async with worker(database, {kinds.ARCHIVE: Archiving(shop), kinds.RUN: Running(shop)}, host=HOST):
        await ended(database, *[job.id for job in await jobs_of(database, task.id)])
    assert (await here.find(task.id)).state is TaskState.ARCHIVED
    assert [job.kind for job in await jobs_of(database, task.id)] == [kinds.RUN, kinds.ARCHIVE]
