"""Writing a task's events as they happen: told at once to whoever watches, stored in order, small pieces put together.

``tell`` never waits. What is told is stored within ``DELAY_S``, or when ``flush`` returns: whoever must not go on before
something is stored flushes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from shadow.core.events import MAX_EXCERPT_CHARS, CallAdded, CommandOutput, TaskEvent, TextAdded
from shadow.core.tasks import TaskId
from shadow.db.store import TaskStore

DELAY_S = 0.2
MAX_TEXT_CHARS = 8000
MAX_WAITING = 2000
"""Events that wait to be stored; more are put together or, where they are pieces, left to the whole that follows."""

Watcher = Callable[[TaskEvent], None]


class TaskLog:
    def __init__(self, store: TaskStore, task_id: TaskId, watchers: Sequence[Watcher] = ()) -> None:
        self.task_id = task_id
        self._store = store
        self._watchers = list(watchers)
        self._waiting: list[TaskEvent] = []
        self._news = asyncio.Event()
        self._storing = asyncio.Lock()

    def tell(self, event: TaskEvent) -> None:
        for watcher in self._watchers:
            watcher(event)
        last = self._waiting[-1] if self._waiting else None
        joined = None if last is None else join(last, event)
        if joined is not None:
            self._waiting[-1] = joined
        elif len(self._waiting) < MAX_WAITING or not isinstance(event, TextAdded | CallAdded | CommandOutput):
            self._waiting.append(event)
        self._news.set()

    async def flush(self) -> None:
        """Store everything that was told. Raises: as the store does; what was not stored stays waiting."""
        async with self._storing:
            while self._waiting:
                taken = self._waiting
                self._waiting = []
                try:
                    await self._store.append(self.task_id, taken)
                except BaseException:
                    self._waiting = taken + self._waiting
                    raise

    async def keep_storing(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(DELAY_S)
            await self.flush()


@asynccontextmanager
async def open_log(store: TaskStore, task_id: TaskId, watchers: Sequence[Watcher] = ()) -> AsyncGenerator[TaskLog]:
    """A log whose events are stored on the way, and all of them at the end of the block."""
    log = TaskLog(store, task_id, watchers)
    storing = asyncio.create_task(log.keep_storing())
    try:
        yield log
        if storing.done():
            storing.result()
    finally:
        storing.cancel()
        with suppress(asyncio.CancelledError):
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
