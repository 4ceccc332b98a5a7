"""A stop at the edges of a run: before it has begun, and when all but its end is done. The next run never feels it."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from pydantic import SecretStr

from shadow.bootstrap import make_manager, make_repositories, open_artifacts, open_model, open_tasks
from shadow.core.events import RunFinished, RunStarted
from shadow.core.jobs import Job, JobState
from shadow.core.repositories import LocalRepository
from shadow.core.tasks import Task, TaskState
from shadow.db import jobs
from shadow.db.database import Transaction
from shadow.db.group import EventWriter
from shadow.engine.context import Handler, JobContext
from shadow.engine.worker import Worker
from shadow.settings import Settings
from shadow.tasks.ending import CleanupPolicy
from shadow.tasks.handlers import make_handlers
from shadow.tasks.kinds import RUN
from shadow.tasks.service import Tasks
from shadow.tasks.values import TaskSettings
from shadow.tasks.workshop import Workshop
from tests.support.databases import Place
from tests.support.git_servers import make_repository
from tests.support.waiting import until

pytestmark = pytest.mark.anyio
Hook = Callable[[JobContext], Awaitable[None]]


async def _nothing(_context: JobContext) -> None: ...


class Hooked(Handler):
    """A run with something that happens just before it, and just after it, before its end is written."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner
        self.before: Hook = _nothing
        self.after: Hook = _nothing

    async def run(self, context: JobContext) -> Mapping[str, Any] | None:
        await self.before(context)
        result = await self._inner.run(context)
        await self.after(context)
        return result


@asynccontextmanager
async def at_work(place: Place, directory: Path) -> AsyncGenerator[tuple[Tasks, Hooked, Task]]:
    """An idle task whose first run is over, and a worker."""
    values: dict[str, Any] = {} if place.url is None else {"database_url": SecretStr(place.url)}
    settings = Settings(data_dir=directory / "data", **values)
    source = make_repository(directory / "project", {"a.txt": b"one\n"})
    script = directory / "script.yaml"
    script.write_text(yaml.safe_dump({"version": 1, "steps": [{"text": "Nothing to do."} for _ in range(9)]}))
    manager = make_manager(settings)
    async with open_tasks(settings) as tasks:
        shop = Workshop(
            tasks=tasks,
            writer=EventWriter(tasks.database),
            manager=manager,
            repositories=make_repositories(settings),
            artifacts=open_artifacts(settings),
            open_model=lambda name: open_model(settings, name),
            co_authors=[],
            clock=time.time,
            entropy=os.urandom,
        )
        handlers = make_handlers(shop, CleanupPolicy())
        hooked = Hooked(handlers[RUN])
        assert tasks.host is not None
        worker = Worker(
            tasks.database,
            {**handlers, RUN: hooked},
            host=tasks.host,
            name="worker",
            slots=4,
            entropy=os.urandom,
            log=structlog.get_logger(),
        )
        working = asyncio.create_task(worker.run())
        try:
            repository = LocalRepository(path=str(source))
            task = await tasks.create(repository, "1", model=f"scripted:{script}", settings=TaskSettings())
            await until(lambda: rests(tasks, task, runs=1), within_s=60)
            yield tasks, hooked, task
        finally:
            worker.drain(within_s=1)
            await working
            for status in await manager.list():
                await manager.destroy(status.id)


async def rests(tasks: Tasks, task: Task, *, runs: int) -> bool:
    found = await tasks.find(task.id)
    at_work = [job for job in await jobs_of(tasks, task) if job.state in (JobState.WAITING, JobState.RUNNING)]
    return not at_work and (found.state, found.runs) == (TaskState.IDLE, runs)


async def jobs_of(tasks: Tasks, task: Task) -> list[Job]:
    async with tasks.database.read() as connection:
        return [job for job in await jobs.of_task(connection, task.id) if job.kind == RUN]


