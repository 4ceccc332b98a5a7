"""Removing and measuring hostile trees: any depth, any mode, no symlink followed."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.execution.holder.measuring import measure_tree
from shadow.execution.local.removal import remove_tree
from tests.support.descriptors import open_descriptors

DEPTH = 3_000  # beyond the longest path, the usual limit of descriptors and that of recursion


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def make_deep(path: Path, depth: int) -> None:
    """Directories in each other, each with a file, far beyond what a path can name."""
    path.mkdir()
    here = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_deep_tree_is_removed(parent: int, tmp_path: Path) -> None:
    make_deep(tmp_path / "tree", DEPTH)
    remove_tree(parent, "tree")
    assert os.listdir(tmp_path) == []


def test_a_deep_tree_is_measured(tmp_path: Path, parent: int) -> None:
    make_deep(tmp_path / "tree", DEPTH)
    fd = os.open(tmp_path / "tree", os.O_RDONLY | os.O_DIRECTORY)
    before = open_descriptors()
    assert measure_tree(fd).size_bytes >= 0
    assert open_descriptors() <= before
    os.close(fd)
    remove_tree(parent, "tree")


def test_a_wide_tree_is_removed(parent: int, tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / "tree" / f"d{i}" / "below").mkdir(parents=True)
        for j in range(50):
            (tmp_path / "tree" / f"d{i}" / "below" / f"f{j}").touch()
    remove_tree(parent, "tree")
    assert os.listdir(tmp_path) == []


def test_modes_are_no_obstacle(parent: int, tmp_path: Path) -> None:
    closed = tmp_path / "tree" / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "file").touch(mode=0)
    closed.chmod(0)
    closed.parent.chmod(0)
    (tmp_path / "tree").chmod(0o500)
    remove_tree(parent, "tree")
    assert os.listdir(tmp_path) == []


def test_symlinks_are_not_followed(parent: int, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x" * 100_000)
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "directory").symlink_to(outside)
    (tree / "d" / "up").symlink_to("../..")
    (tree / "root").symlink_to("/")
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    assert measure_tree(fd).size_bytes < 100_000
    os.close(fd)
    remove_tree(parent, "tree")
    assert (outside / "kept").exists()
    assert not tree.exists()


def test_a_symlink_in_the_place_of_the_tree_is_refused(parent: int, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (tmp_path / "tree").symlink_to("outside")
    with pytest.raises(OSError, match="tree"):
        remove_tree(parent, "tree")
    assert (tmp_path / "outside" / "kept").exists()


def test_odd_names_and_kinds_are_removed(parent: int, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b"x" * 255, b"..."):
        os.mkdir(os.fsencode(tree) + b"/" + name)
        (Path(os.fsdecode(os.fsencode(tree) + b"/" + name)) / "file").touch()
    os.mkfifo(tree / "pipe")
    remove_tree(parent, "tree")
    assert os.listdir(tmp_path) == []


def test_files_named_last_go_last(parent: int, tmp_path: Path) -> None:
    """A removal that fails half-way leaves what tells the next one what to do."""
    tree = tmp_path / "tree"
    (tree / "files").mkdir(parents=True)
    for name in ("manifest", "lock"):
        (tree / name).touch()
    (tree / "manifest").unlink()
    (tree / "manifest").mkdir()
    (tree / "manifest" / "obstacle").touch()
    with pytest.raises(OSError, match="not empty"):
        remove_tree(parent, "tree", last=("lock", "manifest"))
    assert os.listdir(tree) == ["manifest"]


def test_many_remove_the_same_tree_at_once(parent: int, tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / "tree" / f"a{i}" / "b" / "c").mkdir(parents=True)
        (tmp_path / "tree" / f"a{i}" / "b" / "file").touch()
    failures: list[BaseException] = []

    def remove() -> None:
        try:
            remove_tree(parent, "tree", last=("manifest",))
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=remove) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(tmp_path) == []


def test_hard_links_are_measured_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    alone = measure_tree(fd)
    os.link(tmp_path / "a", tmp_path / "b")
    assert alone.size_bytes >= 1_000_000
    assert measure_tree(fd).size_bytes == alone.size_bytes
    os.close(fd)
