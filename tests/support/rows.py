"""Rows for tests of the database, written as the product writes them."""

from collections.abc import Sequence

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.events import Recorded, TextAdded
from shadow.core.jobs import JobState
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db import events, tasks
from shadow.db.database import Database, Fence
from shadow.db.tables import jobs

ID = TaskId("task_one")


def make_task(id_: str = ID, *, title: str = "Mend it", created_at: float = 1.0) -> Task:
    return Task(
        id=TaskId(id_),
        title=title,
        state=TaskState.STARTING,
        model="scripted:x",
        repository="/r",
        created_at=created_at,
        updated_at=created_at,
    )


async def add_task(database: Database, id_: str = ID, *, title: str = "Mend it", created_at: float = 1.0) -> TaskId:
    async with database.write() as transaction:
        await tasks.add(transaction, make_task(id_, title=title, created_at=created_at))
    return TaskId(id_)


async def append(database: Database, *texts: str, to: TaskId = ID) -> Sequence[Recorded]:
    async with database.write() as transaction:
        return await events.append(transaction, to, [TextAdded(text=text) for text in texts])


async def log_of(database: Database, task_id: TaskId = ID) -> Sequence[Recorded]:
    async with database.read() as connection:
        return await events.all_of(connection, task_id)


async def texts_of(database: Database, task_id: TaskId = ID) -> list[str]:
    return [r.event.text for r in await log_of(database, task_id) if isinstance(r.event, TextAdded)]


async def assert_gapless(database: Database, count: int, task_id: TaskId = ID) -> None:
    async with database.read() as connection:
        recorded = await events.all_of(connection, task_id)
        assert [r.seq for r in recorded] == list(range(1, count + 1))
        assert (await tasks.get(connection, task_id)).events == count


async def add_job(database: Database, job_id: str, *, epoch: int = 1, task_id: TaskId | None = None) -> Fence:
    """A job that a worker does."""
    async with database.write() as transaction:
        await transaction.connection.execute(
            insert(jobs).values(
                id=job_id,
                kind="run",
                payload="{}",
                task_id=task_id,
                owner="local",
                state=JobState.RUNNING.value,
                priority=0,
                number=1,
                run_at=0,
                attempts=1,
                max_attempts=5,
                epoch=epoch,
                created_at=0,
            )
        )
    return Fence(job_id=job_id, epoch=epoch)


async def take_over(connection: AsyncConnection, job_id: str) -> None:
    """As another worker does, but for the skipping of rows that are locked."""
    await connection.execute(select(jobs.c.id).where(jobs.c.id == job_id).with_for_update())
    await connection.execute(update(jobs).where(jobs.c.id == job_id).values(epoch=jobs.c.epoch + 1))
