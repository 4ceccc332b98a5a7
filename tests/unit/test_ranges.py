"""Ranges of bytes: what is served lies within the file, and what cannot be understood is the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.http.ranges import UnsatisfiableRange, range_of

SIZES = st.integers(0, 2000)
PLACES = st.integers(0, 3000)


@given(SIZES, PLACES, PLACES)
def test_a_range_is_what_slicing_gives(size: int, first: int, last: int) -> None:
    content = bytes(n % 251 for n in range(size))
    for header, wanted in (
        (f"bytes={first}-{last}", content[first : last + 1] if last >= first else content),
        (f"bytes={first}-", content[first:]),
        (f"bytes=-{last}", content[max(0, size - last) :]),
    ):
        try:
            found = range_of(header, size_bytes=size)
        except UnsatisfiableRange:
            assert wanted == b""
            continue
        start, end = found or (0, size)
        assert content[start:end] == wanted
        assert found is None or 0 <= start < end <= size


@given(st.text(max_size=60), SIZES)
def test_any_header_is_a_range_or_the_whole(header: str, size: int) -> None:
    try:
        found = range_of(header, size_bytes=size)
    except UnsatisfiableRange:
        return
    assert found is None or 0 <= found[0] < found[1] <= size


@pytest.mark.parametrize(
    "header", [None, "", "bytes", "bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes=2-1", "bytes=a-b"]
)
def test_what_is_no_single_range_is_the_whole(header: str | None) -> None:
    assert range_of(header, size_bytes=10) is None


def test_an_empty_file_has_no_range() -> None:
    for header in ("bytes=0-", "bytes=0-0", "bytes=-5", "bytes=-0"):
        with pytest.raises(UnsatisfiableRange):
            range_of(header, size_bytes=0)
