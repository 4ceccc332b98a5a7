"""A worker takes jobs, holds their leases while their handlers run, and writes how they ended.

A lease lasts ``lease_s`` by the database's time, and is given up here after ``GIVE_UP`` of that by our own: between the two a
handler that cannot renew comes to a halt, before anybody else begins. What it writes meanwhile, the fence decides.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from structlog.contextvars import bind_contextvars
from structlog.typing import FilteringBoundLogger

from shadow.core.concurrency import task_group
from shadow.core.errors import Broken, ShadowError, error_from_code
from shadow.core.ids import make_id
from shadow.core.jobs import Job, JobId, JobLimits, JobState
from shadow.core.tracing import UNTRACED, Span, Traced, Tracer
from shadow.db import claims, jobs
from shadow.db.database import Database, Fence
from shadow.db.errors import CommitUnknown, LeaseLost
from shadow.db.feed import SAFETY_NET_S, Subscription
from shadow.db.schedules import add_due
from shadow.engine.context import Ending, Handler, JobContext, Stopped
from shadow.engine.retries import insist

GIVE_UP = 0.8
"""The share of a lease after which a worker that could not renew it has stopped."""
DRAIN_S = 20.0
_SOON_S = 0.001


@dataclass(slots=True, eq=False, kw_only=True)
class _Held:
    """``deadline`` fires where the lease was not renewed in time."""

    job: Job
    fence: Fence
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    is_lost: bool = False
    is_ending: bool = False
    deadline: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    span: Span = field(default_factory=Span)

    def cancel(self) -> None:
        """Its lease is not renewed any more: a handler that does not end for this loses it."""
        self.is_ending = True
        if self.deadline is not None:
            self.deadline.cancel()
        if self.task is not None:
            self.task.cancel()


class Worker:
    """``run`` it once. ``name`` is shown to people; no two may hold one lease, whatever their names."""

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, Handler],
        *,
        host: str,
        name: str,
        slots: int,
        entropy: Callable[[int], bytes],
        log: FilteringBoundLogger,
        lease_s: float = 30.0,
        limits: JobLimits | None = None,
        task_id: str | None = None,
        tracer: Tracer = UNTRACED,
    ) -> None:
        """``slots``: how many jobs run here at once. ``entropy``: so many random bytes. ``task_id``: only jobs of this task."""
        self._database = database
        self._handlers = dict(handlers)
        self._host = host
        self._name = name
        self.slots = slots
        self.ended = Counter[tuple[str, str]]()
        """By kind and how: a state, ``retried_later`` or ``handed_back``."""
        self._lease_s = lease_s
        self._limits = limits or JobLimits()
        self._task_id = task_id
        self._entropy = entropy
        self._tracer = tracer
        self._log = log.bind(worker=name)
        self._held: set[_Held] = set()
        self._news = Subscription()
        self._drained_at: float | None = None

    async def run(self) -> None:
        """Until ``drain``. Cancelled, it hands back what runs and ends at once."""
        self._log.info("worker.started", kinds=sorted(self._handlers), slots=self.slots)
        with self._database.feed.subscribe(jobs.JOBS) as news:
            self._news = news
            async with task_group() as group:
                renewing = group.create_task(self._keep_leases())
                while self._drained_at is None or self._held:
                    wait_s = await self._turn(group)
                    await news.wait(wait_s)
                renewing.cancel()
        self._log.info("worker.ended")

    @property
    def busy(self) -> int:
        """How many jobs it does now."""
        return len(self._held)

    def drain(self, *, within_s: float = DRAIN_S) -> None:
        """Take nothing new, and end when what runs has ended; the rest is handed back in ``within_s``. It may be set anew."""
        self._drained_at = asyncio.get_running_loop().time() + within_s
        self._news.tell()

    async def _turn(self, group: asyncio.TaskGroup) -> float:
        """Look after what runs, take what is due; after how many seconds to do so again, whatever is told."""
        try:
            async with asyncio.timeout(self._lease_s):
                next_s = await self._look(group)
        except (ShadowError, TimeoutError) as error:
            self._log.warning("worker.database_unavailable", error=str(error))
            next_s = 1.0
        if self._drained_at is not None:
            left_s = self._drained_at - asyncio.get_running_loop().time()
            if left_s <= 0:
                for held in [held for held in self._held if not held.is_ending]:
                    held.cancel()
                return SAFETY_NET_S
            return min(next_s, left_s)
        return next_s

    async def _look(self, group: asyncio.TaskGroup) -> float:
        is_due, next_at = False, None
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            if self._held:
                signs = await jobs.signs(connection, {held.job.id for held in self._held})
                for held in list(self._held):
                    self._heed(held, *signs.get(held.job.id, (None, False)))
            if self._free_slots():
                is_due, next_at = await claims.upcoming(
                    connection, now, host=self._host, kinds=self._handlers, task_id=self._task_id
                )
        if is_due:
            await self._take(group)
        return SAFETY_NET_S if next_at is None else min(max(next_at - now, _SOON_S), SAFETY_NET_S)

    def _free_slots(self) -> int:
        return 0 if self._drained_at is not None else self.slots - len(self._held)

    def _heed(self, held: _Held, epoch: int | None, stop_requested: bool) -> None:
        if epoch != held.fence.epoch:
            self._lose(held)
        elif stop_requested:
            held.stop.set()

    async def _take(self, group: asyncio.TaskGroup) -> None:
        asked_at = asyncio.get_running_loop().time()
        async with self._database.write() as transaction:
            if self._task_id is None:
                await add_due(transaction, kinds=self._handlers, make_job_id=self._make_job_id)
            taken = await claims.claim(
                transaction,
                worker=self._name,
                host=self._host,
                kinds=self._handlers,
                lease_s=self._lease_s,
                limits=self._limits,
                wanted=self._free_slots(),
                task_id=self._task_id,
            )
        for job in taken:
            held = _Held(job=job, fence=Fence(job_id=job.id, epoch=job.epoch))
            if job.stop_requested:
                held.stop.set()
            self._held.add(held)
            self._extend(held, asked_at)
            held.task = group.create_task(self._work(held))

    def _make_job_id(self) -> JobId:
        return JobId(make_id("job", entropy=self._entropy(16)))

    # Leases

    async def _keep_leases(self) -> None:
        wait_s = self._lease_s / 3
        while True:
            await asyncio.sleep(wait_s)
            try:
                async with asyncio.timeout(self._lease_s / 3):
                    await self._renew()
                wait_s = self._lease_s / 3
            except (ShadowError, TimeoutError) as error:
                self._log.warning("worker.leases_not_renewed", error=str(error))
                wait_s = self._lease_s / 30

    async def _renew(self) -> None:
        mine = [held for held in self._held if not held.is_ending]
        asked_at = asyncio.get_running_loop().time()
        if not mine:
            return
        async with self._database.write() as transaction:
            kept = await jobs.renew(transaction, [held.fence for held in mine], self._lease_s)
        for held in mine:
            if held.fence in kept:
                self._extend(held, asked_at)
            elif held in self._held:  # else it has ended meanwhile
                self._news.tell()  # lost, or just about to have ended: a look tells

    def _extend(self, held: _Held, asked_at: float) -> None:
        if held.is_ending:
            return
        if held.deadline is not None:
            held.deadline.cancel()
        at = asked_at + GIVE_UP * self._lease_s
        held.deadline = asyncio.get_running_loop().call_at(at, self._lose, held)

    def _lose(self, held: _Held) -> None:
        if not held.is_ending:
            held.is_lost = True
            held.cancel()

    # One job

    async def _work(self, held: _Held) -> None:
        # For whatever is logged below, too: each job has a context of its own.
        bind_contextvars(job_id=held.job.id, task_id=held.job.task_id)
        job = held.job
        with self._tracer.span(
            Traced.JOB, job.kind, job_id=job.id, task_id=job.task_id, attempt=job.attempts
        ) as held.span:
            await self._hold(held)

    async def _hold(self, held: _Held) -> None:
        log = self._log.bind(job_id=held.job.id, task_id=held.job.task_id, kind=held.job.kind, epoch=held.fence.epoch)
        try:
            try:
                await self._attempt(held, log)
            except asyncio.CancelledError:
                self._take_back_cancellation()
                if held.is_lost:
                    log.warning("job.lease_lost")
                else:
                    await self._write(held, jobs.hand_back)
                    self._count(held, "handed_back")
                    log.info("job.handed_back")
        except LeaseLost:
            log.warning("job.lease_lost")
        except ShadowError as error:
            # Its lease runs out, and whoever takes it over finds the steps that are recorded.
            log.error("job.left", code=error.code, message=error.message)  # noqa: TRY400 - its traceback says no more
        finally:
            held.is_ending = True
            if held.deadline is not None:
                held.deadline.cancel()
            self._held.discard(held)
            self._news.tell()

    @staticmethod
    def _take_back_cancellation() -> None:
        task = asyncio.current_task()
        assert task is not None
        while task.cancelling():
            task.uncancel()

    async def _attempt(self, held: _Held, log: FilteringBoundLogger) -> None:
        job = held.job
        context = await self._context(held)
        if job.error is not None and job.is_failing:
            await self._fail(held, _stored(job.error), log)
            return
        try:
            result = await self._handlers[job.kind].run(context)
            await self._end(held, JobState.DONE, context.ending, result=result)
            log.info("job.done", attempts=job.attempts)
        except LeaseLost:
            raise
        except Stopped:
            await self._end(held, JobState.CANCELLED, context.ending)
            log.info("job.cancelled")
        except CommitUnknown:
            await self._write(held, jobs.hand_back)  # whoever takes it reads what is there
            log.warning("job.handed_back", code=CommitUnknown.code)
        except ShadowError as error:
            if job.attempts < job.max_attempts and self._handlers[job.kind].retries.again(error, job.attempts):
                await self._put_off(held, error)
                self._count(held, "retried_later")
                log.info("job.retried_later", code=error.code, message=error.message, attempts=job.attempts)
            else:
                await self._fail(held, error, log)
        except Exception as error:
            log.exception("job.broken")
            await self._fail(held, _broken(error), log)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled it: something inside of it was, and it let that through.
            log.exception("job.broken")
            await self._fail(held, _broken(error), log)

    async def _put_off(self, held: _Held, error: ShadowError) -> None:
        handler = self._handlers[held.job.kind]
        # Jittered: what failed together does not come back together.
        wait_s = handler.retries.wait_s(held.job.attempts) * (0.5 + self._entropy(1)[0] / 510)

        async def write() -> None:
            async with self._database.write(fence=held.fence) as transaction:  # in this order: see ``_end``
                await handler.put_off(transaction, held.job, error, wait_s)
                await jobs.retry_later(transaction, held.fence, wait_s, error)

        await insist(write)

    async def _fail(self, held: _Held, error: ShadowError, log: FilteringBoundLogger) -> None:
        if not held.job.is_failing:
            await self._write(held, jobs.begin_failing, error)
        context = await self._context(held)
        try:
            await self._handlers[held.job.kind].compensate(context, error)
            await self._end(held, JobState.FAILED, context.ending, error=error)
        except LeaseLost:
            raise
        except Exception as failure:
            if isinstance(failure, ShadowError) and failure.repeat_is_safe:
                raise  # whoever takes the job over when the lease is over tries it again
            log.exception("job.compensation_failed")
            await self._end(held, JobState.FAILED, None, error=error)
        log.info("job.failed", code=error.code, message=error.message, attempts=held.job.attempts)

    async def _context(self, held: _Held) -> JobContext:
        async def read() -> Mapping[str, Any]:
            async with self._database.read() as connection:
                return await jobs.recorded_steps(connection, held.job.id)

        return JobContext(
            held.job, held.fence, self._database, stop=held.stop, recorded=await insist(read), span=held.span
        )

    async def _write(self, held: _Held, change: Callable[..., Any], *arguments: object) -> None:
        async def write() -> None:
            async with self._database.write() as transaction:
                await change(transaction, held.fence, *arguments)

        await insist(write)

    async def _end(
        self,
        held: _Held,
        state: JobState,
        ending: Ending | None,
        *,
        result: Mapping[str, Any] | None = None,
        error: ShadowError | None = None,
    ) -> None:
        async def write() -> None:
            # First what goes with it, then the job: whoever has locked its task may be about to ask the job to stop.
            async with self._database.write(fence=held.fence) as transaction:
                if ending is not None:
                    await ending(transaction)
                await jobs.finish(transaction, held.fence, state, result=result, error=error)

        await insist(write)
        self._count(held, state.value)
        if error is not None:
            held.span.fail(error.code)

    def _count(self, held: _Held, outcome: str) -> None:
        self.ended[held.job.kind, outcome] += 1
        held.span.tell(outcome=outcome)


def _stored(error: Mapping[str, Any]) -> ShadowError:
    return error_from_code(error["code"], error["message"], mend=error["mend"], details={})


def _broken(error: BaseException) -> ShadowError:
    return Broken(f"A fault of Shadow: {type(error).__name__}.", mend="See the logs of its worker, and report it.")
