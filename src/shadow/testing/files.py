"""Checks of reading, writing and describing files."""

import asyncio
from collections.abc import AsyncIterator

from shadow.core.errors import AlreadyExists, NotADirectory, NotAFile, NotFound, Rejected
from shadow.core.files import FileKind
from shadow.testing.contract import (
    DEADLINE_S,
    closed_after,
    each_refused,
    eventually,
    expect,
    expect_equal,
    refused,
    together,
)
from shadow.testing.site import Site, content_of

EVERY_BYTE = bytes(range(256))
MEBIBYTE = 1024 * 1024


async def check_what_was_written_is_read(site: Site) -> None:
    """What was written is read back, and described."""
    path = site.path("note.txt")
    written = await site.executor.write_file(path, b"hello\n")
    expect_equal((written.kind, written.size_bytes), (FileKind.FILE, 6), "what write_file returned")
    expect_equal(written.path, path, "the path that write_file returned")
    read = await site.executor.read_file(path)
    expect_equal((read.content, read.offset, read.size_bytes), (b"hello\n", 0, 6), "what read_file returned")
    expect_equal((await site.executor.stat(path)).size_bytes, 6, "the size by stat")


async def check_commands_and_files_see_the_same(site: Site) -> None:
    """A command reads what write_file wrote; read_file reads what a command wrote."""
    await site.executor.write_file(site.path("in"), b"from outside")
    await site.bash("cat in > out; printf ' and back' >> out")
    expect_equal((await site.executor.read_file(site.path("out"))).content, b"from outside and back", "the file")


async def check_a_missing_file_is_not_found(site: Site) -> None:
    """What is not there is NotFound, whichever call names it."""
    executor, path = site.executor, site.path("nowhere")
    await each_refused(
        {
            "stat": executor.stat(path),
            "stat of the name itself": executor.stat(path, follow=False),
            "read_file": executor.read_file(path),
            "read_lines": executor.read_lines(path),
            "stream_file": content_of(executor.stream_file(path)),
            "search_replace": executor.search_replace(path, old="a", new="b"),
            "delete": executor.delete(path),
            "delete of a tree": executor.delete(path, recursive=True),
            "move": executor.move(path, site.path("elsewhere")),
            "list_directory": executor.list_directory(path),
        },
        NotFound,
        what="of a missing file",
    )


async def check_any_byte_survives(site: Site) -> None:
    """Any bytes come back as they are, by every way of reading."""
    path, content = site.path("bytes"), EVERY_BYTE * 41 + b"\r\n\n\r\0"
    await site.executor.write_file(path, content)
    expect_equal((await site.executor.read_file(path)).content, content, "read_file")
    expect_equal(await content_of(site.executor.stream_file(path)), content, "stream_file")
    expect_equal((await site.executor.read_lines(path)).content, content, "read_lines")
    expect_equal(await site.bash("cat bytes"), content, "a command's view")


async def check_empty_files_are_files(site: Site) -> None:
    """An empty file is written, read, streamed and described without an error."""
    path = site.path("empty")
    written = await site.executor.write_file(path, b"")
    expect_equal(written.size_bytes, 0, "the size")
    read = await site.executor.read_file(path)
    expect_equal((read.content, read.size_bytes), (b"", 0), "read_file")
    expect_equal(await content_of(site.executor.stream_file(path)), b"", "stream_file")
    expect_equal(await site.bash("stat -c %s empty; cat empty"), b"0\n", "a command's view")


async def check_ranges_are_read(site: Site) -> None:
    """A range of bytes is read from its offset, and the size told is the whole file's."""
    path = site.path("range")
    await site.executor.write_file(path, b"0123456789")
    for offset, limit, wanted in ((0, 4, b"0123"), (3, 4, b"3456"), (8, 100, b"89"), (9, 1, b"9")):
        read = await site.executor.read_file(path, offset=offset, limit_bytes=limit)
        expect_equal((read.content, read.offset, read.size_bytes), (wanted, offset, 10), f"{limit} bytes from {offset}")


