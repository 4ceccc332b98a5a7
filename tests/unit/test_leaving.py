"""A terminal that is taken away from a program is left as others expect it; the key that does so is known in every form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.cli.local_terminal import DetachKey
from shadow.cli.outcome import WrongUsage
from shadow.terminal.leaving import Leaving
from tests.unit.test_screen import PROGRAMS

CHANGES = {
    b"\x1b[?1049h": b"\x1b[?1049l",
    b"\x1b[?47h": b"\x1b[?47l",
    b"\x1b[?1000;1006h": b"\x1b[?1000l\x1b[?1006l",
    b"\x1b[?2004h": b"\x1b[?2004l",
    b"\x1b[?1h\x1b=": b"\x1b>\x1b[?1l",
    b"\x1b[>5u": b"\x1b[<99u\x1b[=0u",
    b"\x1b[>4;2m": b"\x1b[>4m",
    b"\x1b[4 q": b"\x1b[0 q",
    b"\x1b[3;9r": b"\x1b7\x1b[r\x1b8",
    b"\x1b(0": b"\x1b(B\x0f",
}
UNCHANGED = b"\x1b\\\x1b[?7h\x1b[?25h\x1b[m"


def way_back(*pieces: bytes) -> bytes:
    leaving = Leaving()
    for piece in pieces:
        leaving.feed(piece)
    return leaving.way_back()


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_changed_back(change: bytes):
    assert way_back(b"text" + change + b"text") == b"\x1b\\" + CHANGES[change] + UNCHANGED[2:]


@pytest.mark.parametrize(
    "harmless", [b"\x1b[31m", b"\x1b[2J\x1b[H", b"\x1b[?25l", b"\x1b[?1049h\x1b[?1047l", b"\x1b[?2004h\x1b[?2004l"]
)
def test_what_is_as_it_was_is_left_alone(harmless: bytes):
    assert way_back(harmless) == UNCHANGED


@given(st.lists(st.one_of(st.sampled_from(list(CHANGES)), PROGRAMS.map(str.encode)), max_size=10), st.data())
def test_pieces_make_no_difference(parts: list[bytes], data: st.DataObject):
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert way_back(*pieces) == way_back(whole) == way_back(*(bytes([byte]) for byte in whole))


@pytest.mark.parametrize(
    ("name", "typed", "at"),
    [
        ("ctrl-]", b"ab\x1dcd", 2),
        ("^]", b"\x1d", 0),
        ("Ctrl-A", b"\x01", 0),
        ("ctrl-a", b"x\x1b[97;5u", 1),
        ("ctrl-]", b"\x1b[27;5;93~", 0),
        ("ctrl-]", b"\x1b[93;5:1u", 0),
        ("ctrl-]", b"]\x1b[93;6u\x1b[93;5:3u", None),
        ("none", bytes(range(256)), None),
    ],
)
def test_the_key_that_detaches_is_found(name: str, typed: bytes, at: int | None):
    assert DetachKey(name).find(typed) == at


@pytest.mark.parametrize("name", ["", "x", "ctrl-", "ctrl-1", "ctrl-ab", "f1", "^?"])
def test_what_is_no_key_is_refused_with_one_that_is(name: str):
    with pytest.raises(WrongUsage, match="ctrl-"):
        DetachKey(name)
