"""Search and replace: literal, exact, four refusals, and no replacement lost."""

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import (
    EmptySearch,
    IdenticalReplacement,
    LimitExceeded,
    Rejected,
    TextNotFound,
    TextNotUnique,
)
from shadow.core.files import MAX_SEARCH_REPLACE_BYTES
from shadow.execution.host.files import HostFiles
from shadow.execution.host.paths import WorkspacePaths
from shadow.execution.host.writing import Draft, PathLocks, Swapped
from shadow.execution.occurrences import LISTED_LINES, find_unique

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def files(root: Path) -> HostFiles:
    return HostFiles(root, shown_root="/workspace")


@pytest.mark.parametrize(
    ("content", "old", "new", "expected"),
    [
        (b"a b c", "b", "$& \\1 \\n", b"a $& \\1 \\n c"),
        (b"a\r\nb\r\n", "a\r\n", "c\r\n", b"c\r\nb\r\n"),
        (b"\xef\xbb\xbftext", "text", "word", b"\xef\xbb\xbfword"),
        (b"no end", "end", "", b"no "),
        (b"\xff\xfe\0x\n", "x", "y", b"\xff\xfe\0y\n"),
        (b"\xff", "\udcff", "ü", b"\xc3\xbc"),
        (b".*", ".*", "x", b"x"),
    ],
)
async def test_text_is_replaced_literally(
    files: HostFiles, root: Path, content: bytes, old: str, new: str, expected: bytes
) -> None:
    await files.write_file("f", content, mode=0o755)
    done = await files.search_replace("f", old=old, new=new)
    assert (root / "f").read_bytes() == expected
    assert done.size_bytes == len(expected)
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o755


async def test_a_replacement_names_its_line_and_keeps_a_link(files: HostFiles, root: Path) -> None:
    await files.write_file("f", b"one\ntwo\nthree\n")
    (root / "link").symlink_to("f")
    done = await files.search_replace("link", old="two\nthree", new="2\n3")
    assert (done.path, done.line) == ("f", 2)
    assert (root / "link").is_symlink()


async def test_four_refusals_change_nothing(files: HostFiles, root: Path) -> None:
    await files.write_file("f", b"aXa\nb\naa")
    inode = (root / "f").stat().st_ino
    with pytest.raises(EmptySearch):
        await files.search_replace("f", old="", new="x")
    with pytest.raises(IdenticalReplacement):
        await files.search_replace("f", old="b", new="b")
    with pytest.raises(TextNotFound):
        await files.search_replace("f", old="nothing", new="x")
    with pytest.raises(TextNotUnique) as caught:
        await files.search_replace("f", old="a", new="x")
    assert caught.value.details == {"lines": [1, 1, 3, 3], "count": 4, "count_is_exact": True}
    with pytest.raises(Rejected):
        await files.search_replace("f", old="\ud800", new="x")
    assert (root / "f").stat().st_ino == inode
    assert os.listdir(root) == ["f"]


@given(
    content=st.text("ab\n", max_size=30).map(str.encode), wanted=st.text("ab\n", min_size=1, max_size=3).map(str.encode)
)
def test_every_occurrence_counts_overlapping_ones_too(content: bytes, wanted: bytes) -> None:
    starts = [n for n in range(len(content)) if content.startswith(wanted, n)]
    if not starts:
        with pytest.raises(TextNotFound):
            find_unique(content, wanted, "f")
    elif len(starts) == 1:
        assert find_unique(content, wanted, "f") == starts[0]
    else:
        with pytest.raises(TextNotUnique) as caught:
            find_unique(content, wanted, "f")
        assert caught.value.details["lines"] == [content.count(b"\n", 0, n) + 1 for n in starts]
        assert caught.value.details["count"] == len(starts)


def test_many_occurrences_are_counted_and_few_listed() -> None:
    with pytest.raises(TextNotUnique) as caught:
        find_unique(b"x\n" * 1000, b"x", "f")
    assert caught.value.details == {"lines": list(range(1, LISTED_LINES + 1)), "count": 1000, "count_is_exact": True}


def test_counting_a_long_periodic_text_ends_soon() -> None:
    with pytest.raises(TextNotUnique) as caught:
        find_unique(b"a" * 8 * MIB, b"a" * 4 * MIB, "f")
    assert caught.value.details["count_is_exact"] is False


@pytest.mark.parametrize(
    ("content", "old", "hint"),
    [
        (b"a\r\nb\r\n", "a\nb", "CRLF"),
        (b"a\r\nc\r\n", "a\nb", "CRLF"),
        (b"a\nb\n", "a\r\nb", "LF"),
        (b"a\nb\n", "c", "Read the file again"),
    ],
)
async def test_a_text_that_is_not_found_comes_with_a_hint(
    files: HostFiles, content: bytes, old: str, hint: str
) -> None:
    await files.write_file("f", content)
    with pytest.raises(TextNotFound) as caught:
        await files.search_replace("f", old=old, new="x")
    assert hint in (caught.value.mend or "")


async def test_replacements_at_once_are_all_done(files: HostFiles, root: Path) -> None:
    await files.write_file("d/f", "".join(f"<{n}>\n" for n in range(40)).encode())
    (root / "link").symlink_to("d/f")
    await asyncio.gather(
        *(files.search_replace("link" if n % 2 else "d/f", old=f"<{n}>", new=f"[{n}]") for n in range(40))
    )
    assert (root / "d/f").read_text() == "".join(f"[{n}]\n" for n in range(40))


def test_a_replacement_is_not_put_over_a_file_that_changed_since_it_was_read(root: Path) -> None:
    (root / "f").write_bytes(b"read")
    expected = (root / "f").lstat()
    draft = Draft(WorkspacePaths(root), PathLocks(), "f")
    draft.open()
    draft.write(b"made from what was read")
    with (root / "f").open("ab") as file:
        file.write(b", then changed by a command")
    with pytest.raises(Swapped):
        draft.commit(expected=expected)
    draft.close()
    assert (root / "f").read_bytes() == b"read, then changed by a command"
    assert os.listdir(root) == ["f"]


async def test_a_file_too_large_to_search_is_a_limit(files: HostFiles, root: Path) -> None:
    with (root / "f").open("wb") as large:
        large.truncate(MAX_SEARCH_REPLACE_BYTES + 1)
    with pytest.raises(LimitExceeded):
        await files.search_replace("f", old="a", new="b")
