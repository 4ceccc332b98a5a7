"""Checks of reading files by lines."""

from shadow.core.errors import Rejected
from shadow.testing.contract import expect, expect_equal, refused
from shadow.testing.site import Site


async def check_lines_are_counted_from_one(site: Site) -> None:
    """Lines ``first`` to ``last`` are both included and counted from 1, and the total is the file's."""
    path = site.path("text")
    await site.executor.write_file(path, b"one\ntwo\nthree\nfour\n")
    for first, last, wanted in (
        (1, 1, b"one\n"),
        (2, 3, b"two\nthree\n"),
        (4, None, b"four\n"),
        (3, 99, b"three\nfour\n"),
    ):
        read = await site.executor.read_lines(path, first=first, last=last)
        expect_equal(read.content, wanted, f"lines {first} to {last}")
        expect_equal((read.first, read.total, read.truncated), (first, 4, False), f"what lines {first} to {last} tell")
        expect_equal(read.last, first + wanted.count(b"\n") - 1, f"the last of lines {first} to {last}")


async def check_a_last_line_without_an_end_counts(site: Site) -> None:
    """A last line without a line end counts, and gets none."""
    path = site.path("text")
    await site.executor.write_file(path, b"one\ntwo")
    read = await site.executor.read_lines(path)
    expect_equal((read.content, read.last, read.total), (b"one\ntwo", 2, 2), "both lines")
    expect_equal((await site.executor.read_lines(path, first=2)).content, b"two", "the last line")


async def check_line_ends_stay_as_they_are(site: Site) -> None:
    """Lines end at LF alone: CRLF stays, and a lone CR, a form feed or a Unicode separator ends no line."""
    path, content = site.path("text"), "a\r\nb\rc\x0cd\u2028e\x85f\n".encode()
    await site.executor.write_file(path, content)
    read = await site.executor.read_lines(path)
    expect_equal((read.content, read.total), (content, 2), "the lines")
    expect_equal((await site.executor.read_lines(path, first=1, last=1)).content, b"a\r\n", "the first line")


async def check_an_empty_file_has_no_lines(site: Site) -> None:
    """An empty file has no lines, and reading them is no error."""
    await site.executor.write_file(site.path("empty"), b"")
    read = await site.executor.read_lines(site.path("empty"))
    expect_equal((read.content, read.total, read.truncated), (b"", 0, False), "the lines")
    expect(read.last < read.first, f"An empty file claims the lines {read.first} to {read.last}.")


async def check_lines_past_the_end_are_none(site: Site) -> None:
    """Lines behind the last one are none, without an error, and the total is still told."""
    await site.executor.write_file(site.path("text"), b"one\ntwo\n")
    read = await site.executor.read_lines(site.path("text"), first=3, last=9)
    expect_equal((read.content, read.total), (b"", 2), "the lines")
    expect(read.last < read.first, f"Lines that are not there were claimed: {read.first} to {read.last}.")


async def check_line_numbers_below_one_are_rejected(site: Site) -> None:
    """There is no line 0 and no line -1."""
    await site.executor.write_file(site.path("text"), b"one\n")
    for first in (0, -1):
        with refused(Rejected, what=f"lines from {first}"):
            await site.executor.read_lines(site.path("text"), first=first)


async def check_a_limit_of_bytes_is_told(site: Site) -> None:
    """Where the limit of bytes cuts the lines short, the answer says so and holds nothing but the file's bytes."""
    path, content = site.path("text"), b"0123456789\n" * 100
    await site.executor.write_file(path, content)
    read = await site.executor.read_lines(path, first=11, limit_bytes=55)
    expect(read.truncated, "A cut answer is not marked.")
    expect(0 < len(read.content) <= 55, f"{len(read.content)} bytes were returned for a limit of 55.")
    expect(content[110:].startswith(read.content), f"These are not the file's bytes: {read.content!r}.")
    whole = await site.executor.read_lines(path, first=11, last=15, limit_bytes=55)
    expect_equal((whole.content, whole.last, whole.truncated), (content[:55], 15, False), "lines of just the limit")


async def check_long_lines_are_read(site: Site) -> None:
    """A line of megabytes is one line."""
    await site.executor.write_file(site.path("long"), b"x" * 3_000_000 + b"\nend\n")
    read = await site.executor.read_lines(site.path("long"))
    expect_equal((len(read.content), read.total), (3_000_005, 2), "bytes and lines")
    expect_equal((await site.executor.read_lines(site.path("long"), first=2)).content, b"end\n", "the line after it")
