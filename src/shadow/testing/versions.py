"""Checks of versions of files: that they change with the content, and that what expects one is refused where another is there."""

from collections.abc import AsyncIterator, Awaitable

from shadow.core.errors import Changed, NotFound, Rejected
from shadow.core.files import ANY_VERSION
from shadow.testing.contract import each_refused, expect, expect_equal, refused, together
from shadow.testing.site import Site

OTHER = "0.0.0.0.0"


async def _pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def check_whatever_reads_tells_the_version(site: Site) -> None:
    """write_file, stat, read_file and read_lines tell the same version of a file that nobody changes."""
    executor, path = site.executor, site.path("file")
    written = await executor.write_file(path, b"one\ntwo\n")
    expect(written.version, "The version of what was written is not told.")
    told = {
        "stat": (await executor.stat(path)).version,
        "read_file": (await executor.read_file(path)).version,
        "read_file of a part": (await executor.read_file(path, offset=2, limit_bytes=1)).version,
        "read_lines": (await executor.read_lines(path, first=2)).version,
    }
    expect_equal(told, dict.fromkeys(told, written.version), "the versions")
    replaced = await executor.search_replace(path, old="two", new="2")
    expect_equal((await executor.stat(path)).version, replaced.version, "the version that search_replace told")


async def check_another_content_has_another_version(site: Site) -> None:
    """Contents of the same size that are written one right after the other have versions of their own."""
    path, versions = site.path("file"), set[str]()
    for number in range(20):
        versions.add((await site.executor.write_file(path, b"%02d" % number)).version)
        versions.add((await site.executor.stat(path)).version)
    expect_equal(len(versions), 20, "how many versions there were")


async def check_a_command_changes_the_version(site: Site) -> None:
    """A command that writes in place, the same size at once after somebody looked, leaves another version."""
    path, versions = site.path("file"), set[str]()
    await site.executor.write_file(path, b"--")
    for number in range(10, 20):
        await site.bash(f"printf {number} > file")
        read = await site.executor.read_file(path)
        expect_equal(read.content, b"%d" % number, "the file")
        expect(read.version, "The version of a file at rest is not told.")
        versions.add(read.version)
    expect_equal(len(versions), 10, "how many versions there were")


async def check_only_files_have_versions(site: Site) -> None:
    """Directories and links have none; a link that is followed has its target's."""
    await site.bash("mkdir directory; printf x > file; ln -s file link")
    executor = site.executor
    expect_equal((await executor.stat(site.path("directory"))).version, "", "a directory's version")
    expect_equal((await executor.stat(site.path("link"), follow=False)).version, "", "a link's version")
    target = (await executor.stat(site.path("file"))).version
    expect_equal((await executor.stat(site.path("link"))).version, target, "the version behind a link")
    with refused(Changed, what="deleting a link that is to be its target's version"):
        await executor.delete(site.path("link"), expected=target)
    await executor.delete(site.path("link"), expected=ANY_VERSION)
    await executor.delete(site.path("directory"), expected=ANY_VERSION)
    expect_equal(await site.bash("ls"), b"file\n", "what is there")


async def check_changes_that_expect_what_is_there_go_through(site: Site) -> None:
    """Each change tells the version that the next one may expect."""
    executor, path = site.executor, site.path("file")
    version = (await executor.write_file(path, b"one")).version
    version = (await executor.write_file(path, b"two", expected=version)).version
    version = (await executor.write_file(path, _pieces(b"thr", b"ee"), expected=version)).version
    version = (await executor.search_replace(path, old="three", new="four", expected=version)).version
    await executor.move(path, site.path("moved"), expected=version)
    moved = await executor.read_file(site.path("moved"))
    expect_equal(moved.content, b"four", "the file")
    await executor.delete(site.path("moved"), expected=moved.version)
    expect_equal(await site.bash("ls -A"), b"", "what is there")


