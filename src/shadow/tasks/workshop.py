"""What the handlers of a task's jobs share: the task, its log and its workspace, all under the job's fence."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

from shadow.agent.model import Model
from shadow.agent.task_log import TaskLog, open_log
from shadow.core.errors import Conflict, NotFound, ShadowError
from shadow.core.events import AttemptFailed, TaskEvent
from shadow.core.git import GitPerson
from shadow.core.ids import Operation, OperationId, WorkspaceId
from shadow.core.jobs import Job
from shadow.core.tasks import Task, TaskId
from shadow.core.tracing import UNTRACED, Tracer
from shadow.db import accounts, events, tasks
from shadow.db.database import Transaction
from shadow.db.group import EventWriter
from shadow.engine.context import Handler, JobContext
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.scm.owners import Owner
from shadow.scm.repositories import Repositories
from shadow.storage.artifacts import ArtifactStore
from shadow.tasks.service import Tasks

RENEWAL_S = 60.0
WORKING_LEASE_S = 10 * RENEWAL_S
"""How long a workspace that is not on record outlives the last sign of its worker."""
KEPT_LEASE_S = 30 * 24 * 3600.0
"""How long the workspace of a task is kept, whatever becomes of its workers."""

OpenModel = Callable[[Task], AbstractAsyncContextManager[Model]]
"""The task's, with the keys that count for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    tasks: Tasks
    writer: EventWriter
    manager: WorkspaceManager
    repositories: Repositories
    artifacts: ArtifactStore
    open_model: OpenModel
    co_authors: Sequence[GitPerson]
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    tracer: Tracer = UNTRACED

    async def task(self, context: JobContext) -> Task:
        """Raises: NotFound: it was deleted."""
        async with context.database.read() as connection:
            task = await tasks.get(connection, task_id_of(context))
        context.concerns(user_id=task.owner)
        return task

    async def owner(self, task: Task) -> Owner:
        """For whom its repository is reached."""
        async with self.tasks.database.read() as connection:
            return Owner(id=task.owner, is_host_user=await accounts.is_host_user(connection, task.owner))

    @asynccontextmanager
    async def log(self, context: JobContext) -> AsyncGenerator[TaskLog]:
        async def store(events: Sequence[TaskEvent]) -> None:
            await self.writer.append(task_id_of(context), events, fence=context.fence)

        async with open_log(store, tracer=self.tracer) as log:
            yield log

    async def is_there(self, workspace_id: WorkspaceId) -> bool:
        try:
            await self.manager.status(workspace_id)
        except NotFound:
            return False
        return True

    @asynccontextmanager
    async def attached(self, task: Task, *, lease_s: float = KEPT_LEASE_S) -> AsyncGenerator[ToolExecutor]:
        """Its workspace, kept for ``lease_s`` from each minute on; whoever was attached before is refused from now on.

        Raises: Conflict: there is none.
        """
        if task.workspace_id is None:
            raise Conflict(f"The task {task.id} has no workspace any more.", mend="Begin a new one.")
        workspace_id = task.workspace_id

        async def keep_alive() -> None:
            while True:
                with suppress(ShadowError):  # the next call says what is wrong
                    await self.manager.renew(workspace_id, lease_s=lease_s)
                await asyncio.sleep(RENEWAL_S)

        async with await self.manager.attach(workspace_id, take_over=True) as executor:
            renewals = asyncio.create_task(keep_alive())
            try:
                yield executor
            finally:
                renewals.cancel()
                with suppress(asyncio.CancelledError):
                    await renewals


class TaskHandler(Handler):
    """Does one kind of a task's jobs. Where one is tried again later, the task's log says so."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    async def put_off(self, transaction: Transaction, job: Job, error: ShadowError, wait_s: float) -> None:
        told = AttemptFailed(
            what=job.kind,
            code=error.code,
            message=error.message,
            attempt=job.attempts,
            attempts=min(job.max_attempts, self.retries.attempts),
            wait_s=wait_s,
        )
        await events.append(transaction, TaskId(job.payload["task_id"]), [told])


def task_id_of(context: JobContext) -> TaskId:
    return TaskId(context.job.payload["task_id"])


def operation(executor: ToolExecutor, *parts: object) -> Operation:
    """The same for the same ``parts`` each time, and safe whatever a provider calls its calls."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return Operation(id=OperationId(f"op_{digest}"), epoch=executor.epoch)


async def end_commands(executor: ToolExecutor) -> None:
    """Everything that runs in a workspace, besides people's terminals."""
    running = [command for command in await executor.list_commands() if command.ending is None]
    await asyncio.gather(*(executor.kill(command.id) for command in running))
