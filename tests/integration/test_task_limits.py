"""How many tasks with a workspace a user may have holds, however many ask for the last place at once."""

import asyncio
import sys
from collections import Counter
from contextlib import AsyncExitStack
from subprocess import PIPE

import pytest
from sqlalchemy import select, update

from shadow.core.errors import LimitExceeded
from shadow.core.jobs import JobState
from shadow.core.tasks import TaskId, TaskState
from shadow.db import tables
from shadow.db.database import Database
from shadow.tasks.service import Tasks
from tests.support.databases import Place
from tests.support.task_creator import OWNERS, create, make_tasks

pytestmark = pytest.mark.anyio
LIMIT = 3


async def live(database: Database) -> Counter[str]:
    async with database.read() as connection:
        query = select(tables.tasks.c.owner).where(tables.tasks.c.state == TaskState.STARTING.value)
        return Counter((await connection.execute(query)).scalars())


async def test_many_connections_take_no_more_than_there_is(shared_place: Place) -> None:
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(shared_place.open()) for _ in range(4)]
        asked = [(make_tasks(databases[n % 4], limit=LIMIT), OWNERS[n % 2]) for n in range(40)]
        made = await asyncio.gather(*(create(tasks, owner) for tasks, owner in asked))
        assert sum(made) == LIMIT * len(OWNERS)
        assert await live(databases[0]) == dict.fromkeys(OWNERS, LIMIT)


async def test_many_processes_take_no_more_than_there_is(shared_place: Place) -> None:
    async with shared_place.open() as database, asyncio.timeout(120):
        argv = [sys.executable, "-m", "tests.support.task_creator"]
        argv += [str(shared_place.data_dir), shared_place.url or "", str(LIMIT), "5"]
        processes = [await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE) for _ in range(3)]
        try:
            for process in processes:
                assert process.stdout is not None
                assert await process.stdout.readline() == b"ready\n"
            answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        assert sum(int(out) for out, _ in answers) == LIMIT * len(OWNERS)
        assert await live(database) == dict.fromkeys(OWNERS, LIMIT)


async def test_tasks_that_failed_take_their_places_back_only_while_there_are_some(shared_place: Place) -> None:
    async with shared_place.open() as database, shared_place.open() as other:
        unlimited = make_tasks(database, limit=None)
        assert all([await create(unlimited, "ann") for _ in range(LIMIT + 2)])
        ids = await _fail_all(database)
        assert await live(database) == {}
        both = [make_tasks(each, limit=LIMIT) for each in (database, other)]
        resumed = await asyncio.gather(
            *(_resume(both[number % 2], task_id) for number, task_id in enumerate(ids)),
            *(create(both[number % 2], "ann") for number in range(4)),
        )
        assert sum(resumed) == LIMIT
        assert await live(database) == {"ann": LIMIT}


async def _fail_all(database: Database) -> list[TaskId]:
    """As where their workspaces could not be made."""
    async with database.write() as transaction:
        await transaction.connection.execute(update(tables.jobs).values(state=JobState.FAILED.value))
        failed = update(tables.tasks).values(state=TaskState.FAILED.value).returning(tables.tasks.c.id)
        return [TaskId(id_) for id_ in (await transaction.connection.execute(failed)).scalars()]


async def _resume(tasks: Tasks, task_id: TaskId) -> bool:
    try:
        await tasks.resume(task_id)
    except LimitExceeded:
        return False
    return True
