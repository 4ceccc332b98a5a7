"""Writing files: as a whole or not at all, and nothing left behind."""

import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from shadow.core.errors import (
    AlreadyExists,
    LimitExceeded,
    NotAFile,
    NotFound,
    PathRefused,
    Rejected,
)
from shadow.execution.host.files import HostFiles
from shadow.execution.host.paths import Place, WorkspacePaths
from shadow.execution.host.reading import PIECE_BYTES
from shadow.execution.host.writing import Draft, PathLocks, write_whole
from tests.support.descriptors import open_descriptors

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def files(root: Path) -> HostFiles:
    return HostFiles(root, shown_root="/workspace")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def collect(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


async def test_writing_keeps_the_mode_unless_one_is_given(files: HostFiles, root: Path) -> None:
    await files.write_file("f", b"1", mode=0o750)
    assert (await files.write_file("f", b"2")).mode == 0o750
    assert (await files.write_file("f", pieces(b"3"))).mode == 0o750
    (root / "f").chmod(0o4711)
    assert (await files.write_file("f", b"4")).mode == 0o4711
    assert (await files.write_file("f", b"5", mode=0o600)).mode == 0o600
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o600
    for mode in (-1, 0o10000):
        with pytest.raises(Rejected):
            await files.write_file("f", b"", mode=mode)


async def test_a_new_file_takes_the_umask_into_account(files: HostFiles, root: Path) -> None:
    (root / "ordinary").touch()
    assert (await files.write_file("f", b"")).mode == stat.S_IMODE((root / "ordinary").stat().st_mode)


async def test_writing_through_a_link_replaces_its_target(files: HostFiles, root: Path) -> None:
    (root / "d").mkdir()
    (root / "link").symlink_to("d/target")
    assert (await files.write_file("link", b"1")).path == "d/target"
    await files.write_file("link", b"2")
    assert (root / "link").is_symlink()
    assert (root / "d/target").read_bytes() == b"2"


async def test_another_name_of_the_old_file_keeps_the_old_content(files: HostFiles, root: Path) -> None:
    await files.write_file("f", b"old")
    os.link(root / "f", root / "other")
    await files.write_file("f", b"new")
    assert (root / "other").read_bytes() == b"old"


async def test_exclusive_writing_refuses_whatever_is_there(files: HostFiles, root: Path) -> None:
    (root / "dangling").symlink_to("missing")
    (root / "directory").mkdir()
    assert (await files.write_file("f", b"1", exclusive=True)).size_bytes == 1
    for path in ("f", "dangling", "directory"):
        with pytest.raises(AlreadyExists):
            await files.write_file(path, b"2", exclusive=True)
    assert (root / "f").read_bytes() == b"1"
    assert not (root / "missing").exists()


async def test_of_many_exclusive_writers_one_wins(files: HostFiles, root: Path) -> None:
    results = await asyncio.gather(
        *(files.write_file("d/f", b"%d" % n, exclusive=True) for n in range(16)), return_exceptions=True
    )
    assert sum(isinstance(result, AlreadyExists) for result in results) == 15
    assert os.listdir(root / "d") == ["f"]


async def test_readers_never_see_a_part(files: HostFiles, root: Path) -> None:
    versions = [bytes([n]) * 300_000 for n in range(2)]
    await files.write_file("f", versions[0])
    stop = threading.Event()
    seen: set[bytes] = set()

    def read_all_the_time() -> None:
        while not stop.is_set():
            seen.add((root / "f").read_bytes())

    reader = threading.Thread(target=read_all_the_time)
    reader.start()
    try:
        async with asyncio.timeout(30):
            turn = 0
            while turn < 60 or len(seen) < 2:
                turn += 1
                await files.write_file("f", versions[turn % 2])
    finally:
        stop.set()
        reader.join()
    assert seen == set(versions)


@pytest.mark.parametrize("path", ["f/", "new/f/", "new/."])
async def test_a_name_with_a_slash_at_its_end_is_no_file(files: HostFiles, root: Path, path: str) -> None:
    with pytest.raises(NotAFile):
        await files.write_file(path, b"")
    assert os.listdir(root) == []


@pytest.mark.parametrize("unnamed", [True, False])
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_draft_works_with_and_without_unnamed_files(root: Path, unnamed: bool, exclusive: bool) -> None:
    paths, locks = WorkspacePaths(root), PathLocks()
    before = open_descriptors()
    for content in (b"1", b"2"):
        draft = Draft(paths, locks, "d/f", exclusive=exclusive, unnamed=unnamed)
        if exclusive and content == b"2":
            with pytest.raises(AlreadyExists):
                write_whole(draft, content)
            assert (root / "d/f").read_bytes() == b"1"
        else:
            assert write_whole(draft, content).size_bytes == 1
            assert (root / "d/f").read_bytes() == content
        assert os.listdir(root / "d") == ["f"]
    assert open_descriptors() <= before


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_draft_that_is_not_committed_leaves_nothing(root: Path, unnamed: bool) -> None:
    draft = Draft(WorkspacePaths(root), PathLocks(), "new/d/f", unnamed=unnamed)
    before = open_descriptors()
    draft.open()
    draft.write(b"x" * 1000)
    draft.close()
    draft.close()
    assert os.listdir(root) == []
    assert open_descriptors() <= before


def test_a_draft_survives_the_removal_of_its_directory(root: Path) -> None:
    draft = Draft(WorkspacePaths(root), PathLocks(), "d/f")
    draft.open()
    draft.write(b"x")
    (root / "d").rmdir()
    draft.commit()
    draft.close()
    assert (root / "d/f").read_bytes() == b"x"


async def test_a_body_that_fails_or_is_cancelled_leaves_the_old_file_and_nothing_else(
    files: HostFiles, root: Path
) -> None:
    await files.write_file("f", b"old")
    before = open_descriptors()

    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * 2 * PIECE_BYTES
        raise ZeroDivisionError

    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 2 * PIECE_BYTES
        reached.set()
        await asyncio.Event().wait()

    for path in ("f", "new/f"):
        with pytest.raises(ZeroDivisionError):
            await files.write_file(path, failing())
        reached.clear()
        task = asyncio.create_task(files.write_file(path, endless()))
        async with asyncio.timeout(20):
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert os.listdir(root) == ["f"]
    assert (root / "f").read_bytes() == b"old"
    assert open_descriptors() <= before


async def test_calls_cancelled_at_any_moment_leave_no_descriptor_open(files: HostFiles, root: Path) -> None:
    await files.write_file("f", b"old")
    before = open_descriptors()
    for turns in range(12):
        for call in (
            files.write_file("f", pieces(b"1", b"2")),
            files.read_file("f"),
            collect(files.stream_file("f")),
            files.list_directory(recursive=True),
        ):
            task = asyncio.ensure_future(call)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    assert os.listdir(root) == ["f"]
    assert open_descriptors() <= before


async def test_a_file_size_limit_is_a_limit_and_leaves_nothing(root: Path) -> None:
    code = (
        "import asyncio, resource, sys; from pathlib import Path; from shadow.core.errors import LimitExceeded\n"
        "from shadow.execution.host.files import HostFiles\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    asyncio.run(HostFiles(Path(sys.argv[1])).write_file('new/f', b'x' * 2000))\n"
        "except LimitExceeded:\n"
        "    sys.exit(7)\n"
    )
    ended = await anyio.run_process([sys.executable, "-c", code, str(root)], check=False)
    assert ended.returncode == 7
    assert os.listdir(root) == []


async def test_a_full_disk_is_a_limit_and_leaves_nothing(root: Path) -> None:
    mounted = await anyio.run_process(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "tmpfs", str(root)], check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        files = HostFiles(root)
        await files.write_file("f", b"old")
        for path in ("f", "new/deep/f"):
            with pytest.raises(LimitExceeded):
                await files.write_file(path, b"x" * 2 * MIB)
            with pytest.raises(LimitExceeded):
                await files.write_file(path, pieces(b"x" * MIB, b"y" * MIB))
        assert os.listdir(root) == ["f"]
        assert (root / "f").read_bytes() == b"old"
        for number in range(30):  # inodes
            try:
                await files.write_file(f"n{number}", b"")
            except LimitExceeded:
                break
        else:
            pytest.fail("there was no end of inodes")
        with pytest.raises(LimitExceeded):
            await files.make_directory("d/e/f")
        assert not (root / "d").exists()
    finally:
        await anyio.run_process(["umount", str(root)])


class VanishingDirectory(WorkspacePaths):
    """Somebody removes the directory ``d`` right after a path in it was resolved, once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.directory: Path | None = root / "d"
        self.directory.mkdir()

    def resolve(self, path: str, *, follow: bool = True, create_parents: bool = False) -> Place:
        place = super().resolve(path, follow=follow, create_parents=create_parents)
        if self.directory is not None:
            self.directory.rmdir()
            self.directory = None
        return place


@pytest.mark.parametrize("unnamed", [True, False])
async def test_a_directory_that_vanishes_before_the_write_is_made_again(root: Path, unnamed: bool) -> None:
    write_whole(Draft(VanishingDirectory(root), PathLocks(), "d/f", unnamed=unnamed), b"new")
    assert (root / "d/f").read_bytes() == b"new"


async def test_a_directory_that_vanishes_is_not_there_where_it_may_not_be_made(root: Path) -> None:
    with pytest.raises(NotFound):
        write_whole(Draft(VanishingDirectory(root), PathLocks(), "d/f", create_parents=False), b"new")
    assert os.listdir(root) == []


async def test_a_directory_swapped_for_a_link_that_leads_out_is_refused_and_nothing_stays_open(root: Path) -> None:
    before = open_descriptors()
    draft = Draft(WorkspacePaths(root), PathLocks(), "d/f")
    try:
        draft.open()
        draft.write(b"new")
        (root / "d").rmdir()
        (root / "d").symlink_to("/tmp")
        with pytest.raises(PathRefused):
            draft.commit()
    finally:
        draft.close()
    assert open_descriptors() <= before
