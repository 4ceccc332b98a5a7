"""Checkpoints of tasks over crashes and failures: no ref is left behind, and none is taken for another."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from shadow.agent.task_log import TaskLog, open_log
from shadow.core.conversation import UserMessage
from shadow.core.errors import NotFound
from shadow.core.events import CheckpointFailed, CheckpointTaken, RunStarted, TaskEvent
from shadow.core.jobs import JobId
from shadow.core.tasks import Task
from shadow.db import checkpoints, events, jobs, tasks
from shadow.db.database import Database, Fence, open_database
from shadow.db.errors import LeaseLost
from shadow.engine.context import JobContext
from shadow.execution.interface import ToolExecutor
from shadow.tasks.checkpointing import Checkpointing
from shadow.tasks.service import Tasks
from tests.support.agent_runs import opened
from tests.support.git_servers import git, make_repository
from tests.support.jobs import add_job, add_task, claim

pytestmark = pytest.mark.anyio


class Site:
    """A task with a job, and a work tree on this host."""

    def __init__(self, database: Database, task: Task, executor: ToolExecutor, log: TaskLog, files: Path) -> None:
        self.database = database
        self.task = task
        self.files = files
        self._executor = executor
        self._log = log
        self._job_id = JobId("")

    async def begin(self) -> None:
        self._job_id = await add_job(self.database, task_id=self.task.id)

    async def taken_up(self, *, run: int) -> Checkpointing:
        """By a worker; whoever had the job before has lost it."""
        async with self.database.write() as transaction:
            job = await jobs.get(transaction.connection, self._job_id)
            await jobs.give_up(transaction, job)
        (job,) = await claim(self.database)
        fence = Fence(job_id=job.id, epoch=job.epoch)
        context = JobContext(job, fence, self.database, stop=asyncio.Event(), recorded={})
        return Checkpointing(context, self.task, self._executor, self._log, run=run)

    async def rows(self) -> list[str]:
        async with self.database.read() as connection:
            return [checkpoint.id for checkpoint in await checkpoints.all_of(connection, self.task.id)]

    def refs(self) -> list[str]:
        return sorted(git(self.files, "for-each-ref", "--format=%(refname:lstrip=3)", "refs/shadow").split())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    make_repository(tmp_path / "files", {"a.txt": b"one\n"})
    async with open_database(tmp_path) as database, opened(tmp_path) as executor:
        task_id = await add_task(database)

        async def store(told: Sequence[TaskEvent]) -> None:
            async with database.write() as transaction:
                await events.append(transaction, task_id, told)

        async with open_log(store) as log:
            async with database.read() as connection:
                task = await tasks.get(connection, task_id)
            made = Site(database, task, executor, log, tmp_path / "files")
            await made.begin()
            yield made


async def test_a_ref_that_nobody_put_on_record_goes_with_the_next_checkpoint(site: Site) -> None:
    first = await site.taken_up(run=1)
    await first.take()
    (site.files / "b.txt").write_text("two\n")
    second = await site.taken_up(run=1)
    with pytest.raises(LeaseLost):
        await first.take()  # the ref is made, its row is refused
    assert len(site.refs()) == 2
    (site.files / "b.txt").write_text("three\n")
    await second.take()
    assert site.refs() == sorted(await site.rows())
    assert len(site.refs()) == 2
    newest = (await site.rows())[-1]
    assert git(site.files, "show", f"refs/shadow/checkpoints/{newest}:b.txt") == "three"


async def test_a_lock_that_a_killed_git_left_costs_no_checkpoint(site: Site) -> None:
    one = await site.taken_up(run=1)
    await one.take()
    (site.files / "b.txt").write_text("two\n")
    two = await site.taken_up(run=1)
    with pytest.raises(LeaseLost):
        await one.take()
    (left,) = set(site.refs()) - set(await site.rows())
    (site.files / ".git/refs/shadow/checkpoints" / f"{left}.lock").touch()
    await two.take()
    assert len(await site.rows()) == 2
    assert set(await site.rows()) <= set(site.refs())


async def test_what_has_not_changed_leaves_neither_row_nor_ref(site: Site) -> None:
    one = await site.taken_up(run=1)
    await one.take()
    await one.take()
    assert site.refs() == await site.rows()
    assert len(site.refs()) == 1


async def test_before_a_run_is_no_checkpoint_from_its_middle(site: Site) -> None:
    service = Tasks(database=site.database, shown=str, entropy=os.urandom)
    await _start(site, 1)  # without any checkpoint
    one = await site.taken_up(run=1)
    await one.take()
    with pytest.raises(NotFound, match=r"^No checkpoint could be taken before run 1\."):
        await service.before_run(site.task.id, 1)

    index = site.files / ".git/index"
    index.write_bytes(b"damaged" + index.read_bytes())
    two = await site.taken_up(run=2)
    await two.take()
    await _start(site, 2)
    index.unlink()
    git(site.files, "reset", "-q")
    await two.take()
    with pytest.raises(NotFound, match=r"(?s)before run 2 \(.+\)\. The last one before it is cp_"):
        await service.before_run(site.task.id, 2)

    three = await site.taken_up(run=3)
    await three.take()
    await _start(site, 3)
    (site.files / "b.txt").write_text("two\n")
    await three.take()
    rows = await site.rows()
    assert await service.before_run(site.task.id, 3) == rows[-2]
    with pytest.raises(NotFound, match="has no run 4"):
        await service.before_run(site.task.id, 4)
    kinds = [type(one.event) for one in await service.events(site.task.id)]
    assert kinds == [
        *(RunStarted, CheckpointTaken),
        *(CheckpointFailed, RunStarted, CheckpointTaken),
        *(CheckpointTaken, RunStarted, CheckpointTaken),
    ]


async def _start(site: Site, run: int) -> None:
    async with site.database.write() as transaction:
        await events.append(transaction, site.task.id, [RunStarted(run=run, message=UserMessage(text="x"))])