async def check_reading_past_the_end_is_no_error(site: Site) -> None:
    """At or after the end there is nothing to read, and that is no error."""
    path = site.path("short")
    await site.executor.write_file(path, b"abc")
    for offset in (3, 4, 10**12):
        expect_equal((await site.executor.read_file(path, offset=offset)).content, b"", f"read_file at {offset}")
        expect_equal(await content_of(site.executor.stream_file(path, offset=offset)), b"", f"stream_file at {offset}")


async def check_offsets_below_zero_are_rejected(site: Site) -> None:
    """An offset below zero is Rejected."""
    path = site.path("short")
    await site.executor.write_file(path, b"abc")
    with refused(Rejected, what="read_file from -1"):
        await site.executor.read_file(path, offset=-1)
    with refused(Rejected, what="stream_file from -1"):
        await content_of(site.executor.stream_file(path, offset=-1))


async def check_streams_carry_the_whole_file(site: Site) -> None:
    """A stream carries every byte of a file of several megabytes, also from an offset and up to a limit."""
    path, content = site.path("large"), b"".join(b"%09d\n" % n for n in range(400_000))
    await site.executor.write_file(path, content)
    expect_equal(await content_of(site.executor.stream_file(path)), content, "the stream")
    part = await content_of(site.executor.stream_file(path, offset=123_457, limit_bytes=2 * MEBIBYTE))
    expect_equal(part, content[123_457 : 123_457 + 2 * MEBIBYTE], "the stream of a part")


async def check_a_stream_is_of_one_version(site: Site) -> None:
    """A stream that has begun goes on with the version that it began with, though the file is replaced."""
    path, size = site.path("versions"), 24 * MEBIBYTE
    await site.executor.write_file(path, b"a" * size)
    async with closed_after(site.executor.stream_file(path)) as pieces:
        first = await anext(pieces)
        await site.executor.write_file(path, b"b" * 1000)
        rest = [piece async for piece in pieces]
    total = len(first) + sum(map(len, rest))
    expect_equal(total, size, "how many bytes the stream carried")
    expect(not any(b"b" in piece for piece in rest), "The stream mixes two versions of the file.")
    expect_equal((await site.executor.read_file(path)).size_bytes, 1000, "the new file's size")