async def told(tasks: Tasks, task: Task) -> list[tuple[int, str]]:
    """Each run that ended, and how."""
    found = [one.event for one in await tasks.events(task.id)]
    assert len([event for event in found if isinstance(event, RunStarted)]) == (await tasks.find(task.id)).runs
    return [(event.run, event.status) for event in found if isinstance(event, RunFinished)]


async def waits(tasks: Tasks, task: Task) -> list[str]:
    return [message.text for message in await tasks.queue(task.id)]


@pytest.mark.parametrize("is_heard", [True, False], ids=["heard", "not heard yet"])
async def test_a_run_that_is_stopped_before_it_begins_never_does(
    shared_place: Place, tmp_path: Path, is_heard: bool
) -> None:
    async with at_work(shared_place, tmp_path) as (tasks, hooked, task):

        async def stop(context: JobContext) -> None:
            hooked.before = _nothing
            stopped_by = context.stop
            if not is_heard:
                context.stop = asyncio.Event()  # as if the worker had not looked yet
            assert await tasks.stop(task.id)
            if is_heard:
                await stopped_by.wait()

        hooked.before = stop
        await tasks.send(task.id, "2")
        await until(lambda: rests(tasks, task, runs=1))
        *_, last = await jobs_of(tasks, task)
        assert (last.state, last.epoch) == (JobState.CANCELLED, 1)
        assert await waits(tasks, task) == ["2"]

        await tasks.resume(task.id)
        await until(lambda: rests(tasks, task, runs=2))
        assert await waits(tasks, task) == []
        assert await told(tasks, task) == [(1, "done"), (2, "done")]


async def test_a_stop_when_all_is_done_but_the_end_keeps_what_waits_and_hurts_nobody(
    shared_place: Place, tmp_path: Path
) -> None:
    async with at_work(shared_place, tmp_path) as (tasks, hooked, task):

        async def stop(_context: JobContext) -> None:
            hooked.after = _nothing
            await tasks.send(task.id, "3")
            assert await tasks.stop(task.id)

        hooked.after = stop
        await tasks.send(task.id, "2")
        await until(lambda: rests(tasks, task, runs=2))
        assert await waits(tasks, task) == ["3"], "who stopped it wants to look first"

        await tasks.send(task.id, "4")
        await until(lambda: rests(tasks, task, runs=4))
        assert await told(tasks, task) == [(run, "done") for run in (1, 2, 3, 4)]
        assert [job.state for job in await jobs_of(tasks, task)] == [JobState.DONE] * 4


@pytest.mark.parametrize("say", [True, False], ids=["and say", "only stop"])
async def test_a_stop_while_the_end_is_written_ends_the_run_once_and_hurts_nobody(
    shared_place: Place, tmp_path: Path, say: bool
) -> None:
    stops: list[asyncio.Task[Any]] = []

    async with at_work(shared_place, tmp_path) as (tasks, hooked, task):

        async def stop() -> None:
            await (tasks.send(task.id, "3", stop=True) if say else tasks.stop(task.id))

        async def hook(context: JobContext) -> None:
            hooked.after = _nothing
            ending = context.ending
            assert ending is not None

            async def end(transaction: Transaction) -> None:
                stops.extend(asyncio.create_task(stop()) for _ in range(1 if say else 3))
                await ending(transaction)
                # On SQLite whoever stops waits for the end; on PostgreSQL only who says something does.
                if not say and shared_place.url is not None:
                    await asyncio.wait(stops)

            context.finish_with(end)

        hooked.after = hook
        await tasks.send(task.id, "2")
        await until(lambda: rests(tasks, task, runs=3 if say else 2))
        await asyncio.gather(*stops)
        assert await waits(tasks, task) == []

        await tasks.send(task.id, "last")
        last = 4 if say else 3
        await until(lambda: rests(tasks, task, runs=last))
        assert await told(tasks, task) == [(run, "done") for run in range(1, last + 1)]
        assert [job.state for job in await jobs_of(tasks, task)] == [JobState.DONE] * last
