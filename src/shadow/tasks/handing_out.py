"""Handing out what a run did: commit, verify, check, deliver. Each of them once, over crashes and repeats.

A step that is on record is not done again. One that was cut off is: the workspace answers the commit with its first result, the
check judges again, and a branch that already has the commit is left as it is.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from shadow.agent.loop import RunStatus
from shadow.agent.task_log import TaskLog
from shadow.core.errors import NothingToCommit, Rejected, ShadowError, StaleEpoch
from shadow.core.events import (
    MAX_DIFF_BYTES,
    AttemptFailed,
    CheckFinished,
    FileChange,
    RunFinished,
    TaskEvent,
    WorkCommitted,
    WorkDelivered,
)
from shadow.core.tasks import Task
from shadow.db import events
from shadow.db.codec import decode_event, encode_event
from shadow.db.database import Transaction
from shadow.engine.context import JobContext, Stopped
from shadow.execution.interface import ToolExecutor
from shadow.scm.collecting import NothingToDeliver, Work
from shadow.scm.delivering import difference, patch
from shadow.tasks.checking import check_work
from shadow.tasks.committing import commit_message
from shadow.tasks.steps import REMOTE, Step, counted, step
from shadow.tasks.values import Deliver, ProjectConfig, RunOptions, settings_from_json
from shadow.tasks.workshop import WORKING_LEASE_S, Workshop, operation


class CheckFailed(Rejected):
    """The agent says that it is done; the check says otherwise."""

    code = "check_failed"


class HandingOut:
    def __init__(
        self,
        shop: Workshop,
        context: JobContext,
        task: Task,
        options: RunOptions,
        project: ProjectConfig,
        executor: ToolExecutor,
        log: TaskLog,
    ) -> None:
        assert task.checkout is not None
        self._shop = shop
        self._context = context
        self._task = task
        self._checkout = task.checkout
        self._options = options
        self._project = project
        self._executor = executor
        self._log = log

    async def __call__(self, finished: RunFinished) -> RunFinished:
        """How the run ended with that: what could not be handed out stays in its workspace, and the run has failed."""
        try:
            return await self._hand_out(finished)
        except StaleEpoch:
            raise  # another worker is at it
        except Stopped:
            stopped = "It was stopped before that; the next run hands it out."
            return replace(finished, status=RunStatus.INTERRUPTED.value, undelivered=stopped)
        except ShadowError as error:
            return replace(finished, status=RunStatus.FAILED.value, code=error.code, undelivered=str(error))

    async def _hand_out(self, finished: RunFinished) -> RunFinished:
        check = self._options.check or self._project.check
        await self._told(Step.COMMIT, lambda: self._commit(finished))
        if Step.DELIVER in self._context.recorded and check is None:
            return finished
        try:
            async with self._verified() as work:
                checked = None if check is None else await self._told(Step.CHECK, lambda: self._check(work, check))
                if self._options.deliver is not Deliver.NONE:
                    await self._told(Step.DELIVER, lambda: self._deliver(work))
        except NothingToDeliver:
            return replace(finished, undelivered="Nothing was changed.")
        if not isinstance(checked, CheckFinished) or checked.passed:
            return finished
        summary = f"The agent said that it was done, but the check `{check}` ended with {checked.ending}."
        return replace(finished, status=RunStatus.FAILED.value, code=CheckFailed.code, summary=summary)

    async def _told(self, name: Step, action: Callable[[], Awaitable[TaskEvent | None]]) -> TaskEvent | None:
        """A step of the job, and the event that tells what came of it, in one transaction."""

        async def act() -> list[str] | None:
            event = await action()
            await self._log.flush()
            return None if event is None else [event.kind, encode_event(event)]

        async def tell(transaction: Transaction, result: list[str] | None) -> None:
            if result is not None:
                await events.append(transaction, self._task.id, [decode_event(*result)])

        def put_off(error: ShadowError, attempt: int, wait_s: float) -> None:
            self._log.tell(
                AttemptFailed(
                    what=name,
                    code=error.code,
                    message=error.message,
                    attempt=attempt,
                    attempts=REMOTE.attempts,
                    wait_s=wait_s,
                )
            )

        result = await self._context.step(name, act, retries=REMOTE, put_off=put_off, also=tell)
        return None if result is None else decode_event(*result)

    async def _commit(self, finished: RunFinished) -> WorkCommitted | None:
        message = commit_message(finished.summary, fallback=self._task.title)
        once = operation(self._executor, self._context.job.id, "commit")
        with step(self._log, Step.COMMIT) as details:
            try:
                head = await self._executor.git_commit(message, co_authors=self._shop.co_authors, operation=once)
            except NothingToCommit:
                details.append("nothing that is not committed")
                return None
            details.append(message.partition("\n")[0])
        assert head.commit is not None
        return WorkCommitted(commit=head.commit, message=message)

    @asynccontextmanager
    async def _verified(self) -> AsyncGenerator[Work]:
        collecting = self._shop.repositories.collected(
            self._executor, self._checkout, owner=await self._shop.owner(self._task)
        )
        with step(self._log, Step.VERIFY) as details:
            try:
                work = await collecting.__aenter__()
            except NothingToDeliver:
                details.append("nothing was changed")
                work = None
            else:
                details.append(f"{counted(work.commits, 'commit')}, {counted(len(work.changes), 'file')}")
        if work is None:
            raise NothingToDeliver("Nothing was changed.")
        try:
            yield work
        finally:
            await collecting.__aexit__(None, None, None)

    async def _check(self, work: Work, check: str) -> CheckFinished:
        spec = settings_from_json(self._task.settings).spec(
            name=f"check of {self._task.id}",
            lease_s=WORKING_LEASE_S,  # should we die, it ends by itself
        )
        with step(self._log, Step.CHECK) as details:
            finished = await check_work(
                check,
                work,
                self._checkout,
                manager=self._shop.manager,
                repositories=self._shop.repositories,
                owner=await self._shop.owner(self._task),
                spec=spec,
                setup=self._project.setup,
            )
            details.append(f"{check}: {finished.ending}")
        return finished

    async def _deliver(self, work: Work) -> WorkDelivered:
        options = self._options
        with step(self._log, Step.DELIVER) as details:
            artifact: str | None = None
            if options.deliver is Deliver.PATCH:
                artifact, where = f"{self._context.job.id}.patch", "a patch"
                self._shop.artifacts.put(self._task.id, artifact, await patch(work))
            else:
                named = self._shop.tasks.credentials.get(self._task.id)
                await self._shop.repositories.deliver(
                    work,
                    self._checkout,
                    owner=await self._shop.owner(self._task),
                    branch=options.branch,
                    ours=await self._delivered_before(),
                    credential=None if named is None else named.credential,
                )
                where = f"{options.branch or work.branch} in {self._checkout.repository}"
            details.append(where)
        return WorkDelivered(
            how="patch" if options.deliver is Deliver.PATCH else "branch",
            where=where,
            artifact=artifact,
            commit=work.tip,
            commits=work.commits,
            changes=tuple(FileChange(path=c.path, added=c.added, removed=c.removed) for c in work.changes),
            diff=(await difference(work, limit_bytes=MAX_DIFF_BYTES) or b"").decode(errors="replace"),
        )

    async def _delivered_before(self) -> frozenset[str]:
        """Commits of this task that its branch may stand at, though a rollback left them."""
        recorded = await self._shop.tasks.events(self._task.id)
        return frozenset(one.event.commit for one in recorded if isinstance(one.event, WorkDelivered))
