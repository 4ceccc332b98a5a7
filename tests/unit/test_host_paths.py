"""Paths: whatever a path and the links in a workspace say, nothing outside the root is met, and no descriptor is left open."""

import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import (
    Conflict,
    Denied,
    NotADirectory,
    NotAFile,
    NotFound,
    PathRefused,
    ShadowError,
    TextNotFound,
)
from shadow.execution.host.files import HostFiles
from shadow.execution.host.paths import KEPT_DESCRIPTORS, Descent, WorkspacePaths
from shadow.execution.path_text import MAX_PATH_BYTES, decode_path
from tests.support.descriptors import open_descriptors

pytestmark = pytest.mark.anyio

SHOWN = "/workspace"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/a/b/file").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"secret")
    return tmp_path / "root"


@pytest.fixture
def paths(root: Path) -> WorkspacePaths:
    return WorkspacePaths(root, shown_root=SHOWN)


def resolved(paths: WorkspacePaths, path: str, *, follow: bool = True) -> str:
    with paths.resolve(path, follow=follow) as place:
        return place.path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".", "."),
        ("./", "."),
        ("a", "a"),
        ("a/", "a"),
        ("a//b/./file", "a/b/file"),
        ("a/..", "."),
        ("a/b/..", "a"),
        ("a/b/../b/file", "a/b/file"),
        ("missing", "missing"),
        ("/workspace", "."),
        ("/workspace/a/b", "a/b"),
        ("//workspace/./a", "a"),
        ("a/ünï\udcff", "a/ünï\udcff"),
    ],
)
def test_a_path_below_the_root_is_resolved(paths: WorkspacePaths, path: str, expected: str) -> None:
    assert resolved(paths, path) == expected


def test_the_root_as_the_host_sees_it_is_accepted_too(paths: WorkspacePaths, root: Path) -> None:
    assert resolved(paths, f"{root}/a") == "a"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "..",
        "a/../..",
        "a/../../root/a",
        "/",
        "/etc/passwd",
        "/workspace/..",
        "/workspace/../etc",
        "/workspaces",
        "/work",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd",
        "a\0b",
        "\ud800",
        "n" * 256,
        "x" * (MAX_PATH_BYTES + 1),
        "a/" * 3000,
    ],
)
@pytest.mark.parametrize("create_parents", [False, True])
def test_a_path_that_leads_out_or_is_none_is_refused(paths: WorkspacePaths, path: str, create_parents: bool) -> None:
    with pytest.raises(PathRefused):
        paths.resolve(path, create_parents=create_parents)


