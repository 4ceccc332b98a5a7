"""Checkpoints: conversation, files and commit taken together, and returned to together."""

from hashlib import sha256

from shadow.agent.task_log import TaskLog
from shadow.core.errors import Conflict, ShadowError, StaleEpoch
from shadow.core.events import CheckpointFailed, CheckpointTaken, FileChange, RolledBack
from shadow.core.git import GitCheckpoint
from shadow.core.ids import make_id
from shadow.core.tasks import Checkpoint, Task, TaskState
from shadow.db import checkpoints, events
from shadow.db.database import Transaction
from shadow.engine.context import JobContext
from shadow.execution.interface import ToolExecutor
from shadow.tasks.steps import Step, step
from shadow.tasks.workshop import KEPT_LEASE_S, TaskHandler, operation

MAX_CHANGES = 100
"""Of files, in one event."""


class Checkpointing:
    """Of one run. ``take`` is cheap where nothing has changed, and then leaves no trace."""

    def __init__(self, context: JobContext, task: Task, executor: ToolExecutor, log: TaskLog, *, run: int) -> None:
        self._context = context
        self._task = task
        self._executor = executor
        self._log = log
        self._run = run
        self._last: GitCheckpoint | None = None

    async def take(self) -> None:
        """It may be impossible, by what the agent did to its repository, say: that is told, and the run goes on."""
        try:
            taken = await self._put_down()
            if self._is_as_before(taken):
                await self._executor.git_drop_checkpoints([taken.name])
                return
            changes = await self._changes()
        except StaleEpoch:
            raise  # another worker is at it
        except ShadowError as error:
            self._log.tell(CheckpointFailed(code=error.code, message=error.message))
            await self._log.flush()  # in its place: whoever looks for one is told why there is none
            return
        await self._log.flush()
        told = CheckpointTaken(
            checkpoint_id=taken.name, run=self._run, branch=taken.branch, head=taken.head, changes=changes
        )
        async with self._context.write() as transaction:
            (recorded,) = await events.append(transaction, self._task.id, [told])
            checkpoint = Checkpoint(
                id=taken.name,
                task_id=self._task.id,
                seq=recorded.seq,
                run=self._run,
                branch=taken.branch,
                head=taken.head,
                tree_commit=taken.commit,
                created_at=transaction.now,
            )
            await checkpoints.add(transaction, checkpoint)
        self._last = taken

    async def _put_down(self) -> GitCheckpoint:
        """Named by its number: a ref that was left before its row was written is taken over by the next one, in whichever run."""
        async with self._context.database.read() as connection:
            number = await checkpoints.count(connection, self._task.id)
        try:
            return await self._executor.git_checkpoint(_name(self._task.id, number))
        except Conflict:  # a git that was killed may have left that name locked
            return await self._executor.git_checkpoint(_name(self._task.id, number, "beside"))

    def _is_as_before(self, taken: GitCheckpoint) -> bool:
        last = self._last
        return last is not None and (last.tree, last.head, last.branch) == (taken.tree, taken.head, taken.branch)

    async def _changes(self) -> tuple[FileChange, ...]:
        """Of files since the checkpoint before."""
        if self._last is None:
            return ()
        found = await self._executor.git_file_changes(base=self._last.commit, limit=MAX_CHANGES)
        return tuple(FileChange(path=c.path, added=c.added, removed=c.removed) for c in found.changes)


def _name(*parts: object) -> str:
    return make_id("cp", entropy=sha256(" ".join(map(str, parts)).encode()).digest()[:12])


class RollingBack(TaskHandler):
    """The job that returns to a checkpoint. Where the task stands now becomes one itself, so that nothing is out of reach."""

    async def run(self, context: JobContext) -> None:
        shop = self._shop
        task = await shop.task(context)
        async with context.database.read() as connection:
            wanted = await checkpoints.find(connection, task.id, context.job.payload["checkpoint_id"])
        async with shop.log(context) as log, shop.attached(task) as executor:
            before = Checkpointing(context, task, executor, log, run=task.runs)
            await context.step("CHECKPOINT", before.take)
            with step(log, Step.ROLL_BACK) as details:
                target = GitCheckpoint(
                    name=wanted.id, branch=wanted.branch, head=wanted.head, commit=wanted.tree_commit
                )
                await executor.git_restore(target, operation=operation(executor, context.job.id, "restore"))
                details.append(f"to {wanted.id}, before event {wanted.seq + 1}")
        if (await shop.task(context)).state is TaskState.HIBERNATED and task.workspace_id is not None:
            await shop.manager.hibernate(task.workspace_id, keep_s=KEPT_LEASE_S)

        async def tell(transaction: Transaction) -> None:
            await events.append(transaction, task.id, [RolledBack(to_seq=wanted.seq, checkpoint_id=wanted.id)])
            if (message := context.job.payload["message"]) is not None:
                await shop.tasks.say_first(transaction, task, message)

        context.finish_with(tell)
