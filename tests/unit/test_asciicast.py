"""Recordings: what is written can be read by others, loses no character, and plays to the screen that was there."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shadow.core.terminals import TerminalSize
from shadow.terminal.recording import Asciicast
from shadow.terminal.screen import Screen

SIZE = TerminalSize(columns=20, rows=5)
SIZES = st.builds(TerminalSize, columns=st.integers(2, 30), rows=st.integers(1, 10))
BYTES = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=10).map(str.encode),
    st.sampled_from(
        [b"\x1b[31m", b"\x1b[2J\x1b[H", b"\r\n", b"\0", b"\xe6", b"\xbc\xa2", b"\xf0\x9f", b"\x91\x8d", b"\x1b[?1049h"]
    ),
)
TIMES = st.floats(0, 1e6)
STEPS = st.lists(st.one_of(st.tuples(TIMES, BYTES), st.tuples(TIMES, SIZES)), max_size=40)


def recorded(steps: list[tuple[float, bytes | TerminalSize]]) -> bytes:
    cast = Asciicast()
    lines = [cast.header(SIZE, started_at=1.7e9, argv=("bash", "-c", "grüße \udcff\n"), env={"TERM": "xterm"})]
    for at_s, step in steps:
        lines.append(cast.output(at_s, step) if isinstance(step, bytes) else cast.resize(at_s, step))
    return b"".join([*lines, cast.marker(2e6, "mark\n"), cast.finish()])


@given(STEPS)
def test_a_recording_is_a_header_and_events_in_order(steps: list[tuple[float, bytes | TerminalSize]]):
    content = recorded(steps)
    assert content.endswith(b"\n")
    header, *events = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    assert (header["version"], header["width"], header["height"], header["timestamp"]) == (2, 20, 5, 1700000000)
    assert header["command"] == "bash -c grüße \ufffd\n"
    assert header["env"] == {"TERM": "xterm"}
    assert all(later[0] >= earlier[0] >= 0 for earlier, later in pairwise(events))
    assert {event[1] for event in events} <= {"o", "r", "m"}
    written = b"".join(step for _, step in steps if isinstance(step, bytes))
    assert "".join(event[2] for event in events if event[1] == "o") == written.decode("utf-8", "replace")
    sizes = [f"{step.columns}x{step.rows}" for _, step in steps if isinstance(step, TerminalSize)]
    assert [event[2] for event in events if event[1] == "r"] == sizes
    assert [event[2] for event in events if event[1] == "m"] == ["mark\n"]


@given(STEPS)
def test_a_recording_plays_to_the_screen_that_was_there(steps: list[tuple[float, bytes | TerminalSize]]):
    steps = [*steps, (1e6, b"\r\nend")]  # which ends what may be left of a character
    live = Screen(SIZE, scrollback_lines=10)
    for _, step in steps:
        if isinstance(step, bytes):
            live.feed(step)
        else:
            live.resize(step)
    played = Screen(SIZE, scrollback_lines=10)
    for line in recorded(steps).splitlines()[1:]:
        _, code, text = json.loads(line)
        if code == "o":
            played.feed(text.encode())
        elif code == "r":
            columns, rows = text.split("x")
            played.resize(TerminalSize(columns=int(columns), rows=int(rows)))
    assert played.size == live.size
    assert played.text == live.text


def test_a_character_in_pieces_is_told_once_it_is_whole():
    cast = Asciicast()
    assert cast.output(1, b"\xe6\xbc") == b""
    assert json.loads(cast.output(2, b"\xa2!")) == [2, "o", "漢!"]
    assert cast.output(3, b"\xf0\x9f") == b""
    assert json.loads(cast.finish()) == [2, "o", "\ufffd"]
