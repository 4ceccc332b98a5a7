"""The local side of a copy: hostile names and links never lead a write out of its directory."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shadow.cli.local_tree import Directory, File, Link, LocalTree, Skipped, stays_within, walk
from shadow.core.errors import Conflict, PathRefused

pytestmark = pytest.mark.anyio


async def content(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.fixture
def tree(tmp_path: Path):
    tree = LocalTree(tmp_path / "target")
    yield tree
    tree.close()


async def test_a_file_is_written_with_its_parents_and_mode(tree: LocalTree):
    assert await tree.write("a/b/run.sh", content(b"#!", b"/bin/sh"), mode=0o755) == 9
    path = tree.root / "a/b/run.sh"
    assert path.read_bytes() == b"#!/bin/sh"
    assert os.access(path, os.X_OK)


async def test_special_bits_are_not_taken_over(tree: LocalTree):
    await tree.write("su", content(b"x"), mode=0o6755)
    assert (tree.root / "su").stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/out", "", ".", "a//b", "a/./b", "a\0b"])
async def test_a_name_that_leads_elsewhere_is_refused(tree: LocalTree, path: str):
    with pytest.raises(PathRefused):
        await tree.write(path, content(b"x"), mode=0o644)
    assert not (tree.root.parent / "out").exists()


async def test_a_directory_that_is_a_link_is_not_followed(tree: LocalTree, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree.root / "link").symlink_to(outside)
    with pytest.raises(PathRefused):
        await tree.write("link/file", content(b"x"), mode=0o644)
    assert not list(outside.iterdir())


async def test_a_link_in_place_of_the_file_is_replaced(tree: LocalTree, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tree.root / "file").symlink_to(outside)
    await tree.write("file", content(b"theirs"), mode=0o644)
    assert outside.read_text() == "mine"
    assert (tree.root / "file").read_text() == "theirs"


async def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tree: LocalTree):
    await tree.write("file", content(b"old"), mode=0o644)

    async def breaks() -> AsyncIterator[bytes]:
        yield b"new"
        raise ConnectionResetError

    with pytest.raises(Conflict):
        await tree.write("file", breaks(), mode=0o644)
    assert {path.name: path.read_bytes() for path in tree.root.iterdir()} == {"file": b"old"}


async def test_a_file_does_not_replace_a_directory(tree: LocalTree):
    tree.make_directory("there")
    with pytest.raises(Conflict):
        await tree.write("there", content(b"x"), mode=0o644)
    assert [path.name for path in tree.root.iterdir()] == ["there"]


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        ("a/link", "b", True),
        ("a/link", "../b", True),
        ("link", "a/b/c", True),
        ("a/b/link", "../../c", True),
        ("link", "../a", False),
        ("a/link", "../../a", False),
        ("link", "/etc/passwd", False),
        ("link", "", False),
        # Were `x` a link to a deeper or a higher place, `x/..` would not be where it seems.
        ("a/link", "x/../..", False),
        ("a/b/link", "x/../y", False),
    ],
)
def test_only_links_that_stay_within_are_taken_over(path: str, target: str, inside: bool):
    assert stays_within(path, target) is inside


def test_a_walk_names_everything_and_follows_no_link(tmp_path: Path):
    (tmp_path / "d/empty").mkdir(parents=True)
    (tmp_path / "d/file").write_bytes(b"12345")
    (tmp_path / "d/file").chmod(0o640)
    (tmp_path / "up").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    seen = {entry.path: entry for entry in walk(tmp_path)}
    for entry in seen.values():
        if isinstance(entry, File):
            os.close(entry.descriptor)
    assert set(seen) == {"d", "d/empty", "d/file", "up", "pipe", "\udcff"}
    assert isinstance(seen["d/empty"], Directory)
    assert seen["up"] == Link("up", "/etc")
    assert isinstance(seen["pipe"], Skipped)
    file = seen["d/file"]
    assert isinstance(file, File)
    assert (file.mode, file.size_bytes) == (0o640, 5)
