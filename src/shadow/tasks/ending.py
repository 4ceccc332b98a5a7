"""Jobs that let go of what a task holds: hibernate, archive, delete, and the rules that say when by themselves."""

from contextlib import suppress
from dataclasses import dataclass

from shadow.core.errors import NotFound, ShadowError
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import LIVE_STATES, TaskId, TaskState, TaskStep, step
from shadow.db import audit, jobs, measurements, messages, spending, tasks
from shadow.db.database import Transaction
from shadow.engine.context import Handler, JobContext
from shadow.tasks.elsewhere import FORGET_AFTER_S, is_elsewhere, leave_to_its_host
from shadow.tasks.kinds import FREE
from shadow.tasks.measuring import Measuring
from shadow.tasks.presence import somebody_is_in
from shadow.tasks.workshop import KEPT_LEASE_S, TaskHandler, Workshop

CLEAN_UP_EVERY_S = 60.0
_WAITING = LIVE_STATES - {TaskState.STARTING, TaskState.RUNNING}
FORGET_JOBS_AFTER_S = 7 * 24 * 3600.0
"""Those of no task; a task's go with it."""


class Hibernating(TaskHandler):
    async def run(self, context: JobContext) -> None:
        task = await self._shop.task(context)
        if task.state is not TaskState.IDLE or context.stop.is_set():
            return
        if context.job.payload.get("if_unused") and await somebody_is_in(self._shop, task):
            return  # the next clean-up asks again
        if task.workspace_id is not None:
            await Measuring(self._shop, context).leaving(task)
            await self._shop.manager.hibernate(task.workspace_id, keep_s=KEPT_LEASE_S)

        async def tell(transaction: Transaction) -> None:
            await self._shop.tasks.move(transaction, task.id, TaskStep.HIBERNATE)
            if (await jobs.get(transaction.connection, context.job.id)).stop_requested:
                # Somebody uses it again: it may be awake by now.
                await self._shop.tasks.move(transaction, task.id, TaskStep.WAKE)

        context.finish_with(tell)


class Archiving(TaskHandler):
    """Everything but the log goes, artifacts stay."""

    async def run(self, context: JobContext) -> None:
        task = await self._shop.task(context)
        if task.state is TaskState.ARCHIVED:
            return
        step(task.state, TaskStep.ARCHIVE)  # before anything is gone
        elsewhere = is_elsewhere(task, self._shop.tasks.host)
        if task.workspace_id is not None and not elsewhere:
            await Measuring(self._shop, context).leaving(task)
            await self._shop.manager.destroy(task.workspace_id)
        artifact_bytes = self._shop.artifacts.size_of(task.id)

        async def tell(transaction: Transaction) -> None:
            if elsewhere:
                await leave_to_its_host(transaction, task, artifacts_too=False, entropy=self._shop.entropy)
            for message in await messages.queue(transaction.connection, task.id):
                await messages.remove(transaction, task.id, message.id)
            await tasks.change(transaction, task.id, workspace_id=None)
            await measurements.note_size(transaction, task.id, workspace_bytes=0, artifact_bytes=artifact_bytes)
            await self._shop.tasks.move(transaction, task.id, TaskStep.ARCHIVE)

        context.finish_with(tell)


class Deleting(TaskHandler):
    """The last job of a task."""

    async def run(self, context: JobContext) -> None:
        task = await self._shop.task(context)
        elsewhere = is_elsewhere(task, self._shop.tasks.host)
        if task.workspace_id is not None and not elsewhere:
            await Measuring(self._shop, context).leaving(task)
            await self._shop.manager.destroy(task.workspace_id)
        self._shop.artifacts.delete_all(task.id)

        async def forget(transaction: Transaction) -> None:
            if elsewhere:
                await leave_to_its_host(transaction, task, artifacts_too=True, entropy=self._shop.entropy)
            await jobs.detach(transaction, context.fence)
            await tasks.delete(transaction, task.id)

        context.finish_with(forget)


