"""Writing a task's events as they happen: stored in order, small pieces put together. Whoever reads reads what is stored.

``tell`` never waits. What is told is stored within ``DELAY_S``, or when ``flush`` returns: whoever must not go on before
something is stored flushes.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from shadow.core.events import MAX_EXCERPT_CHARS, CallAdded, CommandOutput, TaskEvent, TextAdded
from shadow.core.tracing import UNTRACED, Tracer

DELAY_S = 0.1
MAX_TEXT_CHARS = 8000
MAX_WAITING = 2000
"""Events that wait to be stored; more are put together or, where they are pieces, left to the whole that follows."""

Store = Callable[[Sequence[TaskEvent]], Awaitable[object]]
"""Adds events to the end of the log, all or none."""


class TaskLog:
    """``tracer``: for whoever times what the events tell of."""

    def __init__(self, store: Store, *, tracer: Tracer = UNTRACED) -> None:
        self.tracer = tracer
        self._store = store
        self._failure: BaseException | None = None
        self._waiting: list[TaskEvent] = []
        self._news = asyncio.Event()
        self._storing = asyncio.Lock()

    def tell(self, event: TaskEvent) -> None:
        last = self._waiting[-1] if self._waiting else None
        joined = None if last is None else join(last, event)
        if joined is not None:
            self._waiting[-1] = joined
        elif len(self._waiting) < MAX_WAITING or not isinstance(event, TextAdded | CallAdded | CommandOutput):
            self._waiting.append(event)
        self._news.set()

    async def flush(self) -> None:
        """Store everything that was told. Raises: as the store does, from then on always.

        Whether the events of a store that failed are in the log nobody here knows: they are never stored a second time. Whoever
        writes on reads the log first.
        """
        async with self._storing:
            # What is told meanwhile is for the next one: pieces of text that come one by one would be stored one by one.
            if self._waiting and self._failure is None:
                taken = self._waiting
                self._waiting = []
                await self._finish(asyncio.ensure_future(self._store(taken)))
        if self._failure is not None:
            raise self._failure

    async def _finish(self, storing: asyncio.Future[object]) -> None:
        """To its end, also where we are cancelled meanwhile: half a second time would be an event twice."""
        cancelled: asyncio.CancelledError | None = None
        while not storing.done():
            try:
                await asyncio.wait({storing})
            except asyncio.CancelledError as error:
                cancelled = error
        self._failure = storing.exception()
        if cancelled is not None:
            raise cancelled

    async def keep_storing(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(DELAY_S)
            await self.flush()


@asynccontextmanager
async def open_log(store: Store, *, tracer: Tracer = UNTRACED) -> AsyncGenerator[TaskLog]:
    """A log whose events are stored on the way, and all of them at the end of the block."""
    log = TaskLog(store, tracer=tracer)
    storing = asyncio.create_task(log.keep_storing())
    try:
        yield log
        if storing.done():
            storing.result()
    finally:
        storing.cancel()
        with suppress(asyncio.CancelledError, Exception):  # the last flush tells of it
            await storing
        await asyncio.shield(log.flush())


def join(last: TaskEvent, new: TaskEvent) -> TaskEvent | None:
    """Both as one event; ``None`` where they are not pieces of one thing, or would be too long together."""
    match last, new:
        case TextAdded(), TextAdded() if last.reasoning == new.reasoning and len(last.text) < MAX_TEXT_CHARS:
            return replace(last, text=last.text + new.text)
        case CallAdded(), CallAdded() if last.call_id == new.call_id and len(last.arguments) < MAX_TEXT_CHARS:
            return replace(last, arguments=last.arguments + new.arguments)
        case CommandOutput(), CommandOutput() if (
            last.command_id == new.command_id
            and last.call_id == new.call_id
            and last.end == new.start
            and len(last.text) < MAX_EXCERPT_CHARS
        ):
            return replace(last, end=new.end, text=(last.text + new.text)[:MAX_EXCERPT_CHARS])
        case _:
            return None
