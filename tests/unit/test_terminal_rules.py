"""The rules of terminals that need no terminal: pacing, timelines, frames, modes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from shadow.core.commands import Gap
from shadow.core.errors import Rejected
from shadow.core.terminals import Resized, ScreenSnapshot, TerminalOutput, TerminalSize
from shadow.terminal.modes import REPORTED, Modes
from shadow.terminal.pacing import FRAME_S, FULL_BYTES, Hold, Pace, Send, Skip
from shadow.terminal.timeline import MAX_RECORDS, RECORD_BYTES, TICK_S, Record, RecordKind, Timeline, decode, sizes
from shadow.wire.terminal_frames import (
    TerminalFrame,
    TerminalFrameError,
    decode_event,
    encode,
    encode_event,
)
from shadow.wire.terminal_frames import decode as decode_frame

LAG = 1_000_000
cells = st.integers(1, 1000)
some_size = st.builds(TerminalSize, columns=cells, rows=cells)
offsets = st.integers(0, 2**62)


class PaceMachine(RuleBasedStateMachine):
    """A program that writes, time that passes, and a reader that asks when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.pace = Pace(0, end=5 * LAG, lag_bytes=LAG)
        self.end = 5 * LAG
        self.caught_up_to = self.end
        self.now = 0.0
        self.last_at = -1.0

    @rule(size=st.integers(1, 3 * LAG))
    def write(self, size: int) -> None:
        self.end += size

    @rule(seconds=st.floats(0, 0.1))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(final=st.booleans())
    def ask(self, final: bool) -> None:
        sent = self.pace.sent
        match self.pace.next(end=self.end, now=self.now, final=final):
            case Send(to):
                assert sent < to <= min(self.end, sent + FULL_BYTES)
                early = self.now < self.last_at + FRAME_S
                assert final or not early or to - sent == FULL_BYTES
                self.pace.sent_up_to(to, now=self.now)
                self.last_at = self.now
            case Skip(to):
                assert sent < to <= self.end
                assert self.end - max(sent, self.caught_up_to) > LAG
                self.pace.skipped_to(to)
            case Hold(None):
                assert sent == self.end
            case Hold(until):
                assert until is not None
                assert self.now < until <= self.now + FRAME_S + 1e-9
                assert not final
        assert self.pace.sent >= sent

    def teardown(self) -> None:
        """Whoever goes on asking gets to the end."""
        for _ in range(1000):
            self.now += 1.0
            match self.pace.next(end=self.end, now=self.now):
                case Send(to):
                    self.pace.sent_up_to(to, now=self.now)
                case Skip(to):
                    self.pace.skipped_to(to)
                case Hold():
                    break
        assert self.pace.sent == self.end


TestPace = PaceMachine.TestCase


def test_the_first_piece_goes_out_at_once_and_the_next_with_the_next_frame() -> None:
    pace = Pace(0, end=0, lag_bytes=None)
    assert pace.next(end=1, now=10.0) == Send(1)
    pace.sent_up_to(1, now=10.0)
    assert pace.next(end=2, now=10.001) == Hold(10.0 + FRAME_S)
    assert pace.next(end=2, now=10.0 + FRAME_S) == Send(2)


def test_a_reader_without_a_bound_is_never_skipped() -> None:
    assert Pace(0, end=0, lag_bytes=None).next(end=1 << 40, now=0.0) == Send(FULL_BYTES)


@given(
    st.lists(st.tuples(st.sampled_from(RecordKind), offsets, st.floats(0, 1e9), cells, cells)),
    st.binary(max_size=RECORD_BYTES - 1),
)
def test_records_come_back_and_a_torn_one_does_not(
    values: list[tuple[RecordKind, int, float, int, int]], torn: bytes
) -> None:
    records = [Record(*value) for value in values]
    data = b"".join(record.encode() for record in records)
    assert list(decode(data + torn)) == records


