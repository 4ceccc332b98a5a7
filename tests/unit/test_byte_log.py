"""The layout of byte logs, against a model that remembers every byte and its channel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shadow.core.commands import Channel, Gap
from shadow.terminal.byte_log import SEGMENTS_PER_LOG, ByteLogLayout, Segment, Span, plan_read

LIMIT = 64

channels = st.sampled_from(Channel)


def read(log: ByteLogLayout, *, after: int, end: int | None = None, limit_bytes: int = 1 << 30) -> list[Span | Gap]:
    return list(plan_read(log.segments, after=after, end=log.end if end is None else end, limit_bytes=limit_bytes))


def fill(log: ByteLogLayout, channel: Channel, size: int) -> list[int]:
    """Append ``size`` bytes as a writer does, split where a segment ends; which segments were dropped."""
    dropped: list[int] = []
    while size > 0:
        part = min(size, log.room())
        dropped.extend(log.append(channel, part).drop)
        size -= part
    return dropped


class LogMachine(RuleBasedStateMachine):
    """Any order of appends, losses, drops, restarts and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.log = ByteLogLayout(limit_bytes=LIMIT)
        self.written: list[Channel | None] = []
        """The channel of each byte that arrived; ``None`` where it was lost."""
        self.files: dict[int, int] = {}
        """Segments on disk as a writer that does what it is told has them: start and size."""

    @rule(channel=channels, size=st.integers(1, 3 * LIMIT))
    def append(self, channel: Channel, size: int) -> None:
        while size > 0:
            part = min(size, self.log.room())
            assert 0 < part <= self.log.segment_bytes
            offset, foreseen = self.log.end, self.log.would_drop(part)
            plan = self.log.append(channel, part)
            for start in plan.drop:
                del self.files[start]
            if plan.open:
                assert plan.segment == offset
                assert plan.segment not in self.files
                self.files[plan.segment] = 0
            assert plan.segment + self.files[plan.segment] == offset
            self.files[plan.segment] += part
            self.written.extend([channel] * part)
            if plan.drop:
                assert foreseen >= max(plan.drop)
            else:
                assert foreseen in {offset, self.log.start}
            size -= part

    @rule(size=st.integers(1, 2 * LIMIT))
    def lose(self, size: int) -> None:
        self.log.lose(size)
        self.written.extend([None] * size)

    @rule()
    def drop_oldest(self) -> None:
        before = self.log.segments[:]
        start = self.log.drop_oldest()
        if start is None:
            assert len(before) <= 1
            assert self.log.segments == before
        else:
            assert start == before[0].start
            del self.files[start]

    @rule()
    def restart(self) -> None:
        """A reader or a later holder knows the log from what is on disk."""
        copies = [Segment(start=s.start, end=s.end, marks=list(s.marks)) for s in self.log.segments]
        self.log = ByteLogLayout(limit_bytes=LIMIT, segments=copies, end=self.log.end)

    @precondition(lambda self: self.log.end > 0)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        after = data.draw(st.integers(0, self.log.end), label="after")
        end = data.draw(st.integers(0, self.log.end), label="end")
        limit = data.draw(st.integers(1, 2 * LIMIT), label="limit")
        offset, size = after, 0
        items = read(self.log, after=after, end=end, limit_bytes=limit)
        for item in items:
            assert item.start == offset
            assert item.end > item.start
            self.check(item)
            size += item.end - item.start if isinstance(item, Span) else 0
            offset = item.end
        assert size <= limit
        assert offset <= max(after, end)
        assert offset >= end or size == limit  # it stops early for its limit alone

    @rule()
    def read_everything_in_steps(self) -> None:
        offset = 0
        while offset < self.log.end:
            items = read(self.log, after=offset, limit_bytes=5)
            assert items
            assert items[0].start == offset
            offset = items[-1].end
        assert offset == self.log.end

    def check(self, item: Span | Gap) -> None:
        """Spans are bytes of just their channel, in a file that has them; gaps are bytes that no file has."""
        if isinstance(item, Span):
            assert set(self.written[item.start : item.end]) == {item.channel}
            assert item.segment in self.files
            assert item.segment <= item.start
            assert item.end <= item.segment + self.files[item.segment]
        else:
            kept = {byte for start, size in self.files.items() for byte in range(start, start + size)}
            assert kept.isdisjoint(range(item.start, item.end))

    @invariant()
    def offsets_count_every_byte(self) -> None:
        assert self.log.end == len(self.written)

    @invariant()
    def no_more_is_kept_than_the_limit(self) -> None:
        assert sum(self.files.values()) <= LIMIT
        assert self.files == {s.start: s.end - s.start for s in self.log.segments}

    @invariant()
    def segments_are_in_order_and_marked_from_their_start(self) -> None:
        offset = 0
        for segment in self.log.segments:
            assert offset <= segment.start < segment.end <= self.log.end
            assert segment.marks[0][0] == segment.start
            assert [mark[0] for mark in segment.marks] == sorted({mark[0] for mark in segment.marks})
            assert all(one[1] is not two[1] for one, two in zip(segment.marks, segment.marks[1:], strict=False))
            offset = segment.end


