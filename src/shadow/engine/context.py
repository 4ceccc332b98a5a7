"""What a handler has in its hands: its job, its steps, and whether it should stop."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from structlog.contextvars import bind_contextvars

from shadow.core.errors import Broken, ShadowError
from shadow.core.jobs import Job
from shadow.core.tracing import Span
from shadow.db.database import Database, Fence, Transaction
from shadow.db.jobs import came_on, record_step
from shadow.engine.retries import JOBS, STEPS, RetryPolicy, insist

MAX_NAME_CHARS = 128

Ending = Callable[[Transaction], Awaitable[None]]
PutOff = Callable[[ShadowError, int, float], None]
"""Gets what failed, which attempt it was, from 1, and in how many seconds the next one is."""


class Stopped(Exception):
    """A handler raises it when it has stopped as it was asked to: the job is cancelled."""


class JobContext:
    """Of one worker's hold on one job.

    ``stop`` is set when somebody wants the job to end; the handler decides how. ``fence.epoch`` belongs on every call that
    changes a workspace, so that there, too, an older worker is refused.
    """

    def __init__(
        self,
        job: Job,
        fence: Fence,
        database: Database,
        *,
        stop: asyncio.Event,
        recorded: Mapping[str, Any],
        span: Span | None = None,
    ) -> None:
        self.job = job
        self.fence = fence
        self.database = database
        self.stop = stop
        self.ending: Ending | None = None
        self._span = span or Span()
        self._recorded = dict(recorded)
        self._begun: set[str] = set()

    @property
    def recorded(self) -> Mapping[str, Any]:
        """The results of the steps that are finished, by name."""
        return self._recorded

    def concerns(self, *, user_id: str) -> None:
        """Whose work it is: for the log and the trace of the job."""
        bind_contextvars(user_id=user_id)
        self._span.tell(user_id=user_id)

    async def step(
        self,
        name: str,
        action: Callable[[], Awaitable[Any]],
        *,
        retries: RetryPolicy = STEPS,
        put_off: PutOff | None = None,
        also: Callable[[Transaction, Any], Awaitable[None]] | None = None,
    ) -> Any:
        """The JSON result of ``action``, which is not run again once that is recorded, by this worker or the next.

        A worker that dies between the two runs it again: what it does outside the database it must recognise by a key of its
        own. ``put_off`` is told each time that it is tried again later. What ``also`` writes is written exactly once, in the
        transaction that records the step; it does nothing else.
        Raises: LeaseLost; Stopped: while it waited for another attempt; what ``action`` raises, once it is not tried again.
        """
        if name in self._recorded:
            return self._recorded[name]
        if name in self._begun or not 0 < len(name) <= MAX_NAME_CHARS:
            raise Broken(f"The step {name!r} is running already, or its name is empty or too long.")
        self._begun.add(name)
        try:
            result, attempts = await self._try(action, retries, put_off)
            await self._record(name, result, attempts, also)
        finally:
            self._begun.discard(name)
        return self._recorded[name]

    def write(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that only the job's holder can make. Raises: LeaseLost."""
        return self.database.write(fence=self.fence)

    def finish_with(self, ending: Ending | None) -> None:
        """``ending`` writes in the transaction that ends the job, and does nothing else; ``None`` takes it back.

        What ``run`` gave belongs to its return and to ``Stopped``; for a failure, ``compensate`` gives its own.
        """
        self.ending = ending

    async def _try(
        self, action: Callable[[], Awaitable[Any]], retries: RetryPolicy, put_off: PutOff | None
    ) -> tuple[Any, int]:
        attempt = 1
        while True:
            try:
                return await action(), attempt
            except ShadowError as error:
                if not retries.again(error, attempt):
                    raise
                if put_off is not None:
                    put_off(error, attempt, retries.wait_s(attempt))
            await self._pause(retries.wait_s(attempt))
            attempt += 1

    async def _pause(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self.stop.wait()
        except TimeoutError:
            return
        raise Stopped

    async def _record(
        self,
        name: str,
        result: Any,
        attempts: int,
        also: Callable[[Transaction, Any], Awaitable[None]] | None,
    ) -> None:
        encoded = json.dumps(result, ensure_ascii=True, separators=(",", ":"))
        # What comes from here the first time is what comes from the record later: lists, not tuples.
        decoded = json.loads(encoded)

        async def write() -> None:
            async with self.database.write() as transaction:
                # Recorded already: by us, and the answer was lost. Nobody else has written under this fence.
                if not await record_step(transaction, self.fence, name, encoded, attempts):
                    return
                if also is not None:
                    await also(transaction, decoded)
                if self.job.attempts > 1:
                    await came_on(transaction, self.fence)

        await insist(write)
        self._recorded[name] = decoded


class Handler(ABC):
    """Does one kind of job. One object does all of them, several at once."""

    retries: ClassVar[RetryPolicy] = JOBS
    """Of a job that failed where a repeat is safe. Attempts that lost their worker count, too."""

    @abstractmethod
    async def run(self, context: JobContext) -> Mapping[str, Any] | None:
        """The job's result, JSON.

        Run from its beginning by each worker that takes the job: steps that are recorded give their results. It may be cancelled
        at any await: where the lease is lost it must leave everything as it is, for the next worker is already there.
        Raises: Stopped: the job is cancelled; ShadowError: it is tried again later where a repeat is safe, else it has failed.
        """

    async def compensate(self, context: JobContext, error: ShadowError) -> None:  # noqa: B027 - most have nothing to make good
        """Make good for what it did, before it has failed for good. It may use steps, and is run again after a crash.

        What it raises is logged; the job has failed by ``error`` all the same.
        """

    async def put_off(self, transaction: Transaction, job: Job, error: ShadowError, wait_s: float) -> None:  # noqa: B027
        """Write what goes with a job that failed by ``error`` and is tried again in ``wait_s``, and do nothing else."""