def test_a_busy_program_gets_a_record_a_tick_and_no_more_than_fit() -> None:
    timeline = Timeline(None)
    timeline.opened(0, 0.0)
    records = [timeline.arrived(n, n * TICK_S / 10) for n in range(100)]
    assert sum(record is not None for record in records) == 10
    many = [timeline.arrived(1000 + n, 10.0 + n) for n in range(2 * MAX_RECORDS)]
    assert sum(record is not None for record in many) < MAX_RECORDS


def test_sizes_are_told_from_an_offset_on() -> None:
    small, large, huge = (TerminalSize(columns=n, rows=n) for n in (10, 20, 30))
    timeline = Timeline(small)
    records = [
        timeline.opened(0, 0.0),
        timeline.resized(large, 100, 1.0),
        timeline.resized(huge, 100, 1.0),
        timeline.resized(small, 200, 2.0),
    ]
    known = [record for record in records if record is not None]
    assert sizes(known, after=0) == [
        Resized(offset=0, size=small),
        Resized(offset=100, size=huge),
        Resized(offset=200, size=small),
    ]
    assert sizes(known, after=150) == [Resized(offset=150, size=huge), Resized(offset=200, size=small)]
    assert sizes(known[1:], after=50) == [Resized(offset=50, size=huge), Resized(offset=200, size=small)]
    assert sizes([], after=7) == []


@given(
    st.one_of(
        st.builds(TerminalOutput, offset=offsets, data=st.binary(min_size=1)),
        st.tuples(offsets, st.integers(1, 2**61)).map(lambda gap: Gap(start=gap[0], end=gap[0] + gap[1])),
        st.builds(Resized, offset=offsets, size=some_size),
        st.builds(ScreenSnapshot, offset=offsets, size=some_size, data=st.binary()),
    )
)
def test_events_come_back_from_their_frames(event: TerminalOutput | Gap | Resized | ScreenSnapshot) -> None:
    assert decode_event(decode_frame(encode_event(event))) == event


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01\0\0",
        encode(TerminalFrame.OUTPUT, 0)[:-1],
        b"\xff" + bytes(8),
        b"\x01" + b"\xff" * 8 + b"x",
        encode(TerminalFrame.OUTPUT, 5),
        encode(TerminalFrame.GAP, 5, b"\0" * 7),
        encode(TerminalFrame.GAP, 5, (5).to_bytes(8, "big")),
        encode(TerminalFrame.GAP, 5, b"\xff" * 8),
        encode(TerminalFrame.RESIZED, 0, b"\0\1\0"),
        encode(TerminalFrame.SNAPSHOT, 0, b"\0"),
    ],
)
def test_what_is_no_frame_is_refused(message: bytes) -> None:
    with pytest.raises(TerminalFrameError):
        decode_event(decode_frame(message))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_frame_or_refused(message: bytes) -> None:
    with suppress(TerminalFrameError, Rejected):
        decode_event(decode_frame(message))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(sorted(REPORTED)), st.booleans()),
            st.sampled_from(["text", "\x1b[31m", "\x1b[?25l", "\x1b", "\x1b[?", "\x1b[2J", "\r\n"]),
        ),
        max_size=20,
    ),
    st.data(),
)
def test_modes_are_followed_through_any_pieces(parts: "list[tuple[int, bool] | str]", data: st.DataObject) -> None:
    """However the text is cut: what was set last counts."""
    text, wanted = "", set[int]()
    for part in parts:
        if isinstance(part, str):
            text += part
        else:
            mode, on = part
            text += f"\x1b[?{mode}{'h' if on else 'l'}"
            wanted = wanted | {mode} if on else wanted - {mode}
    modes, position = Modes(), 0
    while position < len(text):
        step = data.draw(st.integers(1, 7))
        modes.feed(text[position : position + step])
        position += step
    assert modes.sequences() == "".join(f"\x1b[?{mode}h" for mode in sorted(wanted))


def test_a_reset_takes_the_modes_back() -> None:
    modes = Modes()
    modes.feed("\x1b[?2004;1006h\x1b=")
    assert modes.sequences() == "\x1b=\x1b[?1006h\x1b[?2004h"
    modes.feed("\x1bc")
    assert modes.sequences() == ""