async def check_content_can_be_streamed_in(site: Site) -> None:
    """Content that arrives in pieces, empty ones too, is written as one."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%05d" % number * 1000
            yield b""

    written = await site.executor.write_file(site.path("pieces"), pieces())
    expect_equal(written.size_bytes, 500_000, "the size")
    wanted = b"".join(b"%05d" % number * 1000 for number in range(100))
    expect_equal((await site.executor.read_file(site.path("pieces"))).content, wanted, "the content")


async def check_a_failed_write_leaves_the_old_file(site: Site) -> None:
    """When the content fails half way, the old file stays as it was, and nothing is left beside it."""
    path = site.path("kept")
    await site.executor.write_file(path, b"old")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * MEBIBYTE
        raise EOFError("the source went away")

    failed = False
    try:
        await site.executor.write_file(path, pieces())
    except Exception:  # noqa: BLE001 - the source's error, or what a transport makes of it
        failed = True
    expect(failed, "A write whose content failed was reported as done.")

    async def clean() -> bool:
        return await site.bash("ls -A") == b"kept\n"

    await eventually(clean, what="nothing is left beside the file", deadline_s=5.0)
    expect_equal((await site.executor.read_file(path)).content, b"old", "the file after the failure")


async def check_readers_never_see_a_part(site: Site) -> None:
    """While a file is replaced again and again, every reader sees one whole version."""
    path, size = site.path("swapped"), 300_000
    await site.executor.write_file(path, b"0" * size)
    writing = True

    async def write() -> None:
        nonlocal writing
        for number in range(1, 10):
            await site.executor.write_file(path, b"%d" % number * size)
        writing = False

    async def read() -> None:
        while writing:
            content = (await site.executor.read_file(path)).content
            expect_equal(len(content), size, "the length of what a reader saw")
            expect(content == content[:1] * size, "A reader saw a mixture of two versions.")

    await together([write(), read(), read()])


async def check_commands_never_see_a_part(site: Site) -> None:
    """A command that reads in a loop sees one whole version each time too."""
    size = 200_000
    await site.executor.write_file(site.path("swapped"), b"0" * size)
    reader = await site.start_bash(
        "echo go; while [ ! -e stop ]; do n=$(wc -c < swapped); k=$(tr -s '0-9' < swapped | wc -c);"
        f' if [ "$n$k" != {size}1 ]; then echo "mixed $n $k"; fi; done; echo done',
        until=b"go",
    )
    for number in range(1, 10):
        await site.executor.write_file(site.path("swapped"), b"%d" % number * size)
    await site.executor.write_file(site.path("stop"), b"")
    seen = await site.read_until(reader.id, b"done\n")
    expect_equal(seen, b"go\ndone\n", "what the command saw")


async def check_writing_keeps_the_mode(site: Site) -> None:
    """Writing a file that is there keeps its mode."""
    await site.bash("printf x > odd; chmod 0641 odd")
    written = await site.executor.write_file(site.path("odd"), b"new")
    expect_equal(oct(written.mode), oct(0o641), "the mode returned")
    expect_equal(await site.bash("stat -c %a odd"), b"641\n", "the mode on disk")


async def check_a_mode_can_be_given(site: Site) -> None:
    """A mode that is given is set, on new files and on old ones."""
    for mode in (0o600, 0o755, 0o400):
        written = await site.executor.write_file(site.path("new"), b"x", mode=mode)
        expect_equal(oct(written.mode), oct(mode), "the mode returned")
    expect_equal(await site.bash("stat -c %a new"), b"400\n", "the mode on disk")


async def check_a_written_script_runs(site: Site) -> None:
    """A file that is written with its executable bit can be run at once."""
    await site.executor.write_file(site.path("script"), b"#!/bin/bash\necho ran $1\n", mode=0o755)
    result = await site.run(site.spec("./script", "well"))
    expect_equal((result.exit_code, result.stdout), (0, b"ran well\n"), "the script")


async def check_new_files_belong_to_the_commands_user(site: Site) -> None:
    """What write_file and make_directory make, commands can change and remove."""
    await site.executor.write_file(site.path("ours/file"), b"x")
    await site.bash("[ -O ours/file ] && [ -O ours ] && echo more >> ours/file && rm -r ours")


async def check_parents_are_made(site: Site) -> None:
    """Missing parent directories are made, unless they must not be."""
    await site.executor.write_file(site.path("a/b/c.txt"), b"deep")
    expect_equal(await site.bash("cat a/b/c.txt"), b"deep", "the file")
    with refused(NotFound, what="writing below a missing directory with create_parents=False"):
        await site.executor.write_file(site.path("x/y.txt"), b"", create_parents=False)
    expect_equal(await site.bash("ls"), b"a\n", "what is there")


async def check_a_file_is_no_parent(site: Site) -> None:
    """Nothing is written, made or read below a file."""
    await site.executor.write_file(site.path("file"), b"x")
    await each_refused(
        {
            "write_file": site.executor.write_file(site.path("file/below"), b""),
            "make_directory": site.executor.make_directory(site.path("file/below")),
            "read_file": site.executor.read_file(site.path("file/below")),
        },
        NotADirectory,
        NotFound,
        AlreadyExists,
        what="below a file",
    )
    expect_equal((await site.executor.read_file(site.path("file"))).content, b"x", "the file")


async def check_exclusive_writes_never_replace(site: Site) -> None:
    """An exclusive write makes a new file, and refuses where anything is there, a dangling symlink too."""
    path = site.path("once")
    await site.executor.write_file(path, b"first", exclusive=True)
    with refused(AlreadyExists, what="a second exclusive write"):
        await site.executor.write_file(path, b"second", exclusive=True)
    expect_equal((await site.executor.read_file(path)).content, b"first", "the file")
    await site.bash("ln -s nowhere dangling; mkdir directory")
    for name in ("dangling", "directory"):
        with refused(AlreadyExists, what=f"an exclusive write to a {name}"):
            await site.executor.write_file(site.path(name), b"", exclusive=True)
    expect_equal(await site.bash("ls"), b"dangling\ndirectory\nonce\n", "what is there")


async def check_one_of_many_exclusive_writes_wins(site: Site) -> None:
    """Of exclusive writes at the same time exactly one goes through."""

    async def write(number: int) -> bytes | None:
        content = b"%d" % number
        try:
            await site.executor.write_file(site.path("race"), content, exclusive=True)
        except AlreadyExists:
            return None
        return content

    winners = [content for content in await together(write(number) for number in range(12)) if content is not None]
    expect_equal(len(winners), 1, "how many writes went through")
    expect_equal((await site.executor.read_file(site.path("race"))).content, winners[0], "the file")


async def check_directories_are_not_files(site: Site) -> None:
    """A directory is not read, streamed, written or replaced in: NotAFile."""
    executor, path = site.executor, site.path("directory")
    await executor.make_directory(path)
    await each_refused(
        {
            "read_file": executor.read_file(path),
            "read_lines": executor.read_lines(path),
            "stream_file": content_of(executor.stream_file(path)),
            "write_file": executor.write_file(path, b""),
            "search_replace": executor.search_replace(path, old="a", new="b"),
        },
        NotAFile,
        what="of a directory",
    )


async def check_pipes_never_block(site: Site) -> None:
    """A named pipe is described and removed, and refused at once by what wants a file."""
    await site.bash("mkfifo pipe")
    executor, path = site.executor, site.path("pipe")
    expect_equal((await executor.stat(path)).kind, FileKind.OTHER, "the kind of a pipe")
    async with asyncio.timeout(DEADLINE_S):
        await each_refused(
            {
                "read_file": executor.read_file(path),
                "read_lines": executor.read_lines(path),
                "stream_file": content_of(executor.stream_file(path)),
                "write_file": executor.write_file(path, b""),
                "search_replace": executor.search_replace(path, old="a", new="b"),
            },
            NotAFile,
            what="of a pipe",
        )
        await executor.delete(path)


async def check_stat_tells_what_is_there(site: Site) -> None:
    """Kind, size, permission bits, time and target are those on disk."""
    await site.bash(
        "printf 12345 > file; chmod 4755 file; mkdir directory; ln -s file link; ln -s directory way; touch -d @1000000000.5 file"
    )
    file = await site.executor.stat(site.path("file"))
    expect_equal((file.kind, file.size_bytes, file.mode), (FileKind.FILE, 5, 0o4755), "the file")
    expect_equal(file.modified_at, 1000000000.5, "the time of the last change")
    expect_equal((await site.executor.stat(site.path("directory"))).kind, FileKind.DIRECTORY, "the directory")
    expect_equal((await site.executor.stat(site.path("link"))).kind, FileKind.FILE, "what the link leads to")
    expect_equal((await site.executor.stat(site.path("way"))).kind, FileKind.DIRECTORY, "what the way leads to")
    link = await site.executor.stat(site.path("link"), follow=False)
    expect_equal((link.kind, link.target), (FileKind.SYMLINK, "file"), "the link itself")


async def check_writing_follows_a_symlink(site: Site) -> None:
    """Writing to a symlink replaces what it leads to, and the symlink stays."""
    await site.bash("mkdir real; printf old > real/file; ln -s real/file link; ln -s real way")
    await site.executor.write_file(site.path("link"), b"new")
    expect_equal(await site.bash("readlink link; cat real/file"), b"real/file\nnew", "link and target")
    await site.executor.write_file(site.path("way/other"), b"x")
    expect_equal(await site.bash("readlink way; ls real"), b"real\nfile\nother\n", "below a linked directory")


async def check_many_files_at_once(site: Site) -> None:
    """Many writes and reads at the same time do not disturb each other."""

    async def one(number: int) -> None:
        path, content = site.path(f"many/{number}"), b"%d " % number * 1000
        await site.executor.write_file(path, content)
        expect_equal((await site.executor.read_file(path)).content, content, f"file {number}")

    await together(one(number) for number in range(40))
    expect_equal((await site.bash("ls many")).count(b"\n"), 40, "how many files there are")


NEEDS = dict.fromkeys(
    (
        check_commands_never_see_a_part,
        check_a_written_script_runs,
        check_new_files_belong_to_the_commands_user,
    ),
    ("programs",),
)
