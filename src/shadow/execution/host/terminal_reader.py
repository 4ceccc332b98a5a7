"""One reader of a terminal: what comes next, as it asks."""

from collections.abc import AsyncGenerator, Callable

from shadow.core.commands import Gap, Output
from shadow.core.terminals import Resized, ScreenSnapshot, TerminalEnded, TerminalOutput, TerminalSize
from shadow.execution.holder.log_files import LogReader
from shadow.execution.host.terminal_feed import TerminalFeed
from shadow.execution.interface import TerminalEvent
from shadow.terminal.pacing import FULL_BYTES, Hold, Pace, Send, Skip
from shadow.terminal.timeline import sizes

SHORT_HISTORY_BYTES = 64 * 1024
"""A fresh reader gets so much as it was written rather than a snapshot."""


class TerminalReader:
    def __init__(
        self,
        feed: TerminalFeed,
        log: LogReader,
        *,
        after: int | None,
        snapshots: bool,
        scrollback_lines: int,
        lag_bytes: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._feed = feed
        self._log = log
        self._snapshots = snapshots
        self._scrollback_lines = scrollback_lines
        self._clock = clock
        self._fresh = after is None and feed.end > SHORT_HISTORY_BYTES
        self._pace = Pace(0 if after is None else after, end=feed.end, lag_bytes=lag_bytes)
        self._size = feed.size
        """The latest that was looked for."""
        self._coming: list[Resized] = []
        self._shown: TerminalSize | None = None

    async def events(self) -> AsyncGenerator[TerminalEvent]:
        """Raises: what keeps the terminal from being followed."""
        feed, pace = self._feed, self._pace
        if self._fresh:
            yield await self._snapshot()
        else:
            self._coming = sizes(self._log.timeline(), after=pace.sent) or [Resized(offset=pace.sent, size=feed.size)]
            self._size = self._coming[-1].size
        while True:
            ended, end = feed.ended, feed.end
            self._look_for_sizes()
            if self._coming and self._coming[0].offset <= pace.sent:
                change = self._coming.pop(0)
                if change.size != self._shown:
                    self._shown = change.size
                    yield change
                continue
            match pace.next(end=end, now=self._clock(), final=ended):
                case Send(to):
                    async for event in self._read(to, end=min([end, *(change.offset for change in self._coming)])):
                        yield event
                case Skip(to):
                    async for event in self._leave_out(to):
                        yield event
                case Hold(until):
                    if ended and until is None:
                        yield TerminalEnded(offset=pace.sent, terminal=feed.terminal)
                        return
                    await self._wait(until)

    async def _wait(self, until: float | None) -> None:
        """For something new or, up to the next frame, for so much that it goes out at once."""
        sent, size = self._pace.sent, self._size
        if until is None:
            await self._feed.change(beyond=sent, size=size, timeout_s=None)
        else:
            left_s = max(0.0, until - self._clock())
            await self._feed.change(beyond=sent + FULL_BYTES - 1, size=size, timeout_s=left_s)

    async def _read(self, to: int, *, end: int) -> AsyncGenerator[TerminalEvent]:
        for piece in self._log.read(after=self._pace.sent, end=end, limit_bytes=to - self._pace.sent):
            if isinstance(piece, Output):
                self._pace.sent_up_to(piece.end, now=self._clock())
                yield TerminalOutput(offset=piece.offset, data=piece.data)
                continue
            async for event in self._leave_out(piece.end):
                yield event
            return

    async def _leave_out(self, to: int) -> AsyncGenerator[TerminalEvent]:
        """A gap up to ``to`` or, with snapshots, up to the one that follows it."""
        start = self._pace.sent
        snapshot = await self._snapshot() if self._snapshots else None
        if snapshot is None:
            self._pace.skipped_to(to)
        yield Gap(start=start, end=self._pace.sent)
        if snapshot is not None:
            yield snapshot

    async def _snapshot(self) -> ScreenSnapshot:
        snapshot = await self._feed.snapshot(scrollback_lines=self._scrollback_lines)
        self._pace.skipped_to(snapshot.offset)
        self._size = self._shown = snapshot.size
        self._coming.clear()
        return snapshot

    def _look_for_sizes(self) -> None:
        if self._feed.size == self._size:
            return
        self._size = self._feed.size
        self._coming = sizes(self._log.timeline(), after=self._pace.sent)
        if not self._coming or self._coming[-1].size != self._size:
            self._coming.append(Resized(offset=self._feed.end, size=self._size))
