"""Listing and deleting whole trees: complete, in order, page by page, to any depth, never through a link."""

import asyncio
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import Conflict, Denied, NotADirectory, NotFound, PathRefused, Rejected
from shadow.core.files import FileKind, FileStat
from shadow.execution.host.deleting import delete
from shadow.execution.host.files import HostFiles
from shadow.execution.host.listing import list_entries
from shadow.execution.host.paths import WorkspacePaths
from shadow.execution.host.reading import read_file_lines
from shadow.execution.host.threads import Stop, Stopped, in_thread
from shadow.execution.host.writing import PathLocks
from tests.support.descriptors import open_descriptors

pytestmark = pytest.mark.anyio

DEPTH = 10_000

names = st.sampled_from(["a", "b", "a-b", "a.b", "ü", "\udcff", "z\nz", "𝄞", "\ue000"])
trees = st.dictionaries(st.lists(names, min_size=1, max_size=4).map("/".join), st.booleans(), max_size=12)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def files(root: Path) -> HostFiles:
    return HostFiles(root, shown_root="/workspace")


def make_deep_tree(root: Path, name: str) -> None:
    fd = os.open(root, os.O_PATH)
    for level in range(DEPTH):
        step = "d" if level else name
        os.mkdir(step, dir_fd=fd)
        inner = os.open(step, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def every_page(paths: WorkspacePaths, path: str, *, recursive: bool, limit: int) -> list[FileStat]:
    entries: list[FileStat] = []
    after: str | None = None
    while True:
        page = list_entries(paths, path, Stop(), recursive=recursive, after=after, limit=limit)
        assert len(page.entries) <= limit
        entries += page.entries
        after = page.next_after
        if after is None:
            return entries
        assert after == entries[-1].path


@given(tree=trees, limit=st.integers(1, 5), recursive=st.booleans(), below=st.booleans())
def test_pages_hold_every_entry_once_and_in_order(
    tree: dict[str, bool], limit: int, recursive: bool, below: bool
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        start = root / "start" if below else root
        start.mkdir(exist_ok=True)
        for path, is_directory in tree.items():
            place = start / path
            if any(parent.is_file() for parent in place.parents) or place.exists():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if is_directory:
                place.mkdir()
            else:
                place.touch()
        found = start.rglob("*") if recursive else start.iterdir()
        expected = sorted(path.relative_to(root).parts for path in found)
        entries = every_page(WorkspacePaths(root), "start" if below else ".", recursive=recursive, limit=limit)
        assert [tuple(entry.path.split("/")) for entry in entries] == expected


async def test_hidden_ignored_and_odd_entries_are_listed_and_links_not_followed(files: HostFiles, root: Path) -> None:
    await files.write_file(".git/config", b"")
    await files.write_file(".gitignore", b"*.log")
    await files.write_file("x.log", b"123")
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "pipe")
    entries = (await files.list_directory(recursive=True)).entries
    assert [(entry.path, entry.kind) for entry in entries] == [
        (".git", FileKind.DIRECTORY),
        (".git/config", FileKind.FILE),
        (".gitignore", FileKind.FILE),
        ("loop", FileKind.SYMLINK),
        ("pipe", FileKind.OTHER),
        ("x.log", FileKind.FILE),
    ]
    assert entries[3].target == "."
    assert entries[5].size_bytes == 3


async def test_a_listing_through_a_link_names_the_real_paths(files: HostFiles, root: Path) -> None:
    await files.write_file("d/f", b"")
    (root / "link").symlink_to("d")
    listing = await files.list_directory("link", limit=1)
    assert [entry.path for entry in listing.entries] == ["d/f"]
    assert listing.next_after is None


async def test_a_page_goes_on_where_the_last_entry_is_gone(files: HostFiles) -> None:
    for name in ("a/1", "a/2", "b/1", "c"):
        await files.write_file(name, b"")
    page = await files.list_directory(recursive=True, limit=2)
    assert page.next_after == "a/1"
    await files.delete("a", recursive=True)
    rest = await files.list_directory(recursive=True, after=page.next_after)
    assert [entry.path for entry in rest.entries] == ["b", "b/1", "c"]


async def test_bad_listings_are_refused(files: HostFiles) -> None:
    await files.write_file("d/f", b"")
    with pytest.raises(NotADirectory):
        await files.list_directory("d/f")
    with pytest.raises(NotFound):
        await files.list_directory("missing")
    with pytest.raises(PathRefused):
        await files.list_directory("..")
    for after, limit in (("e/f", 1), (None, 0), (None, 10_000_000)):
        with pytest.raises(Rejected):
            await files.list_directory("d", after=after, limit=limit)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
async def test_what_cannot_be_read_is_an_entry_with_its_error(files: HostFiles, root: Path) -> None:
    await files.write_file("closed/f", b"")
    await files.write_file("names/f", b"")
    await files.write_file("z", b"")
    (root / "closed").chmod(0)
    (root / "names").chmod(0o444)
    try:
        entries = {entry.path: entry for entry in (await files.list_directory(recursive=True)).entries}
        assert list(entries) == ["closed", "names", "z"]
        assert entries["closed"].error == "Permission denied"
        assert entries["names"].error == "Permission denied"
        with pytest.raises(Denied):
            await files.list_directory("closed")
    finally:
        (root / "closed").chmod(0o755)
        (root / "names").chmod(0o755)


async def test_a_very_deep_tree_is_listed_and_deleted(files: HostFiles, root: Path) -> None:
    make_deep_tree(root, "deep")
    before = open_descriptors()
    listing = await files.list_directory("deep", recursive=True, limit=2 * DEPTH)
    assert len(listing.entries) == DEPTH - 1
    assert listing.entries[-1].path.count("/") == DEPTH - 1
    await files.delete("deep", recursive=True)
    assert os.listdir(root) == []
    assert open_descriptors() <= before


async def test_deleting_takes_one_thing_or_with_recursive_a_tree(files: HostFiles, root: Path) -> None:
    await files.write_file("d/sub/f", b"")
    await files.write_file("d/\udcff", b"")
    (root / "outside").mkdir()
    (root / "outside/f").touch()
    (root / "d/link").symlink_to("../outside")
    (root / "d/dangling").symlink_to("nowhere")
    os.mkfifo(root / "d/pipe")
    with pytest.raises(Conflict):
        await files.delete("d")
    await files.delete("d/link", recursive=True)
    (root / "d/link").symlink_to("../outside")
    await files.delete("d", recursive=True)
    assert os.listdir(root) == ["outside"]
    assert os.listdir(root / "outside") == ["f"]
    await files.delete("outside/f")
    await files.delete("outside")
    assert os.listdir(root) == []


@pytest.mark.parametrize("path", [".", "/workspace", "d/..", "d/../.", "link", "link/.."])
async def test_the_root_is_never_deleted(files: HostFiles, root: Path, path: str) -> None:
    await files.write_file("d/f", b"")
    (root / "link").symlink_to("..")
    if path == "link":  # the link itself may go
        await files.delete(path, recursive=True)
    else:
        with pytest.raises(PathRefused):
            await files.delete(path, recursive=True)
    assert (root / "d/f").exists()


async def test_directories_of_ours_that_we_may_not_read_are_deleted(files: HostFiles, root: Path) -> None:
    await files.write_file("d/closed/f", b"")
    await files.write_file("d/readonly/f", b"")
    await files.write_file("d/names/f", b"")
    for name, mode in (("closed", 0), ("readonly", 0o500), ("names", 0o400)):
        (root / "d" / name).chmod(mode)
    await files.delete("d", recursive=True)
    assert os.listdir(root) == []


def test_a_long_call_ends_when_nobody_waits_for_it_any_more(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/f").write_bytes(b"x")
    paths, stop = WorkspacePaths(root), Stop()
    stop.set()
    with pytest.raises(Stopped):
        delete(paths, PathLocks(), "d", stop, recursive=True)
    with pytest.raises(Stopped):
        list_entries(paths, "d", stop, recursive=True, after=None, limit=1)
    with pytest.raises(Stopped):
        read_file_lines(paths, "d/f", stop, first=1, last=None, limit_bytes=1)
    assert (root / "d/f").exists()


async def test_a_cancelled_call_has_ended_when_its_caller_goes_on() -> None:
    stop = Stop()
    running, ended = threading.Event(), threading.Event()

    def long_call() -> None:
        running.set()
        try:
            while True:
                stop.check()
        finally:
            ended.set()

    task = asyncio.create_task(in_thread(stop, long_call))
    async with asyncio.timeout(20):
        await asyncio.to_thread(running.wait)
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert ended.is_set()
