"""The screen of a terminal and snapshots of it: whoever starts from one sees what the others see, then and from then on."""

import resource
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.core.terminals import ScreenSnapshot, TerminalSize
from shadow.terminal.screen import Screen

SCROLLBACK = 60
SIZES = st.builds(TerminalSize, columns=st.integers(2, 30), rows=st.integers(1, 12))
SEQUENCES = (
    "\x1b[m", "\x1b[1;31m", "\x1b[2;4m", "\x1b[7m", "\x1b[38;5;200m", "\x1b[48;2;1;2;3m", "\x1b[95;104m", "\x1b[3;5;9m",
    "\x1b[H", "\x1b[5;3H", "\x1b[99;99H", "\x1b[2J", "\x1b[J", "\x1b[1J", "\x1b[K", "\x1b[1K", "\x1b[2L", "\x1b[3M", "\x1b[4@",
    "\x1b[2P", "\x1b[5X", "\x1b[2S", "\x1b[2T", "\x1b[2A", "\x1b[B", "\x1b[3C", "\x1b[2D", "\x1b7", "\x1b8", "\x1bM", "\x1bD",
    "\x1bE", "\x1b[2;5r", "\x1b[r", "\x1b[?6h", "\x1b[?6l", "\x1b[?7l", "\x1b[?7h", "\x1b[?25l", "\x1b[?25h", "\x1b[?1h",
    "\x1b[?1049h", "\x1b[?1049l", "\x1b[?1047h", "\x1b[?1047l", "\x1b[4h", "\x1b[4l", "\x1b[20h", "\x1b(0", "\x1b(B", "\x0e",
    "\x0f", "\x1bH", "\x1b[3g", "\x1b[!p", "\x1bc", "\x1b[9b", "\x1b]0;title\x07", "\x1b[?2004h", "\x1b[?1000;1006h", "\x1b=",
    "\r\n", "\r", "\n", "\t", "\b",
)  # fmt: skip
TEXT = st.text(alphabet="abcXYZ 0189_grüße漢字👍é\u0301", max_size=25)
PROGRAMS = st.lists(st.one_of(TEXT, TEXT, st.sampled_from(SEQUENCES)), max_size=40).map("".join)


def cells(line: object) -> list[object]:
    return [(cell.char, cell.width, *map(repr, pen_of(cell.pen))) for cell in line.cells]  # pyright: ignore


def pen_of(pen: object) -> Sequence[object]:
    names = ("bold", "faint", "italic", "underline", "blink", "inverse", "strikethrough", "foreground", "background")
    return [getattr(pen, name) for name in names]


def looks(screen: Screen) -> object:
    cursor = screen.cursor
    return [cells(line) for line in screen.lines], (cursor.row, cursor.col, cursor.visible)


def scrolled(screen: Screen) -> list[list[object]]:
    """The kept lines without the plain blanks at their ends; an emulator may keep some more than it was asked for."""
    lines = [cells(line) for line in screen.scrolled[-SCROLLBACK:]]
    for line in lines:
        while line and line[-1] == BLANK:
            line.pop()
    return lines


BLANK = cells(Screen(TerminalSize(columns=2, rows=1), scrollback_lines=0).lines[0])[0]


def screen_of(size: TerminalSize, *texts: str) -> Screen:
    screen = Screen(size, scrollback_lines=SCROLLBACK)
    for text in texts:
        screen.feed(text.encode())
    return screen


def from_snapshot(snapshot: ScreenSnapshot) -> Screen:
    screen = Screen(snapshot.size, scrollback_lines=SCROLLBACK)
    screen.feed(snapshot.data)
    return screen


@settings(max_examples=300)
@given(SIZES, PROGRAMS, PROGRAMS)
def test_a_fresh_screen_fed_a_snapshot_looks_and_goes_on_like_the_old_one(size: TerminalSize, before: str, after: str):
    screen = screen_of(size, before)
    fresh = from_snapshot(screen.snapshot(7))
    assert looks(fresh) == looks(screen)
    for one in (screen, fresh):
        one.feed(after.encode())
    assert looks(fresh) == looks(screen)


