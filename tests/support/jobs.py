"""Jobs for tests: handlers made of functions, workers with short leases, and what became of their jobs."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import structlog

from shadow.core.errors import ShadowError
from shadow.core.jobs import OPEN_STATES, Job, JobId, JobLimits, NewJob
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db import claims, jobs, tasks
from shadow.db.database import Database
from shadow.engine.context import Handler, JobContext
from shadow.engine.worker import Worker

_numbers = count()


class Does(Handler):
    """A handler of one function, or of two."""

    def __init__(
        self,
        run: Callable[[JobContext], Awaitable[Mapping[str, Any] | None]],
        compensate: Callable[[JobContext, ShadowError], Awaitable[None]] | None = None,
    ) -> None:
        self._run = run
        self._compensate = compensate

    async def run(self, context: JobContext) -> Mapping[str, Any] | None:
        return await self._run(context)

    async def compensate(self, context: JobContext, error: ShadowError) -> None:
        if self._compensate is not None:
            await self._compensate(context, error)


async def add_task(database: Database, task_id: str = "task_a") -> TaskId:
    async with database.write() as transaction:
        task = Task(
            id=TaskId(task_id),
            title="",
            state=TaskState.IDLE,
            model="",
            repository="",
            created_at=transaction.now,
            updated_at=transaction.now,
        )
        await tasks.add(transaction, task)
    return task.id


async def add_job(database: Database, kind: str = "work", **values: Any) -> JobId:
    new = NewJob(kind=kind, payload=values.pop("payload", {}), **values)
    async with database.write() as transaction:
        return (await jobs.add(transaction, new, job_id=JobId(f"job_{next(_numbers)}"))).id


async def claim(
    database: Database,
    *,
    worker: str = "worker",
    host: str = "here",
    lease_s: float = 30.0,
    limits: JobLimits | None = None,
    wanted: int = 100,
) -> list[Job]:
    async with database.write() as transaction:
        return list(
            await claims.claim(
                transaction,
                worker=worker,
                host=host,
                kinds=("work", "other"),
                lease_s=lease_s,
                limits=limits or JobLimits(),
                wanted=wanted,
            )
        )


async def job_of(database: Database, job_id: JobId) -> Job:
    async with database.read() as connection:
        return await jobs.get(connection, job_id)


async def ended(database: Database, *job_ids: JobId, within_s: float = 20.0) -> list[Job]:
    """Raises: TimeoutError."""
    async with asyncio.timeout(within_s):
        with database.feed.subscribe(jobs.JOBS) as news:
            while True:
                found = [await job_of(database, job_id) for job_id in job_ids]
                if all(job.state not in OPEN_STATES for job in found):
                    return found
                await news.wait(0.5)


@asynccontextmanager
async def worker(
    database: Database,
    handlers: Mapping[str, Handler],
    *,
    name: str = "worker",
    host: str = "here",
    slots: int = 10,
    lease_s: float = 30.0,
    limits: JobLimits | None = None,
) -> AsyncGenerator[Worker]:
    """One that works during the block, and is drained at its end."""
    made = Worker(
        database,
        handlers,
        host=host,
        name=name,
        slots=slots,
        lease_s=lease_s,
        limits=limits,
        entropy=os.urandom,
        log=structlog.get_logger(),
    )
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.drain(within_s=1)
        async with asyncio.timeout(20):
            await running