async def check_changes_that_expect_another_version_are_refused(site: Site) -> None:
    """Whatever a change would do, with another version there it is Changed, and everything stays as it was."""
    executor, path = site.executor, site.path("file")
    old = (await executor.write_file(path, b"old")).version
    await site.bash("printf new > file")
    for expected in (old, OTHER, "x"):
        await each_refused(
            {
                "write_file": executor.write_file(path, b"mine", expected=expected),
                "write_file in pieces": executor.write_file(path, _pieces(b"mi", b"ne"), expected=expected),
                "search_replace": executor.search_replace(path, old="new", new="mine", expected=expected),
                "move": executor.move(path, site.path("moved"), expected=expected),
                "delete": executor.delete(path, expected=expected),
            },
            Changed,
            what=f"that expects {expected}",
        )
    expect_equal(await site.bash("ls -A; cat file"), b"file\nnew", "what is there")


async def check_any_version_must_be_there(site: Site) -> None:
    """ANY_VERSION stands for whatever is there; where nothing is, a write is Changed, and makes nothing."""
    executor, path = site.executor, site.path("a/file")
    for expected in (ANY_VERSION, OTHER):
        with refused(Changed, what="a write to what is not there"):
            await executor.write_file(path, b"x", expected=expected)
        await each_refused(
            {
                "search_replace": executor.search_replace(path, old="a", new="b", expected=expected),
                "move": executor.move(path, site.path("moved"), expected=expected),
                "delete": executor.delete(path, expected=expected),
            },
            NotFound,
            what="of what is not there",
        )
    expect_equal(await site.bash("ls -A"), b"", "what is there")
    await executor.write_file(path, b"x")
    await executor.write_file(path, b"y", expected=ANY_VERSION)
    expect_equal(await site.bash("cat a/file"), b"y", "the file")


async def check_an_unknown_version_is_rejected(site: Site) -> None:
    """The empty version, which stands for one that could not be told, is Rejected; so is to expect and to exclude a file."""
    executor, path = site.executor, site.path("file")
    await executor.write_file(path, b"x")
    await each_refused(
        {
            "write_file": executor.write_file(path, b"y", expected=""),
            "search_replace": executor.search_replace(path, old="x", new="y", expected=""),
            "move": executor.move(path, site.path("moved"), expected=""),
            "delete": executor.delete(path, expected=""),
            "an exclusive write": executor.write_file(path, b"y", exclusive=True, expected=ANY_VERSION),
        },
        Rejected,
        what="that makes no sense",
    )
    expect_equal(await site.bash("ls -A; cat file"), b"file\nx", "what is there")


async def check_of_many_that_expect_one_version_one_wins(site: Site) -> None:
    """Of changes of every kind that expect the same version at the same time, exactly one goes through."""
    executor, path = site.executor, site.path("race")
    for _ in range(3):
        seen = (await executor.write_file(path, b"seen")).version
        changes = [
            executor.search_replace(path, old="seen", new="mine", expected=seen),
            executor.move(path, site.path("moved"), overwrite=True, expected=seen),
            executor.delete(path, expected=seen),
            *(executor.write_file(path, b"%04d" % number, expected=seen) for number in range(8)),
        ]
        winners = await together(_goes_through(change) for change in changes)
        expect_equal(sum(winners), 1, "how many went through")


async def _goes_through(change: Awaitable[object]) -> bool:
    try:
        await change
    except (Changed, NotFound):
        return False
    return True


async def check_counting_loses_nothing(site: Site) -> None:
    """Who reads, changes and writes back what must not have changed loses nobody's change."""
    executor, path = site.executor, site.path("counter")
    await executor.write_file(path, b"0")

    async def count() -> None:
        for _ in range(3):
            while True:
                read = await executor.read_file(path)
                try:
                    await executor.write_file(path, b"%d" % (int(read.content) + 1), expected=read.version or OTHER)
                except Changed:
                    continue
                break

    await together(count() for _ in range(6))
    expect_equal((await executor.read_file(path)).content, b"18", "what was counted")


async def check_a_refusal_may_be_repeated(site: Site) -> None:
    """An operation that was refused as Changed was not done: the same one goes through once the version is right."""
    executor, path = site.executor, site.path("file")
    seen = (await executor.write_file(path, b"one")).version
    operation = site.operation()
    with refused(Changed, what="a write that expects another version"):
        await executor.write_file(path, b"two", expected=OTHER, operation=operation)
    first = await executor.write_file(path, b"two", expected=seen, operation=operation)
    again = await executor.write_file(path, b"two", expected=seen, operation=operation)
    expect_equal(again, first, "what a repeat was answered with")