TestByteLog = LogMachine.TestCase


@given(size=st.integers(0, 5 * LIMIT), channel=channels)
def test_a_full_log_keeps_at_least_seven_eighths_of_its_limit(size: int, channel: Channel) -> None:
    log = ByteLogLayout(limit_bytes=LIMIT)
    fill(log, channel, size)
    assert log.end - log.start >= min(size, LIMIT - LIMIT // SEGMENTS_PER_LOG)


@given(limit=st.integers(1, 40), sizes=st.lists(st.integers(1, 60), max_size=20))
def test_the_smallest_logs_keep_their_limit_too(limit: int, sizes: list[int]) -> None:
    log = ByteLogLayout(limit_bytes=limit)
    for size in sizes:
        fill(log, Channel.STDOUT, size)
        assert log.end - log.start <= limit
    assert log.end == sum(sizes)


@given(pieces=st.lists(st.tuples(channels, st.integers(1, 30)), max_size=30))
def test_splitting_into_pieces_changes_nothing(pieces: list[tuple[Channel, int]]) -> None:
    """Bytes written one by one lie as bytes written at once."""
    at_once, one_by_one = ByteLogLayout(limit_bytes=LIMIT), ByteLogLayout(limit_bytes=LIMIT)
    for channel, size in pieces:
        fill(at_once, channel, size)
        for _ in range(size):
            fill(one_by_one, channel, 1)
    assert at_once.segments == one_by_one.segments


@given(before=st.integers(1, LIMIT), lost=st.integers(1, LIMIT), after=st.integers(1, 8))
def test_what_was_lost_is_one_gap_between_what_was_kept(before: int, lost: int, after: int) -> None:
    log = ByteLogLayout(limit_bytes=4 * LIMIT)
    fill(log, Channel.STDOUT, before)
    log.lose(lost)
    fill(log, Channel.STDERR, after)
    gaps = [item for item in read(log, after=0) if isinstance(item, Gap)]
    assert gaps == [Gap(start=before, end=before + lost)]


@given(before=st.integers(1, LIMIT), lost=st.integers(1, 100 * LIMIT))
def test_bytes_that_were_lost_take_no_room(before: int, lost: int) -> None:
    """A disk that was full for a long time costs none of what was kept before."""
    log = ByteLogLayout(limit_bytes=2 * LIMIT)
    fill(log, Channel.STDOUT, before)
    log.lose(lost)
    assert fill(log, Channel.STDOUT, 1) == []
    assert read(log, after=0)[0].start == 0
    assert isinstance(read(log, after=0)[0], Span)


def test_an_empty_log_reads_as_nothing() -> None:
    log = ByteLogLayout(limit_bytes=LIMIT)
    assert (log.start, log.end, read(log, after=0)) == (0, 0, [])


def test_a_log_of_which_nothing_is_left_reads_as_a_gap() -> None:
    log = ByteLogLayout(limit_bytes=LIMIT, end=10)
    assert read(log, after=3) == [Gap(start=3, end=10)]
    assert read(log, after=10) == []


def test_reading_behind_the_end_gives_nothing() -> None:
    log = ByteLogLayout(limit_bytes=LIMIT)
    fill(log, Channel.STDOUT, 5)
    assert read(log, after=9) == []


@pytest.mark.parametrize("size", [0, -1, LIMIT])
def test_more_than_a_segment_takes_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        ByteLogLayout(limit_bytes=LIMIT).append(Channel.STDOUT, size)
