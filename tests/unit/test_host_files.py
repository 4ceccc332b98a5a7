"""Files of a workspace: read, described and moved, with typed refusals and no descriptor left open."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import (
    AlreadyExists,
    Denied,
    NotADirectory,
    NotAFile,
    NotFound,
    PathRefused,
    Rejected,
    ShadowError,
)
from shadow.core.files import FileKind
from shadow.execution.host.files import HostFiles
from shadow.execution.host.reading import PIECE_BYTES
from shadow.execution.lines import LineCutter
from tests.support.descriptors import open_descriptors

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def files(root: Path) -> HostFiles:
    return HostFiles(root, shown_root="/workspace")


async def collect(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5, b"\0" * (PIECE_BYTES + 1)])
async def test_what_was_written_is_read(files: HostFiles, content: bytes) -> None:
    written = await files.write_file("new/file", content)
    assert (written.path, written.size_bytes, written.kind) == ("new/file", len(content), FileKind.FILE)
    read = await files.read_file("new/file")
    assert (read.content, read.offset, read.size_bytes) == (content, 0, len(content))
    assert await collect(files.stream_file("new/file")) == content
    assert await collect(files.stream_file("new/file", offset=1, limit_bytes=3)) == content[1:4]


async def test_a_part_is_read_by_offset_and_limit(files: HostFiles) -> None:
    await files.write_file("f", b"0123456789")
    assert (await files.read_file("f", offset=3, limit_bytes=4)).content == b"3456"
    past = await files.read_file("f", offset=99)
    assert (past.content, past.size_bytes) == (b"", 10)
    assert (await files.read_file("f", limit_bytes=0)).content == b""
    for offset, limit in ((-1, 1), (0, -1)):
        with pytest.raises(Rejected):
            await files.read_file("f", offset=offset, limit_bytes=limit)


@pytest.mark.parametrize("method", ["read_file", "read_lines", "stream_file", "write_file", "search_replace"])
async def test_what_is_no_regular_file_is_refused_at_once(files: HostFiles, root: Path, method: str) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        # Bound relative to a descriptor: the path may be longer than a socket's name may be.
        directory = os.open(root, os.O_PATH)
        listening.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
    (root / "directory").mkdir()
    (root / "link").symlink_to("pipe")
    calls: dict[str, Callable[[str], Coroutine[object, object, object]]] = {
        "read_file": files.read_file,
        "read_lines": files.read_lines,
        "stream_file": lambda path: collect(files.stream_file(path)),
        "write_file": lambda path: files.write_file(path, b"x"),
        "search_replace": lambda path: files.search_replace(path, old="a", new="b"),
    }
    before = open_descriptors()
    async with asyncio.timeout(20):
        for path in ("pipe", "socket", "directory", "link", "."):
            with pytest.raises(NotAFile):
                await calls[method](path)
    assert open_descriptors() <= before


async def test_missing_things_are_not_found(files: HostFiles, root: Path) -> None:
    (root / "dangling").symlink_to("missing")
    calls = [
        files.stat("missing"),
        files.stat("dangling"),
        files.read_file("dangling"),
        files.read_lines("missing"),
        collect(files.stream_file("missing")),
        files.write_file("a/b", b"", create_parents=False),
        files.search_replace("missing", old="a", new="b"),
        files.make_directory("a/b", create_parents=False),
        files.move("missing", "other"),
        files.delete("missing", recursive=True),
        files.list_directory("missing"),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call
    assert [entry.path for entry in (await files.list_directory()).entries] == ["dangling"]


async def test_a_stream_shows_one_version_of_a_file_that_is_replaced_meanwhile(files: HostFiles) -> None:
    await files.write_file("f", b"1" * (3 * PIECE_BYTES))
    stream = files.stream_file("f")
    first = await anext(stream)
    await files.write_file("f", b"2" * (3 * PIECE_BYTES))
    assert first + await collect(stream) == b"1" * (3 * PIECE_BYTES)


async def test_a_stream_that_is_left_early_closes_its_file(files: HostFiles) -> None:
    await files.write_file("f", b"1" * (3 * PIECE_BYTES))
    before = open_descriptors()
    stream = files.stream_file("f")
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert open_descriptors() <= before


@given(content=st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"bc"]), max_size=12).map(b"".join), data=st.data())
def test_lines_are_cut_as_splitting_the_whole_would(content: bytes, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, 8))
    last = data.draw(st.one_of(st.none(), st.integers(first, 10)))
    limit = data.draw(st.integers(0, 12))
    size = data.draw(st.integers(1, 5))
    cutter = LineCutter(first=first, last=last, limit_bytes=limit)
    for start in range(0, len(content), size):
        cutter.feed(content[start : start + size])
    result = cutter.result("f")
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    lines = [line for line in lines if line]
    wanted = b"".join(lines[first - 1 : last])
    assert result.total == len(lines)
    assert result.content == wanted[:limit]
    assert result.truncated == (len(wanted) > limit)
    if result.truncated:
        assert result.last == first + result.content.count(b"\n")
    else:
        assert result.last == (len(lines) if last is None else min(last, len(lines)))


async def test_lines_of_a_file(files: HostFiles) -> None:
    await files.write_file("f", b"one\r\ntwo\n\nfour")
    whole = await files.read_lines("f")
    assert (whole.content, whole.first, whole.last, whole.total) == (b"one\r\ntwo\n\nfour", 1, 4, 4)
    assert (await files.read_lines("f", first=2, last=3)).content == b"two\n\n"
    none = await files.read_lines("f", first=9)
    assert (none.content, none.last, none.truncated) == (b"", 4, False)
    await files.write_file("empty", b"")
    empty = await files.read_lines("empty")
    assert (empty.content, empty.last, empty.total) == (b"", 0, 0)
    for first, last in ((0, None), (3, 2)):
        with pytest.raises(Rejected):
            await files.read_lines("f", first=first, last=last)


async def test_lines_of_a_large_file_and_a_large_line_take_little_memory(root: Path) -> None:
    with (root / "huge").open("wb") as huge:
        huge.truncate(256 * MIB)  # one line of NULs
        huge.seek(0, os.SEEK_END)
        huge.write(b"\nlast\n")
    code = (
        "import asyncio, re, sys; from pathlib import Path; from shadow.execution.host.files import HostFiles\n"
        "async def main():\n"
        "    files = HostFiles(Path(sys.argv[1]))\n"
        "    lines = await files.read_lines('huge', limit_bytes=1000)\n"
        "    assert (len(lines.content), lines.last, lines.total, lines.truncated) == (1000, 1, 2, True)\n"
        "    assert (await files.read_lines('huge', first=2)).content == b'last\\n'\n"
        "    async for piece in files.stream_file('huge'):\n"
        "        assert len(piece) <= 1024 * 1024\n"
        "    await files.write_file('copy', files.stream_file('huge'))\n"
        "    assert (await files.stat('copy')).size_bytes == (await files.stat('huge')).size_bytes\n"
        "asyncio.run(main())\n"
        # Not ru_maxrss: a process inherits that from whoever forked it.
        "assert int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) < 128 * 1024\n"
    )
    await anyio.run_process([sys.executable, "-c", code, str(root)])


async def test_status_of_each_kind(files: HostFiles, root: Path) -> None:
    await files.write_file("d/f", b"123", mode=0o640)
    (root / "link").symlink_to("d/f")
    (root / "odd").symlink_to(os.fsencode("no\udcffwhere"))
    os.mkfifo(root / "pipe")
    file = await files.stat("link")
    assert (file.path, file.kind, file.size_bytes, file.mode, file.target) == ("d/f", FileKind.FILE, 3, 0o640, None)
    link = await files.stat("link", follow=False)
    assert (link.path, link.kind, link.target) == ("link", FileKind.SYMLINK, "d/f")
    assert (await files.stat("odd", follow=False)).target == "no\udcffwhere"
    assert (await files.stat("pipe")).kind is FileKind.OTHER
    assert (await files.stat("/workspace")).kind is FileKind.DIRECTORY
    assert (await files.stat(".")).path == "."


async def test_directories_are_made_with_their_parents_and_may_be_there(files: HostFiles, root: Path) -> None:
    assert (await files.make_directory("a/b/c")).kind is FileKind.DIRECTORY
    assert (await files.make_directory("a/b/c/")).path == "a/b/c"
    (root / "link").symlink_to("a")
    assert (await files.make_directory("link")).path == "a"
    await files.write_file("f", b"")
    (root / "dangling").symlink_to("missing")
    for path in ("f", "dangling"):
        with pytest.raises(AlreadyExists):
            await files.make_directory(path)
    assert not (root / "missing").exists()
    with pytest.raises(NotADirectory):
        await files.make_directory("f/sub")
    with pytest.raises(PathRefused):
        await files.make_directory("new/" + "n" * 300)
    assert not (root / "new").exists()


async def test_moving_renames_and_replaces_only_when_asked(files: HostFiles, root: Path) -> None:
    await files.write_file("a", b"a")
    await files.write_file("b", b"b")
    (root / "link").symlink_to("a")
    (root / "d/sub").mkdir(parents=True)
    with pytest.raises(AlreadyExists):
        await files.move("a", "b")
    assert (await files.move("a", "d/a")).path == "d/a"
    await files.move("d/a", "b", overwrite=True)
    assert (root / "b").read_bytes() == b"a"
    assert (await files.move("link", "moved")).target == "a"
    assert (await files.move("d", "e")).kind is FileKind.DIRECTORY
    with pytest.raises(AlreadyExists):
        await files.move("b", "e", overwrite=True)
    with pytest.raises(AlreadyExists):
        await files.move("e", "b", overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(Rejected):
            await files.move("e", "e/sub/inner", overwrite=overwrite)
        for source, target in ((".", "x"), ("b", "."), ("b", "../x")):
            with pytest.raises(PathRefused):
                await files.move(source, target, overwrite=overwrite)
    with pytest.raises(NotFound):
        await files.move("b", "missing/b")
    assert sorted(os.listdir(root)) == ["b", "e", "moved"]


async def test_moving_onto_another_name_of_the_same_file_leaves_one(files: HostFiles, root: Path) -> None:
    await files.write_file("a", b"a")
    os.link(root / "a", root / "b")
    await files.move("a", "b", overwrite=True)
    assert os.listdir(root) == ["b"]
    await files.move("b", "./b", overwrite=True)
    assert os.listdir(root) == ["b"]


async def test_of_many_moves_to_one_name_one_wins(files: HostFiles, root: Path) -> None:
    for number in range(12):
        await files.write_file(f"f{number}", b"")
    results = await asyncio.gather(*(files.move(f"f{n}", "target") for n in range(12)), return_exceptions=True)
    assert sum(isinstance(result, AlreadyExists) for result in results) == 11
    assert len(os.listdir(root)) == 12


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
async def test_what_the_system_forbids_is_denied(files: HostFiles, root: Path) -> None:
    await files.write_file("d/f", b"x", mode=0)
    (root / "d").chmod(0o555)
    try:
        calls = [
            files.read_file("d/f"),
            files.write_file("d/f", b"y"),
            files.write_file("d/new", b"y", exclusive=True),
            files.make_directory("d/sub"),
            files.move("d/f", "f"),
            files.delete("d/f"),
            files.search_replace("d/f", old="x", new="y"),
        ]
        for call in calls:
            with pytest.raises(Denied):
                await call
    finally:
        (root / "d").chmod(0o755)


async def test_errors_never_leave_descriptors_open(files: HostFiles, root: Path) -> None:
    (root / "d").mkdir()
    before = open_descriptors()
    for path in ("d", "missing/x", "..", "d/x/y", "n" * 300, "", "d/"):
        for call in (
            files.read_file(path),
            files.read_lines(path),
            collect(files.stream_file(path)),
            files.write_file(path, b"", create_parents=False),
            files.search_replace(path, old="a", new="b"),
            files.move(path, "d/../.."),
            files.move("d", path),
            files.list_directory(path, after="zzz"),
        ):
            with pytest.raises(ShadowError):
                await call
    assert open_descriptors() <= before