@given(SIZES, st.lists(st.one_of(TEXT, st.sampled_from(["\r\n", "\x1b[1;31m", "\x1b[44m", "\x1b[m"])), max_size=150))
def test_a_snapshot_has_the_lines_above_the_screen(size: TerminalSize, parts: list[str]):
    screen = screen_of(size, *parts)
    fresh = from_snapshot(screen.snapshot(0))
    assert scrolled(fresh) == scrolled(screen)
    assert looks(fresh) == looks(screen)


def test_a_snapshot_has_the_screen_below_the_alternate_one():
    size = TerminalSize(columns=20, rows=4)
    screen = screen_of(size, "one\r\ntwo", "\x1b[?1049h\x1b[2Jover it")
    fresh = from_snapshot(screen.snapshot(0))
    assert "over it" in " ".join(fresh.text)
    fresh.feed(b"\x1b[?1049l!")
    assert fresh.text == ["one", "two!", "", ""]


def test_a_snapshot_is_written_in_what_every_terminal_reads():
    screen = screen_of(TerminalSize(columns=30, rows=4), "\x1b[31mred" + "=" * 25 + "\x1b[?1049h\x1b[2J\x1b(0qqq")
    data = screen.snapshot(0).data.decode()
    assert not any("\x80" <= character < "\xa0" for character in data)
    assert "=" * 25 in data


@given(PROGRAMS, SIZES, st.data())
def test_pieces_make_no_difference(program: str, size: TerminalSize, data: st.DataObject):
    content = program.encode()
    cut = data.draw(st.integers(0, len(content)))
    whole, parts = screen_of(size, program), screen_of(size)
    parts.feed(content[:cut])
    parts = from_snapshot(parts.snapshot(cut))  # also what is unfinished at the cut goes on from a snapshot
    parts.feed(content[cut:])
    assert looks(parts) == looks(whole)


def test_a_line_of_a_snapshot_that_was_too_long_is_still_one():
    screen = screen_of(TerminalSize(columns=10, rows=2), "01234567  abcdefgh\r\nshort\r\nlast\r\n")
    fresh = from_snapshot(screen.snapshot(0))
    fresh.resize(TerminalSize(columns=20, rows=2))
    assert [line.text.rstrip() for line in fresh.scrolled] + fresh.text == ["01234567  abcdefgh", "short", "last", ""]


@given(
    st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([s.encode() for s in SEQUENCES]), SIZES), max_size=40)
)
def test_no_bytes_and_no_size_break_a_screen(parts: list[bytes | TerminalSize]):
    screen = Screen(TerminalSize(columns=1, rows=1), scrollback_lines=SCROLLBACK)
    for part in [TerminalSize(columns=1, rows=1), "漢👍".encode(), *parts]:
        if isinstance(part, bytes):
            screen.feed(part)
        else:
            screen.resize(part)
    from_snapshot(screen.snapshot(0))


@pytest.mark.parametrize(
    "flood", [b"\n" * 65536, b"\x1b[999S" * 9000, b"\x1bD" * 32768, b"x" * 65536, b"\x1b[999b" * 9000]
)
def test_a_flood_of_lines_takes_bounded_memory(flood: bytes):
    """Lines beyond the scrollback are dropped while it is fed, not behind it: 65536 of 500 cells would be 800 MB."""
    screen = Screen(TerminalSize(columns=500, rows=200), scrollback_lines=100)
    before = peak_bytes()
    screen.feed(flood)
    assert peak_bytes() - before < 250_000_000


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("flood", [b"\x1b[9999S", b"\x1b[J", b"\x1b[9999L"])
def test_a_step_takes_little_whatever_is_fed(flood: bytes) -> None:
    screen = Screen(TerminalSize(columns=1000, rows=1000), scrollback_lines=0)
    data = flood * 1000
    steps = screen.steps(data)
    longest, before = 0.0, time.process_time()
    for _ in range(20):
        next(steps)
        longest, before = max(longest, time.process_time() - before), time.process_time()
    assert longest < 0.5  # a few milliseconds; at once it takes ten seconds


def test_steps_come_to_the_end() -> None:
    stepwise, at_once = (Screen(TerminalSize(columns=80, rows=24), scrollback_lines=100) for _ in range(2))
    data = "ö€\x1b[31mred\r\n".encode() * 1000
    fed = list(stepwise.steps(data))
    at_once.feed(data)
    assert (fed == sorted(fed), fed[-1]) == (True, len(data))
    assert stepwise.snapshot(0) == at_once.snapshot(0)
