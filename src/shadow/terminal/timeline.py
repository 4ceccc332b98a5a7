"""When the bytes of a log came, and what size the terminal had: records beside each segment. No I/O, no clock.

A record is 1 byte of kind, 8 bytes of offset, 8 bytes of seconds since the start of the log (a double), 2 of columns and 2 of
rows, all big-endian. ``ARRIVED``: the bytes from offset on came at that time, or up to ``TICK_S`` later. ``SIZED``: from
offset on the terminal has that size; each segment's first record is one, or has size 0 by 0 where there is no terminal.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from shadow.core.terminals import Resized, TerminalSize

TICK_S = 0.01
MAX_RECORDS = 32_768
"""In one segment; what comes later counts as come with the last."""

_RECORD = Struct("!BQdHH")
RECORD_BYTES = _RECORD.size


class RecordKind(IntEnum):
    ARRIVED = 1
    SIZED = 2


@dataclass(frozen=True, slots=True)
class Record:
    kind: RecordKind
    offset: int
    at_s: float
    """Seconds since the start of the log."""
    columns: int = 0
    rows: int = 0

    def encode(self) -> bytes:
        return _RECORD.pack(self.kind, self.offset, self.at_s, self.columns, self.rows)


def decode(data: bytes) -> Iterator[Record]:
    """The records before the first that is torn or unknown."""
    for start in range(0, len(data) - len(data) % RECORD_BYTES, RECORD_BYTES):
        kind, offset, at_s, columns, rows = _RECORD.unpack_from(data, start)
        if kind not in (RecordKind.ARRIVED, RecordKind.SIZED):
            return
        yield Record(RecordKind(kind), offset, at_s, columns, rows)


class Timeline:
    """Decides which records the current segment of a log gets."""

    def __init__(self, size: TerminalSize | None) -> None:
        self.size = size
        self._count = 0
        self._last: Record | None = None

    def opened(self, offset: int, at_s: float) -> Record:
        """The first record of a new segment."""
        self._count = 0
        return self._take(self._sized(offset, at_s))

    def reopened(self, count: int, offset: int, at_s: float) -> Record | None:
        """The segment goes on after its ``count`` records; the size may have changed meanwhile."""
        self._count = count
        return self._take(self._sized(offset, at_s)) if count < MAX_RECORDS else None

    def arrived(self, offset: int, at_s: float) -> Record | None:
        if self._count >= MAX_RECORDS:
            return None
        last = self._last
        if last is not None and last.kind is RecordKind.ARRIVED and at_s - last.at_s < TICK_S:
            return None
        return self._take(Record(RecordKind.ARRIVED, offset, at_s))

    def resized(self, size: TerminalSize, offset: int, at_s: float) -> Record | None:
        self.size = size
        return self._take(self._sized(offset, at_s)) if self._count < MAX_RECORDS else None

    def _sized(self, offset: int, at_s: float) -> Record:
        size = self.size
        return Record(RecordKind.SIZED, offset, at_s, size.columns if size else 0, size.rows if size else 0)

    def _take(self, record: Record) -> Record:
        self._count += 1
        self._last = record
        return record


def sizes(records: Iterable[Record], *, after: int) -> list[Resized]:
    """The size at ``after`` (the oldest that is known) and every later one, in order; of several at one offset the last."""
    found: list[Resized] = []
    for record in records:
        if record.kind is not RecordKind.SIZED or not record.columns or not record.rows:
            continue
        resized = Resized(offset=max(after, record.offset), size=TerminalSize(columns=record.columns, rows=record.rows))
        if found and found[-1].offset >= resized.offset:
            found.pop()
        if not found or found[-1].size != resized.size:
            found.append(resized)
    if found:
        found[0] = Resized(offset=after, size=found[0].size)
    return found