@pytest.mark.parametrize(
    "target",
    [
        "..",
        "../outside",
        "a/../../outside",
        "/",
        "/etc",
        "/proc/self/root",
        "/proc/self/cwd",
        "/proc/self/fd/0",
        "/workspace/..",
        "link",
    ],
)
def test_a_link_that_leads_out_or_round_is_refused(paths: WorkspacePaths, root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    for path in ("link", "link/", "link/file", "a/../link", "/workspace/link"):
        with pytest.raises(PathRefused):
            paths.resolve(path)
    assert resolved(paths, "link", follow=False) == "link"


@pytest.mark.parametrize("target", ["a/b", "./a//b/", "a/../a/b", "/workspace/a/b", "second"])
def test_a_link_within_is_followed(paths: WorkspacePaths, root: Path, target: str) -> None:
    (root / "second").symlink_to("a/b")
    (root / "link").symlink_to(target)
    assert resolved(paths, "link") == "a/b"
    assert resolved(paths, "link/file") == "a/b/file"
    assert resolved(paths, "link/..") == "a"
    assert resolved(paths, "link/../../a") == "a"


def test_forty_links_are_followed_and_no_more(paths: WorkspacePaths, root: Path) -> None:
    (root / "l0").symlink_to("a")
    for number in range(1, 41):
        (root / f"l{number}").symlink_to(f"l{number - 1}")
    assert resolved(paths, "l39") == "a"
    with pytest.raises(PathRefused):
        paths.resolve("l40")


def test_links_that_multiply_end_early(paths: WorkspacePaths, root: Path) -> None:
    (root / "m0").symlink_to("/".join(["a/.."] * 800))
    for number in range(1, 30):
        (root / f"m{number}").symlink_to("/".join([f"m{number - 1}"] * 500))
    with pytest.raises(PathRefused):
        paths.resolve("m29")


def test_a_file_on_the_way_is_no_directory(paths: WorkspacePaths) -> None:
    for path in ("a/b/file/more", "a/b/file/", "a/b/file/.", "a/b/file/.."):
        with pytest.raises(NotADirectory):
            paths.resolve(path)


def test_a_missing_directory_on_the_way_is_not_found_or_made(paths: WorkspacePaths, root: Path) -> None:
    with pytest.raises(NotFound):
        paths.resolve("new/sub/file")
    assert not (root / "new").exists()
    with paths.resolve("new/sub/file", create_parents=True) as place:
        assert place.path == "new/sub/file"
        assert (root / "new/sub").is_dir()
        place.forget_parents()
    assert not (root / "new").exists()


def test_only_directories_that_were_made_are_forgotten(paths: WorkspacePaths, root: Path) -> None:
    (root / "empty").mkdir()
    (root / "empty/inner").mkdir()
    with paths.resolve("empty/new/../inner/made/file", create_parents=True) as place:
        place.forget_parents()
    assert not (root / "empty/inner/made").exists()
    assert (root / "empty/inner").is_dir()


def test_a_walk_that_fails_removes_the_directories_that_it_made(paths: WorkspacePaths, root: Path) -> None:
    with pytest.raises(PathRefused):
        paths.resolve("new/sub/" + "n" * 300 + "/file", create_parents=True)
    assert not (root / "new").exists()


def test_no_descriptor_stays_open(paths: WorkspacePaths, root: Path) -> None:
    (root / "out").symlink_to("/etc")
    (root / "loop").symlink_to("loop")
    before = open_descriptors()
    for path in ("a/b/file", "out/x", "loop", "a/b/file/x", "missing/x", "../x", "a/..", "a/" + "n" * 300):
        for follow in (True, False):
            try:
                paths.resolve(path, follow=follow).close()
            except ShadowError:
                continue
    for path in ("a", "a/b/file", "missing"):
        try:
            os.close(paths.open_directory(path)[0])
        except ShadowError:
            continue
    assert open_descriptors() <= before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every directory")
def test_a_directory_without_permission_is_denied(paths: WorkspacePaths, root: Path) -> None:
    (root / "a").chmod(0)
    try:
        with pytest.raises(Denied):
            paths.resolve("a/b/file")
    finally:
        (root / "a").chmod(0o755)


def test_a_descent_holds_few_descriptors_and_finds_its_way_back(tmp_path: Path) -> None:
    depth = 3 * KEPT_DESCRIPTORS
    before = open_descriptors()
    descent = Descent(os.open(tmp_path, os.O_PATH))
    inodes = [os.fstat(descent.fd).st_ino]
    for level in range(depth):
        name = b"%d" % level
        os.mkdir(name, dir_fd=descent.fd)
        descent.enter(name)
        inodes.append(os.fstat(descent.fd).st_ino)
        assert open_descriptors().total() <= before.total() + KEPT_DESCRIPTORS + 2
    while descent.names:
        assert os.fstat(descent.fd).st_ino == inodes.pop()
        name = descent.leave()
        os.rmdir(name, dir_fd=descent.fd)
    descent.close()
    assert open_descriptors() <= before


names = st.sampled_from(["a", "b", "c", "ü", "l", "m"])
steps = st.lists(st.one_of(names, st.sampled_from(["..", ".", ""])), min_size=1, max_size=6).map("/".join)
targets = st.one_of(steps, steps.map(lambda path: f"{SHOWN}/{path}"), steps.map(lambda path: f"/{path}"))


@given(
    directories=st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=6),
    links=st.lists(st.tuples(steps, targets.filter(bool)), max_size=6),
    asked=st.lists(targets, min_size=1, max_size=8),
    follow=st.booleans(),
)
def test_what_is_resolved_lies_below_the_root_and_is_what_the_kernel_means(
    directories: list[str], links: list[tuple[str, str]], asked: list[str], follow: bool
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(os.path.realpath(temporary)) / "root"
        root.mkdir()
        for directory in directories:
            _attempt(lambda d=directory: (root / d).mkdir(parents=True))
        for place, target in links:
            if ".." not in place.split("/") and not place.startswith("/"):
                # The kernel does not know the shown root: links hold the real one for the comparison.
                real = target.replace(SHOWN, str(root), 1) if target.startswith(SHOWN) else target
                _attempt(lambda p=place, t=real: (root / p).symlink_to(t))
        paths = WorkspacePaths(root, shown_root=SHOWN)
        before = open_descriptors()
        for path in asked:
            try:
                place = paths.resolve(path, follow=follow)
            except ShadowError:
                continue
            with place:
                parent = Path(os.readlink(f"/proc/self/fd/{place.parent}"))
                assert parent == root or root in parent.parents
                if follow and place.found is not None:
                    inside = path.removeprefix(SHOWN) if path.startswith(SHOWN) else path
                    kernel = os.stat(f"{root}/{inside}")
                    assert os.path.samestat(kernel, place.found)
                    assert not stat.S_ISLNK(place.found.st_mode)
                again = decode_path(os.fsencode(place.path))
                assert resolved(paths, again, follow=False) == place.path
        assert open_descriptors() <= before


def _attempt(call: Callable[[], object]) -> None:
    try:
        call()
    except OSError:
        return  # the random tree cannot hold this: fine


class Swapper(threading.Thread):
    """Puts a link to the outside where a directory is and back, as fast as it can."""

    def __init__(self, root: Path, outside: Path) -> None:
        super().__init__()
        self._root = root
        self._outside = outside
        self.swaps = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        directory, aside = self._root / "a", self._root / "aside"
        while not self.stopping.is_set():
            directory.rename(aside)
            directory.symlink_to(self._outside)
            directory.unlink()
            try:
                aside.rename(directory)
            except OSError:  # an operation made a directory of that name just now
                _remove_tree(directory)
                aside.rename(directory)
            self.swaps += 1


def _remove_tree(directory: Path) -> None:
    for inner, directories, files in os.walk(directory, topdown=False):
        for name in files:
            os.unlink(os.path.join(inner, name))
        for name in directories:
            os.rmdir(os.path.join(inner, name))
    directory.rmdir()


async def test_swapping_a_directory_for_a_link_never_leads_outside(root: Path) -> None:
    outside = root.parent / "outside"
    (outside / "b").mkdir()
    (outside / "b/file").write_bytes(b"secret")
    files = HostFiles(root, shown_root=SHOWN)
    before = open_descriptors()
    swapper = Swapper(root, outside)
    swapper.start()
    done = refused = rounds = 0

    async def read() -> None:
        content = (await files.read_file("a/b/file")).content
        assert b"secret" not in content

    async def read_a_link() -> None:
        assert (await files.stat("a", follow=True)).kind != "symlink"

    async def list_all() -> None:
        entries = (await files.list_directory("a", recursive=True)).entries
        assert not any(entry.path == "a/file" for entry in entries)

    operations = (
        read,
        read_a_link,
        list_all,
        lambda: files.write_file("a/b/new", b"written", create_parents=False),
        lambda: files.search_replace("a/b/file", old="secret", new="stolen"),
        lambda: files.search_replace("a/b/file", old="inside", new="inside!"),
        lambda: files.search_replace("a/b/file", old="inside!", new="inside"),
        lambda: files.make_directory("a/b/made", create_parents=False),
        lambda: files.move("a/b/new", "a/b/moved", overwrite=True),
        lambda: files.delete("a/b/made", recursive=True),
    )
    try:
        while rounds < 100 or swapper.swaps < 300 or not (done and refused):
            rounds += 1
            assert rounds < 20_000
            assert swapper.is_alive()
            for operation in operations:
                try:
                    await operation()
                    done += 1
                except (PathRefused, NotFound, NotADirectory, NotAFile, Conflict, TextNotFound):
                    refused += 1
    finally:
        swapper.stopping.set()
        swapper.join()
    assert sorted(path.name for path in outside.iterdir()) == ["b", "file"]
    assert [path.name for path in (outside / "b").iterdir()] == ["file"]
    assert (outside / "file").read_bytes() == (outside / "b/file").read_bytes() == b"secret"
    assert open_descriptors() <= before
