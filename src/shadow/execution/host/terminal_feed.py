"""What all readers of one terminal share: how far it is written, its size, its end, and a screen to take snapshots of."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing, suppress

from shadow.core.commands import Output
from shadow.core.errors import OutcomeUnknown, ShadowError, Unavailable
from shadow.core.ids import make_id
from shadow.core.terminals import MAX_SCROLLBACK_LINES, Resized, ScreenSnapshot, Terminal, TerminalSize
from shadow.execution.holder.log_files import LogReader
from shadow.execution.host.described import size_of, terminal_of
from shadow.execution.host.holder_client import HolderClient
from shadow.terminal.screen import Screen
from shadow.terminal.timeline import sizes

FOLLOW_TIMEOUT_S = 20.0
GATHER_S = 0.004
"""Between two answers of the holder: under a flood, many readers are woken no more often than that."""
DRAW_S = 0.005
"""So long a screen is drawn before others have their turn."""
FEED_BYTES = 64 * 1024
"""So much of the log is read at a time."""


class TerminalFeed:
    """Follows a terminal while somebody reads it: one question to the holder, however many read."""

    def __init__(self, holder: HolderClient, directory: str, terminal: Terminal) -> None:
        self.start: int = terminal.output_start
        self.end: int = terminal.output_end
        self.size = terminal.size
        self.terminal = terminal
        """As it was when the feed began or, once it has ended, at its end."""
        self.readers = 0
        self.failure: ShadowError | None = None
        """Why it cannot be followed any more."""
        self._holder = holder
        self._directory = directory
        self._changed = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._screen: Screen | None = None
        self._screen_end = 0
        self._screen_lines = 0
        self._drawing = asyncio.Lock()

    @property
    def ended(self) -> bool:
        return self.terminal.ending is not None

    def refresh(self, terminal: Terminal) -> None:
        """What was just heard of it: what a straggler writes after the end nobody follows."""
        self.start, self.end = max(self.start, terminal.output_start), max(self.end, terminal.output_end)

    @asynccontextmanager
    async def followed(self) -> AsyncGenerator[None]:
        """For as long as a reader reads."""
        self.readers += 1
        if self._follower is None:
            self._follower = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self.readers -= 1
            if not self.readers:
                # Let go of before it is waited for: the next reader may come meanwhile.
                follower, self._follower = self._follower, None
                follower.cancel()
                await asyncio.wait((follower,))

    async def change(self, *, beyond: int, size: TerminalSize, timeout_s: float | None) -> None:
        """Return once more than ``beyond`` is written, with another size, at the end, or when ``timeout_s`` is over.

        Raises: its failure.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.end <= beyond and self.size == size and not self.ended and self.failure is None:
                    await self._changed.wait()
        if self.failure is not None:
            raise self.failure

    async def snapshot(self, *, scrollback_lines: int) -> ScreenSnapshot:
        """Of everything that has been written."""
        lines = min(max(scrollback_lines, 0), MAX_SCROLLBACK_LINES)
        async with self._drawing:
            end = self.end
            await self._draw(end, lines)
            assert self._screen is not None
            # Many lines take a while: in a thread, so that others go on meanwhile.
            return await asyncio.to_thread(self._screen.snapshot, end)

    async def _draw(self, end: int, lines: int) -> None:
        with closing(LogReader(self._directory)) as log:
            changes = sizes(log.timeline(), after=self._screen_end)
            if self._screen is None or self._screen_lines != lines or self._screen_end < self.start:
                changes = sizes(log.timeline(), after=self.start)
                first = changes[0].size if changes else self.size
                self._screen, self._screen_lines, self._screen_end = (
                    Screen(first, scrollback_lines=lines),
                    lines,
                    self.start,
                )
            loop = asyncio.get_running_loop()
            since = loop.time()
            while self._screen_end < end:
                changes = self._resize(self._screen, changes)
                stop = min(end, self._screen_end + FEED_BYTES, *(c.offset for c in changes))
                for piece in log.read(after=self._screen_end, end=stop, limit_bytes=FEED_BYTES):
                    if isinstance(piece, Output):
                        for fed in self._screen.steps(piece.data):
                            self._screen_end = piece.offset + fed
                            if loop.time() - since >= DRAW_S:
                                await asyncio.sleep(0)
                                since = loop.time()
                    self._screen_end = piece.end
                await asyncio.sleep(0)
                since = loop.time()
            self._resize(self._screen, changes)
            self._screen.resize(self.size)

    def _resize(self, screen: Screen, changes: list[Resized]) -> list[Resized]:
        """Apply those that are due; returns the later ones."""
        due = [change for change in changes if change.offset <= self._screen_end]
        if due:
            screen.resize(due[-1].size)
        return changes[len(due) :]

    async def _follow(self) -> None:
        reader = make_id("reader", entropy=os.urandom(12))
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            while not self.ended:
                answer = await self._holder.call(
                    "follow",
                    {
                        "command": self.terminal.id,
                        "after": self.end,
                        "timeout_s": FOLLOW_TIMEOUT_S,
                        "reader": reader,
                        "columns": self.size.columns,
                        "rows": self.size.rows,
                    },
                )
                self.start, self.end, self.size = answer["start"], answer["end"], size_of(answer)
                if answer["command"] is not None:
                    self.terminal = terminal_of(answer["command"])
                self._tell()
                asked_at, quiet_s = loop.time(), loop.time() - asked_at
                if quiet_s < GATHER_S:
                    await asyncio.sleep(GATHER_S - quiet_s)
        except OutcomeUnknown as error:
            self.failure = Unavailable(error.message, mend="Attach to the workspace again.")  # to read changes nothing
            self._tell()
        except ShadowError as error:
            self.failure = error
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
