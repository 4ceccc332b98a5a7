"""The output of one command: a bounded byte log in memory, and who is waited for before its oldest bytes go."""

import asyncio
from collections.abc import Iterator

from shadow.core.commands import Channel, Gap, Output, Overflow
from shadow.execution.mock.times import Time
from shadow.terminal.byte_log import ByteLogLayout, plan_read

WAIT_FOR_READER_S = 10.0
_RESUMING = 0
"""Stands for a reader that has not come yet, or has left and may come back."""


class MockOutput:
    """Offsets and gaps as everywhere: the layout is that of the holder's logs."""

    def __init__(self, *, limit_bytes: int, overflow: Overflow, time: Time) -> None:
        self.layout = ByteLogLayout(limit_bytes=limit_bytes)
        self._segments: dict[int, bytearray] = {}
        self._overflow = overflow
        self._time = time
        self._readers: dict[int, tuple[int, float]] = {_RESUMING: (0, time.now())}
        """Where each reader stands, and since when."""
        self._last_reader = _RESUMING
        self._reader_moved = asyncio.Event()

    @property
    def start(self) -> int:
        return self.layout.start

    @property
    def end(self) -> int:
        return self.layout.end

    @property
    def kept_bytes(self) -> int:
        return self.layout.kept_bytes

    def append(self, channel: Channel, data: bytes) -> None:
        while data:
            piece = data[: self.layout.room()]
            step = self.layout.append(channel, len(piece))
            if step.open:
                self._segments[step.segment] = bytearray()
            self._segments[step.segment] += piece
            for dropped in step.drop:
                del self._segments[dropped]
            data = data[len(piece) :]

    async def room(self, size: int) -> None:
        """Wait, with ``Overflow.WAIT``, while a reader still needs what ``size`` more bytes would push out."""
        while self._overflow is Overflow.WAIT:
            would_drop = self.layout.would_drop(size)
            now = self._time.now()
            left_s = [
                since + WAIT_FOR_READER_S - now
                for position, since in self._readers.values()
                if position < would_drop and since + WAIT_FOR_READER_S > now
            ]
            if would_drop <= self.start or not left_s:
                return
            self._reader_moved.clear()
            await self._time.wait(self._reader_moved, max(left_s), background=True)

    def read(self, *, after: int, end: int, limit_bytes: int) -> Iterator[Output | Gap]:
        """What there is now; a piece is a copy."""
        for item in list(plan_read(self.layout.segments, after=after, end=end, limit_bytes=limit_bytes)):
            if isinstance(item, Gap):
                yield item
            else:
                data = self._segments[item.segment][item.start - item.segment : item.end - item.segment]
                yield Output(offset=item.start, channel=item.channel, data=bytes(data))

    def discard(self) -> None:
        """Give the bytes up: readers get a gap."""
        self.layout.segments.clear()
        self._segments.clear()

    # Readers that follow

    def new_reader(self) -> int:
        self._last_reader += 1
        return self._last_reader

    def reader_at(self, reader: int, offset: int) -> None:
        self._readers.pop(_RESUMING, None)
        self._readers[reader] = (offset, self._time.now())
        self._reader_moved.set()

    def reader_gone(self, reader: int) -> None:
        """What it had not got is kept back for a while, in case that it comes again."""
        known = self._readers.pop(reader, None)
        if known is not None:
            self._readers[_RESUMING] = (known[0], self._time.now())
