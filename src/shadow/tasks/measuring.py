"""What tasks take of CPU time and of the disk, put on record for their owners' budgets.

CPU time is that of all processes in a task's workspace: commands of the agent and of people, terminals, services, git, and
Shadow's own holder and sidecar. It is read at the end of each run, before a workspace is put to sleep or removed, by the
clean-up of each minute, and, where its owner has a budget of it, before each step of a run. Not counted are: what is used
between the last of these and a crash of the holder, or of its host; the workspaces of checks and of starts that failed, which
are gone with what they took; what Shadow does outside of workspaces (fetching, delivering); and what the meter itself cannot
see (``execution/local/cpu_time.py``). What is read counts on the day on which it is read.

Storage is what the checkouts of workspaces take on disk, and the bytes of artifacts. Not counted are logs of commands and
terminals, mirrors of repositories, files in memory, and the database.
"""

import asyncio
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from shadow.core.errors import NotFound, ShadowError
from shadow.core.ids import WorkspaceId
from shadow.core.quota import CPU_S, UNITS
from shadow.core.tasks import LIVE_STATES, Task, TaskId, TaskState
from shadow.db import measurements, tasks
from shadow.db.errors import LeaseLost
from shadow.engine.context import JobContext
from shadow.tasks.payers import check_payer
from shadow.tasks.workshop import Workshop

SIZED_EVERY_S = 600.0
"""A workspace that is awake, though nothing of its task is on record."""
MAX_SIZED = 100
PASS_S = 20.0
"""How long one clean-up goes on measuring; the rest is for the next one."""
log = structlog.get_logger("shadow.tasks")
_AWAKE = LIVE_STATES - {TaskState.HIBERNATED}


@dataclass(frozen=True, slots=True)
class Measuring:
    """In a job: what it writes, it writes under the job's fence. Every method raises LeaseLost."""

    shop: Workshop
    context: JobContext

    # Before something is spent; each raises BudgetSpent; Denied: whoever would pay is here no more

    async def may_begin(self, task: Task) -> None:
        """A run."""
        await self._check_payer(task)
        await self.shop.tasks.spenders.check(task.owner, storage=True)

    async def may_ask(self, task: Task) -> None:
        """A request to the model."""
        await self._check_payer(task)
        await self._may_spend(task, UNITS)

    async def may_call(self, task: Task) -> None:
        """Tools."""
        await self._may_spend(task, (CPU_S,))

    async def _check_payer(self, task: Task) -> None:
        async with self.shop.tasks.database.read() as connection:
            await check_payer(connection, task)

    async def _may_spend(self, task: Task, units: Collection[str]) -> None:
        spenders = self.shop.tasks.spenders
        budgets = await spenders.budgets(task.owner)
        if budgets.is_endless:
            return
        if budgets.limits_cpu:
            await self.cpu(task.id, task.workspace_id)
        await spenders.check(task.owner, units=units)

    # What was spent

    async def run_ended(self, task: Task) -> None:
        """What cannot be read now is left to the next clean-up: what the run did counts all the same."""
        with _if_possible():
            await self.cpu(task.id, task.workspace_id)
            if (await self.shop.tasks.spenders.budgets(task.owner)).storage_bytes is not None:
                await self.size(task)  # of others it is in time when the clean-up does it

    async def leaving(self, task: Task) -> None:
        """Before its workspace's processes end, and their meter with them."""
        with _if_possible():
            await self.cpu(task.id, task.workspace_id)

    async def cpu(self, task_id: TaskId, workspace_id: WorkspaceId | None) -> None:
        """Nothing happens where the task has no workspace, or nothing runs in it."""
        if workspace_id is None:
            return
        try:
            read = await self.shop.manager.cpu_time(workspace_id)
        except NotFound:
            return
        if read is None:
            return
        async with self.context.database.read() as connection:
            if not await measurements.has_news(connection, task_id, read):
                return
        async with self.context.write() as transaction:
            await measurements.note_cpu(transaction, task_id, read)

    async def size(self, task: Task) -> None:
        """Raises: NotFound: the task or its workspace is gone."""
        workspace_bytes = 0
        if task.workspace_id is not None:
            status = await self.shop.manager.status(task.workspace_id, measure=True)
            workspace_bytes = status.size_bytes or 0
        artifact_bytes = await asyncio.to_thread(self.shop.artifacts.size_of, task.id)
        async with self.context.write() as transaction:
            await measurements.note_size(
                transaction, task.id, workspace_bytes=workspace_bytes, artifact_bytes=artifact_bytes
            )

    async def all_here(self) -> None:
        """Of the tasks whose workspaces are on this host, as far as it is due."""
        database, host = self.context.database, self.shop.tasks.host
        until = time.monotonic() + PASS_S
        async with database.read() as connection:
            now = await database.now(connection)
            awake = await tasks.with_workspace(connection, host=host, states=_AWAKE)
            unsized = await measurements.unsized(
                connection, host=host, now=now, older_than_s=SIZED_EVERY_S, limit=MAX_SIZED
            )
        due = [partial(self.cpu, task_id, workspace_id) for task_id, workspace_id, _ in awake]
        due += [partial(self.size, task) for task in unsized]
        for measure in due:
            if time.monotonic() > until:
                return
            with _if_possible():
                await measure()


@contextmanager
def _if_possible() -> Generator[None]:
    """The workspace may be gone, or not to be read now: then the rest of a job must not fail for it."""
    try:
        yield
    except LeaseLost:
        raise
    except ShadowError as error:
        log.info("task.not_measured", code=error.code, message=error.message)
