"""What a model is shown of bytes and names: valid text, harmless, never longer than the bytes; names can be written back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.tools.shown import shown_output, shown_path, shown_text, whole_end, whole_start

awkward = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [b"\x1b[31m", b"\x1b]0;t\x07", b"\x1b", b"[", b"\r\n", b"\r", b"\0", b"\xff", b"a", b"\n", "é".encode()]
        )
    ).map(b"".join),
)


@given(awkward)
def test_text_is_harmless_and_not_longer_than_its_bytes(data: bytes) -> None:
    for text in (shown_text(data), shown_output(data)):
        text.encode()
        assert len(text) <= len(data)
        assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in text)


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["C"]) | st.sampled_from("\n\t")))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert shown_text(text.encode()) == text
    assert shown_output(text.encode()) == text


def test_an_unfinished_sequence_hides_nothing() -> None:
    assert shown_output(b"\x1b]0;" + b"x" * 100) == "0;" + "x" * 100
    assert shown_output(b"\x1b[" + b"1" * 100_000) == "1" * 100_000


@given(st.text(st.characters(exclude_characters="\0")))
def test_a_shown_path_can_be_written_back(path: str) -> None:
    shown = shown_path(path)
    assert shown.isprintable()
    assert (json.loads(shown) if shown.startswith('"') else shown) == path


@given(st.text(), st.integers(0, 400))
def test_a_cut_between_whole_characters_loses_none(text: str, at: int) -> None:
    data = text.encode("utf-8", "replace")
    at = min(at, len(data))
    head, rest = data[:at], data[at:]
    head.removesuffix(head[whole_end(head) :]).decode()
    rest[whole_start(rest) :].decode()
    assert 0 <= len(head) - whole_end(head) <= 3
    assert whole_start(rest) <= 3


@given(st.binary(max_size=50))
def test_bytes_that_are_no_text_are_cut_by_little(data: bytes) -> None:
    assert 0 <= whole_start(data) <= min(3, len(data))
    assert max(0, len(data) - 3) <= whole_end(data) <= len(data)


@pytest.mark.parametrize(
    ("data", "kept"), [(b"", 0), (b"a\xc3", 1), (b"\xe2\x82", 0), (b"\xff", 1), (b"\x80\x80\x80\x80", 4)]
)
def test_the_last_character_is_kept_only_if_whole(data: bytes, kept: int) -> None:
    assert whole_end(data) == kept
