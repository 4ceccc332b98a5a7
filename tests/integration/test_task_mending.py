"""Tasks whose worker was lost for good, or whose database was away when it mattered most: none is stuck."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shadow.core.errors import Conflict, ShadowError, Unavailable
from shadow.core.events import RunFinished, StateChanged, TaskFailed
from shadow.core.jobs import JobState
from shadow.core.repositories import LocalRepository
from shadow.core.tasks import Task, TaskState
from shadow.db.database import Database
from shadow.engine.context import JobContext
from shadow.tasks import kinds
from shadow.tasks.ending import Archiving, CleaningUp, CleanupPolicy, Deleting
from shadow.tasks.initialising import Initialising
from shadow.tasks.service import Tasks
from shadow.tasks.values import TaskSettings
from tests.support.databases import POSTGRESQL, cluster, make_place
from tests.support.jobs import Does, ended, worker
from tests.support.shops import HOST, add_job, jobs_of, make_shop, make_tasks, open_kinds, put_task
from tests.support.waiting import until

pytestmark = pytest.mark.anyio
OLD_S = 1000.0
LEASE_S = 6.0
"""Longer than the database is away: what is told of that must not be the loss of the lease."""


async def lost_runs(tasks: Tasks, task: Task) -> int:
    finished = [one.event for one in await tasks.events(task.id) if isinstance(one.event, RunFinished)]
    assert all((event.status, event.code) == ("failed", "worker_lost") for event in finished)
    return len(finished)


async def state(tasks: Tasks, task: Task) -> TaskState:
    return (await tasks.find(task.id)).state


async def failed_to_start(tasks: Tasks) -> Task:
    """One whose start has a job that ended, and that says nevertheless that it is starting."""
    task = await tasks.create(LocalRepository(path="/nowhere"), "x", model="scripted:/nowhere", settings=TaskSettings())

    async def never(context: JobContext) -> None:
        raise Conflict("No.")

    async with worker(tasks.database, {kinds.INITIALISE: Does(never)}, host=HOST):
        await ended(tasks.database, (await jobs_of(tasks.database, task.id))[0].id)
    assert (await state(tasks, task), await open_kinds(tasks.database, task.id)) == (TaskState.STARTING, [])
    return task


# A run


async def test_a_message_begins_a_run_where_the_last_one_was_lost(database: Database) -> None:
    tasks = make_tasks(database)
    task = await put_task(database, TaskState.RUNNING)
    await tasks.send(task.id, "go on")
    after = await tasks.find(task.id)
    assert (after.state, after.outcome) == (TaskState.IDLE, "failed")
    assert await lost_runs(tasks, task) == 1
    assert await open_kinds(database, task.id) == [kinds.RUN]


async def test_what_is_refused_mends_all_the_same_and_once(database: Database) -> None:
    tasks = make_tasks(database)
    task = await put_task(database, TaskState.RUNNING)
    for _ in range(3):
        with pytest.raises(Conflict, match="waits for you"):
            await tasks.resume(task.id)
        assert (await state(tasks, task), await lost_runs(tasks, task)) == (TaskState.IDLE, 1)
    assert await open_kinds(database, task.id) == []


@pytest.mark.parametrize("stuck", [TaskState.RUNNING, TaskState.STARTING])
@pytest.mark.parametrize("how", [kinds.ARCHIVE, kinds.DELETE])
async def test_a_stuck_task_can_be_let_go_of(database: Database, tmp_path: Path, stuck: TaskState, how: str) -> None:
    tasks = make_tasks(database)
    task = await put_task(database, stuck)
    await (tasks.archive if how == kinds.ARCHIVE else tasks.delete)(task.id)
    (job,) = await jobs_of(database, task.id)
    shop = make_shop(tasks, tmp_path)
    async with worker(database, {kinds.ARCHIVE: Archiving(shop), kinds.DELETE: Deleting(shop)}, host=HOST):
        (job,) = await ended(database, job.id)
    assert job.state is JobState.DONE, job.error
    left = [task.state for task in await tasks.list(limit=10)]
    assert left == ([TaskState.ARCHIVED] if how == kinds.ARCHIVE else [])


async def test_a_stuck_task_can_be_put_to_sleep(database: Database) -> None:
    tasks = make_tasks(database)
    task = await put_task(database, TaskState.RUNNING)
    await tasks.hibernate(task.id)
    assert (await state(tasks, task), await open_kinds(database, task.id)) == (TaskState.IDLE, [kinds.HIBERNATE])


@pytest.mark.parametrize("kind", [kinds.RUN, kinds.INITIALISE])
async def test_a_task_that_somebody_works_on_is_left_as_it_is(database: Database, kind: str) -> None:
    tasks = make_tasks(database)
    working = TaskState.RUNNING if kind == kinds.RUN else TaskState.STARTING
    task = await put_task(database, working)
    await add_job(tasks, task, kind, round=1)
    await tasks.send(task.id, "next")
    await tasks.resume(task.id)
    await tasks.mend(task.id)
    assert (await state(tasks, task), await open_kinds(database, task.id)) == (working, [kind])
    assert await lost_runs(tasks, task) == 0


# A start


async def test_a_start_that_was_lost_can_be_tried_again(database: Database) -> None:
    tasks = make_tasks(database)
    task = await failed_to_start(tasks)
    with pytest.raises(Conflict, match="could not be made") as refused:
        await tasks.send(task.id, "hello?")
    assert "task resume" in (refused.value.mend or "")
    assert await state(tasks, task) is TaskState.FAILED
    await tasks.resume(task.id)
    assert await state(tasks, task) is TaskState.STARTING
    (job,) = await jobs_of(database, task.id)
    assert (job.kind, job.state, job.payload["round"]) == (kinds.INITIALISE, JobState.WAITING, 2)
    assert [message.text for message in await tasks.queue(task.id)] == ["x"]


async def test_a_start_that_was_lost_is_resumed_at_once(database: Database) -> None:
    tasks = make_tasks(database)
    task = await failed_to_start(tasks)
    await tasks.resume(task.id)
    told = [one.event.state for one in await tasks.events(task.id) if isinstance(one.event, StateChanged)]
    assert told == [TaskState.STARTING, TaskState.FAILED, TaskState.STARTING]
    assert await open_kinds(database, task.id) == [kinds.INITIALISE]


# By itself


async def test_cleaning_up_mends_what_is_stuck_and_nothing_else(database: Database, tmp_path: Path) -> None:
    tasks = make_tasks(database)
    running = await put_task(database, TaskState.RUNNING, id_="task_running", age_s=OLD_S)
    starting = await put_task(database, TaskState.STARTING, id_="task_starting", age_s=OLD_S)
    at_work = await put_task(database, TaskState.RUNNING, id_="task_at_work", age_s=OLD_S)
    await add_job(tasks, at_work, kinds.RUN)
    never = CleanupPolicy(hibernate_after_s=None, archive_after_s=None)
    async with worker(database, {kinds.clean_up_of(HOST): CleaningUp(make_shop(tasks, tmp_path), never)}, host=HOST):
        async with database.write() as transaction:
            job = await tasks.clean_up(transaction)
        (job,) = await ended(database, job.id)
    assert job.state is JobState.DONE, job.error
    states = [await state(tasks, task) for task in (running, starting, at_work)]
    assert states == [TaskState.IDLE, TaskState.FAILED, TaskState.RUNNING]


# A database that is away


@pytest.mark.parametrize("away", ["before it is made good", "as that is written down"])
async def test_a_failed_start_is_put_on_record_when_the_database_is_back(tmp_path: Path, away: str) -> None:
    place = make_place(POSTGRESQL, tmp_path)
    async with place.open() as database:
        tasks = make_tasks(database)
        task = await tasks.create(
            LocalRepository(path="/nowhere"), "x", model="scripted:/nowhere", settings=TaskSettings()
        )
        starting = Initialising(make_shop(tasks, tmp_path))  # mocked workspaces have no git: it fails at once
        begun: list[int] = []
        coming_back: list[asyncio.Future[None]] = []

        async def compensate(context: JobContext, error: ShadowError) -> None:
            begun.append(len(begun))
            first = len(begun) == 1
            if first and away == "before it is made good":
                await _while_away(lambda: starting.compensate(context, error))
            await starting.compensate(context, error)
            if first:  # what follows is the write that ends the job
                await asyncio.to_thread(cluster().stop)
                coming_back.append(asyncio.ensure_future(asyncio.to_thread(cluster().start)))

        try:
            async with worker(database, {kinds.INITIALISE: Does(starting.run, compensate)}, host=HOST, lease_s=LEASE_S):
                await until(lambda: _has_failed(tasks, task), within_s=60)
        finally:
            await asyncio.gather(*coming_back)
        (job,) = await jobs_of(database, task.id)
        assert job.error is not None
        assert (job.state, job.error["code"]) == (JobState.FAILED, "unsupported")
        told = [one.event for one in await tasks.events(task.id) if isinstance(one.event, TaskFailed)]
        assert [event.code for event in told] == ["unsupported"]
        await tasks.resume(task.id)
        assert (await state(tasks, task), await open_kinds(database, task.id)) == (
            TaskState.STARTING,
            [kinds.INITIALISE],
        )


async def _while_away(act: Callable[[], Awaitable[None]]) -> None:
    """Raises: Unavailable: ``act`` needs the database; it is back then."""
    await asyncio.to_thread(cluster().stop)
    try:
        await act()
    finally:
        await asyncio.to_thread(cluster().start)


async def _has_failed(tasks: Tasks, task: Task) -> bool:
    try:
        (job,) = await jobs_of(tasks.database, task.id)
    except Unavailable:
        return False
    return job.state is JobState.FAILED
