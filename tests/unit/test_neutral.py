"""What a process writes, printed outside a terminal of its own: nothing in it steers the reader's, whatever its pieces."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.terminal.neutral import Neutraliser

ALLOWED_SEQUENCE = re.compile(r"\x1b\[(?:[0-9;:]{0,100}m|[0-2]?K)")
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)

HOSTILE = (
    b"\x1b[31m", b"\x1b[0;38:2::1:2:3m", b"\x1b[m", b"\x1b[K", b"\x1b[2K", b"\x1b[3K", b"\x1b[2J", b"\x1b[?1049h", b"\x1b[6n",
    b"\x1b[c", b"\x1b[>c", b"\x1b]52;c;aGk=\x07", b"\x1b]0;title\x1b\\", b"\x1b]8;;http://x\x1b\\", b"\x1bP+q544e\x1b\\",
    b"\x1b_G\x1b\\", b"\x1b^x", b"\x1bX", b"\x1b]", b"\x1b", b"\x1b[", b"\x1b[?", b"\x1b[1;", b"\x1b(0", b"\x1b#8", b"\x1bc",
    b"\x9b31m", b"\xc2\x9b31m", b"\xc2\x9d52;c;x\xc2\x9c", b"\xe2\x80\xae", b"\xe2\x80", b"\xf3\xa0\x81\x81", b"\x00", b"\x07",
    b"\x08", b"\x0e", b"\x18", b"\x1a", b"\r", b"\n", b"\t", b"plain", "grüße 漢字".encode(), b"m", b"K", b"\\", b"[", b"\xff",
)  # fmt: skip
PIECES = st.lists(st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=6)), max_size=40)


def neutral(pieces: Sequence[bytes], *, colours: bool = True) -> str:
    neutraliser = Neutraliser(colours=colours)
    return "".join([*map(neutraliser.feed, pieces), neutraliser.finish()])


@given(PIECES, st.booleans())
def test_nothing_that_steers_a_terminal_comes_out(pieces: list[bytes], colours: bool):
    shown = neutral(pieces, colours=colours)
    rest = ALLOWED_SEQUENCE.sub("", shown) if colours else shown
    assert FORBIDDEN.search(rest) is None, repr(rest)


@given(PIECES)
def test_no_piece_alone_ends_within_a_sequence(pieces: list[bytes]):
    """Two streams may share a terminal: what one leaves open the other would complete."""
    neutraliser = Neutraliser()
    for piece in pieces:
        shown = neutraliser.feed(piece)
        assert "\x1b" not in ALLOWED_SEQUENCE.sub("", shown)


@given(PIECES, st.data())
def test_pieces_make_no_difference(pieces: list[bytes], data: st.DataObject):
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert neutral(parts) == neutral([whole]) == neutral([bytes([byte]) for byte in whole])


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp", "Mn", "Lo"))))
def test_plain_text_passes_as_it_is(text: str):
    assert neutral([text.encode()]) == text


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b[1;32mok\x1b[0m\r\n", "\x1b[1;32mok\x1b[0m\r\n\x1b[m"),
        (b"10 %\r\x1b[K20 %", "10 %\r\x1b[K20 %"),
        (b"a\x1b]52;c;cm0gLXJmIH4=\x07b", "ab"),
        (b"a\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        (b"a\x1b]0;never ended\nb", "a\nb"),
        (b"a\x1b[?1049h\x1b[2J\x1b[Hb", "ab"),
        (b"a\x1b[6nb\x1b[cd", "abd"),
        (b"gpj.\xe2\x80\xaeexe", "gpj.\\u202eexe"),
        (b"\xf3\xa0\x81\x81\x07\x00", "\\U000e0041\\x07\\x00"),
        (b"\xc2\x9b2J", "\\x9b2J"),
        (b"a\xe6\xbc", "a\ufffd"),
        ("✔️ ünïcode 漢字 👍🏽\n".encode(), "✔️ ünïcode 漢字 👍🏽\n"),
        (b"\x1bPtmux;\x1b\x1b]52;c;x\x07\x1b\\b", "b"),
        (b"\x1b[" + b"1;" * 100 + b"mx", "x"),
    ],
)
def test_what_is_kept_and_what_is_left_out(data: bytes, shown: str):
    assert neutral([data]) == shown


def test_colours_are_left_out_where_none_are_wanted():
    assert neutral([b"\x1b[31mred\x1b[K\x1b[m"], colours=False) == "red"


@pytest.mark.parametrize("start", [b"\x1b]", b"\x1b[", b"\x1bP", b"\x1b("])
def test_a_sequence_without_an_end_holds_no_memory(start: bytes):
    neutraliser = Neutraliser()
    neutraliser.feed(start)
    for _ in range(100):
        assert neutraliser.feed(b"1" * 65536) in ("", "1" * 65535, "1" * 65536)
    held = sum(len(value) for value in vars(neutraliser).values() if isinstance(value, str))
    assert held < 200
    assert neutraliser.feed(b"\x07\nnext").endswith("\nnext")
