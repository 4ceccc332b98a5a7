"""The layout of a bounded byte log: which segment a byte goes to, which are dropped, what a reader gets. No I/O.

Offsets count the bytes of a log from 0 and never restart. A log is a row of segments; each holds the bytes
``[start, end)``. Where two segments do not touch, the bytes between are lost: readers get a ``Gap``. A segment's marks say
which channel its bytes belong to: ``(offset, channel)`` from that offset on.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shadow.core.commands import Channel, Gap

SEGMENTS_PER_LOG = 8


@dataclass(slots=True)
class Segment:
    start: int
    end: int
    marks: list[tuple[int, Channel]] = field(default_factory=list[tuple[int, Channel]])


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``[start, end)`` of one channel, all within the segment that begins at ``segment``."""

    segment: int
    start: int
    end: int
    channel: Channel


@dataclass(frozen=True, slots=True)
class Append:
    """What to do for bytes that arrived: drop segments, open one, mark a change of channel, then write."""

    drop: tuple[int, ...]
    open: bool
    mark: bool
    segment: int
    """Start of the segment that takes the bytes."""


class ByteLogLayout:
    """The state of one log. Keeps at most ``limit_bytes``, in whole segments of an eighth of that."""

    def __init__(self, *, limit_bytes: int, segments: Sequence[Segment] = (), end: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.segment_bytes = max(1, limit_bytes // SEGMENTS_PER_LOG)
        self.segments = list(segments)
        self.end = end if end is not None else (self.segments[-1].end if self.segments else 0)

    @property
    def start(self) -> int:
        """Offset of the oldest byte kept."""
        return self.segments[0].start if self.segments else self.end

    def room(self) -> int:
        """How many bytes the current segment takes (a new one where that is full): more must be split."""
        if self.segments and self.segments[-1].end == self.end:
            left = self.segments[-1].start + self.segment_bytes - self.end
            if left > 0:
                return left
        return self.segment_bytes

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept; what was lost takes no room."""
        return sum(segment.end - segment.start for segment in self.segments)

    def would_drop(self, size: int) -> int:
        """Up to which offset bytes go when ``size`` more arrive; ``start`` where none do."""
        kept, start = self.kept_bytes + size, self.start
        for segment in self.segments:
            if kept <= self.limit_bytes:
                break
            kept -= segment.end - segment.start
            start = segment.end
        return start

    def append(self, channel: Channel, size: int) -> Append:
        """Take ``size`` bytes (at most ``room()``) of ``channel``."""
        if not 0 < size <= self.room():
            raise ValueError(f"{size} bytes do not fit: the segment has room for {self.room()}")
        current = self.segments[-1] if self.segments else None
        fresh = current is None or current.end != self.end or current.end - current.start >= self.segment_bytes
        if fresh:
            current = Segment(start=self.end, end=self.end)
            self.segments.append(current)
        assert current is not None
        mark = not current.marks or current.marks[-1][1] is not channel
        if mark:
            current.marks.append((self.end, channel))
        self.end += size
        current.end = self.end
        dropped: list[int] = []
        excess = self.kept_bytes - self.limit_bytes
        while len(self.segments) > 1 and excess > 0:
            oldest = self.segments.pop(0)
            excess -= oldest.end - oldest.start
            dropped.append(oldest.start)
        return Append(drop=tuple(dropped), open=fresh, mark=mark, segment=current.start)

    def undo(self, end: int) -> None:
        """Take back the last ``append``, whose bytes could not be written: the log ends at ``end`` again."""
        segment = self.segments[-1]
        self.end = segment.end = end
        segment.marks = [mark for mark in segment.marks if mark[0] < end]
        if segment.end == segment.start:
            self.segments.pop()

    def lose(self, size: int) -> None:
        """Count ``size`` bytes that arrived and could not be kept: they become a gap."""
        self.end += size

    def drop_oldest(self) -> int | None:
        """Give up the oldest segment, to make room on a full disk; its start, or ``None`` where only one is left."""
        return self.segments.pop(0).start if len(self.segments) > 1 else None


def plan_read(segments: Sequence[Segment], *, after: int, end: int, limit_bytes: int) -> Iterator[Span | Gap]:
    """What a reader at ``after`` gets next, up to offset ``end`` and ``limit_bytes``, in order and without holes."""
    offset = after
    budget = limit_bytes
    first = max(0, bisect_right([s.start for s in segments], offset) - 1)
    for segment in segments[first:]:
        if offset >= end or budget <= 0:
            return
        segment_end = min(segment.end, end)
        if segment_end <= offset:
            continue
        if segment.start > offset:
            yield Gap(start=offset, end=min(segment.start, end))
            offset = min(segment.start, end)
        index = max(0, bisect_right([m[0] for m in segment.marks], offset) - 1)
        for position in range(index, len(segment.marks)):
            if offset >= segment_end or budget <= 0:
                break
            following = segment.marks[position + 1][0] if position + 1 < len(segment.marks) else segment_end
            stop = min(following, segment_end, offset + budget)
            if stop > offset:
                yield Span(segment=segment.start, start=offset, end=stop, channel=segment.marks[position][1])
                budget -= stop - offset
                offset = stop
    if offset < end and budget > 0:
        yield Gap(start=offset, end=end)