class Freeing(Handler):
    """What is left here of a task that was let go of elsewhere."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    async def run(self, context: JobContext) -> None:
        payload = context.job.payload
        if payload["workspace_id"] is not None:
            await self._shop.manager.destroy(WorkspaceId(payload["workspace_id"]))
        if payload["artifacts_of"] is not None:
            self._shop.artifacts.delete_all(payload["artifacts_of"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupPolicy:
    """``None``: never."""

    hibernate_after_s: float | None = 1800.0
    """Idle for so long."""
    archive_after_s: float | None = 14 * 24 * 3600.0
    """Idle, hibernated or failed for so long."""
    delete_after_s: float | None = None
    """Archived for so long."""
    keep_record_s: float | None = None
    """How long the record of operations is kept."""


class CleaningUp(Handler):
    """Asks for what the policy says, a task at a time, of those on this host; and puts on record which workspaces are gone.

    The other side needs no look: a workspace that no row names was made with a short lease, or was let go of, and ends by it.
    """

    def __init__(self, shop: Workshop, policy: CleanupPolicy) -> None:
        self._shop = shop
        self._policy = policy

    async def run(self, context: JobContext) -> dict[str, object]:
        policy, ask = self._policy, self._shop.tasks

        async def sleep(task_id: TaskId, at: float) -> None:
            await ask.hibernate(task_id, unchanged_since=at)

        async def leave(task_id: TaskId, at: float) -> None:
            await ask.archive(task_id, unchanged_since=at)

        async def forget(task_id: TaskId, at: float) -> None:
            await ask.delete(task_id, unchanged_since=at)

        rules = (
            (policy.delete_after_s, {TaskState.ARCHIVED}, forget),
            (policy.archive_after_s, {TaskState.IDLE, TaskState.HIBERNATED, TaskState.FAILED}, leave),
            (policy.hibernate_after_s, {TaskState.IDLE}, sleep),
        )
        done = 0
        for after_s, states, act in rules:
            if after_s is None:
                continue
            async with context.write() as transaction:
                at = transaction.now - after_s
                found = await tasks.unchanged_since(transaction.connection, at, states=states, host=ask.host)
            for task in found:
                try:
                    if await somebody_is_in(self._shop, task):
                        continue
                    await act(task.id, at)
                    done += 1
                except ShadowError:
                    continue  # somebody uses it again, or it is gone, or nobody can tell: then it waits
        await self._mend_stuck(context)
        await Measuring(self._shop, context).all_here()
        async with context.write() as transaction:
            await jobs.cancel_forgotten(transaction, FREE, FORGET_AFTER_S)
            await jobs.prune(transaction, FORGET_JOBS_AFTER_S)
            await spending.forget_old(transaction)
        if policy.keep_record_s is not None:
            async with context.write() as transaction:
                await audit.prune(transaction, keep_s=policy.keep_record_s, request=context.job.id)
        return {"tasks": done, "lost": await self._note_lost(context)}

    async def _mend_stuck(self, context: JobContext) -> None:
        """Tasks whose state waits for a worker that was lost for good."""
        async with context.database.read() as connection:
            at = await context.database.now(connection) - CLEAN_UP_EVERY_S
            states = {TaskState.STARTING, TaskState.RUNNING}
            busy = await tasks.unchanged_since(connection, at, states=states, host=self._shop.tasks.host)
        for task in busy:
            with suppress(NotFound):
                await self._shop.tasks.mend(task.id)

    async def _note_lost(self, context: JobContext) -> int:
        """Tasks that wait and whose workspace is not there any more: its lease ended, or somebody removed it."""
        async with context.database.read() as connection:
            waiting = await tasks.with_workspace(connection, host=self._shop.tasks.host, states=_WAITING)
        lost = 0
        for task_id, workspace_id, updated_at in waiting:
            if not await self._shop.is_there(workspace_id):
                await self._shop.tasks.archive(task_id, unchanged_since=updated_at)
                lost += 1
        return lost
