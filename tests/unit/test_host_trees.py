"""Trees on the host's files: any tree comes back as it was; bounds; what changes meanwhile; nothing stays open."""

import asyncio
import contextlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadow.core.errors import Conflict, LimitExceeded, NotADirectory, PathRefused, Rejected
from shadow.execution.host.packing import READ_BYTES, Packing
from shadow.execution.host.paths import LinklessPaths, WorkspacePaths
from shadow.execution.host.threads import Stop
from shadow.execution.host.trees import HostTrees
from shadow.execution.host.unpacking import Unpacking
from shadow.execution.host.writing import PathLocks
from shadow.testing.trees import archive, member, pieces
from tests.support.descriptors import open_descriptors

NAME = st.binary(min_size=1, max_size=12).filter(
    lambda n: n not in (b".", b"..") and not set(b"/\0") & set(n)
) | st.sampled_from([b"x" * 255, b"-rf", b" ", b"line\nend", "é".encode(), b"\xff\xfe", b".shadow", b"PaxHeader"])
# What nobody may read, root alone can pack.
MODES = [0o644, 0o755, 0o600, 0o400, 0o777, *([0o000] if os.geteuid() == 0 else [])]
FILE = st.tuples(st.binary(max_size=1500), st.sampled_from(MODES))
LINK = st.binary(min_size=1, max_size=200).filter(lambda target: b"\0" not in target)
TREE = st.recursive(
    FILE | LINK,
    lambda inner: st.tuples(st.dictionaries(NAME, inner, max_size=5), st.sampled_from([0o755, 0o700, 0o555])),
    max_leaves=12,
)
Tree = bytes | tuple[bytes, int] | tuple[dict[bytes, "Tree"], int]


def make(at: bytes, tree: Tree) -> None:
    match tree:
        case bytes():
            os.symlink(tree, at)
        case (bytes() as content, mode):
            with open(at, "wb") as file:
                file.write(content)
            os.chmod(at, mode)
        case (dict() as entries, mode):
            os.mkdir(at)
            for name, entry in entries.items():
                make(at + b"/" + name, entry)
            os.chmod(at, mode)


def look(at: bytes) -> object:
    found = os.lstat(at)
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(at)
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        return {name: look(at + b"/" + name) for name in os.listdir(at)}, mode
    with open(at, "rb") as file:
        return file.read(), mode


async def content(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def trees(root: Path) -> HostTrees:
    return HostTrees(root, locks=PathLocks())


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.dictionaries(NAME, TREE, max_size=6), size=st.integers(1, 3000))
def test_any_tree_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[bytes, Tree], size: int
) -> None:
    root = tmp_path_factory.mktemp("root")
    make(os.fsencode(root / "tree"), (entries, 0o755))

    async def copy() -> bytes:
        data = await content(trees(root).download("tree"))
        await trees(root).upload("copy", pieces(data, size))
        return data

    data = asyncio.run(copy())
    assert look(os.fsencode(root / "copy")) == look(os.fsencode(root / "tree"))
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        names = tar.getnames()
    assert names == sorted(names, key=lambda name: os.fsencode(name).split(b"/"))


@pytest.mark.anyio
async def test_gnu_tar_understands_us_and_we_it(tmp_path: Path) -> None:
    name = "n" * 200
    script = (
        f"mkdir -p tree/{name}/d; printf x > tree/{name}/$'caf\\xe9'; ln tree/{name}/caf* tree/hard; ln -s to tree/link; "
        "head -c 100000 /dev/urandom > tree/big; ln tree/big tree/again"
    )
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, check=True)
    (tmp_path / "ours.tar").write_bytes(await content(trees(tmp_path).download("tree")))
    subprocess.run(["bash", "-ec", "mkdir theirs; tar -xf ours.tar -C theirs"], cwd=tmp_path, check=True)
    assert look(os.fsencode(tmp_path / "theirs")) == look(os.fsencode(tmp_path / "tree"))
    for number, kind in enumerate(("gnu", "pax", "posix")):
        subprocess.run(["tar", f"--format={kind}", "-cf", "theirs.tar", "-C", "tree", "."], cwd=tmp_path, check=True)
        await trees(tmp_path).upload(f"from{number}", pieces((tmp_path / "theirs.tar").read_bytes()))
        assert look(os.fsencode(tmp_path / f"from{number}")) == look(os.fsencode(tmp_path / "tree"))


def pack(root: Path, path: str = ".", **limits: int) -> bytes:
    packing, parts = Packing(WorkspacePaths(root), path, **limits), list[bytes]()
    try:
        packing.open()
        while piece := packing.next_piece(Stop()):
            parts.append(piece)
    finally:
        packing.close()
    return b"".join(parts)


def unpack(root: Path, data: bytes, path: str = ".", **limits: int) -> None:
    unpacking = Unpacking(LinklessPaths(root), PathLocks(), path, **limits)
    try:
        unpacking.feed(data, Stop())
        unpacking.finish()
    finally:
        unpacking.close()


def test_downloads_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for number in range(10):
        (tmp_path / "d" / str(number)).write_bytes(b"x" * 1000)
    size = len(pack(tmp_path))
    assert len(pack(tmp_path, max_entries=11, max_bytes=size)) == size
    for limits in ({"max_entries": 10}, {"max_bytes": size - 1}):
        with pytest.raises(LimitExceeded):
            pack(tmp_path, **limits)
    os.truncate(tmp_path / "d/0", 1 << 42)
    with pytest.raises(LimitExceeded):  # before a byte of it is sent
        pack(tmp_path, max_bytes=1 << 40)


def test_uploads_are_bounded(tmp_path: Path) -> None:
    data = archive(member("a", b"x" * 1000), member("b", b"x" * 1000), member("c", kind=tarfile.LNKTYPE, link="a"))
    unpack(tmp_path, data, max_entries=3, max_bytes=len(data))
    for limits in ({"max_entries": 2}, {"max_bytes": len(data) - 1}):
        with pytest.raises(LimitExceeded):
            unpack(tmp_path, data, **limits)
    many = archive(member("a", b"x" * 100_000), *(member(f"l{n}", kind=tarfile.LNKTYPE, link="a") for n in range(50)))
    (tmp_path / "many").mkdir()
    with pytest.raises(LimitExceeded):  # the archive is small, what its links stand for is not
        unpack(tmp_path, many, "many", max_bytes=1_000_000)
    assert len(os.listdir(tmp_path / "many")) <= 11


def test_too_deep_is_told(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        for _ in range(50):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
    with pytest.raises(LimitExceeded):
        pack(tmp_path)
    with pytest.raises(PathRefused):
        unpack(tmp_path, archive(member("/".join(["d" * 100] * 50), b"x")))


class Meanwhile(Packing):
    """Does something to a file right after its header was made."""

    def __init__(self, root: Path, act: object) -> None:
        super().__init__(WorkspacePaths(root), ".")
        self._act = act

    def all(self) -> bytes:
        try:
            self.open()
            parts = [self.next_piece(Stop())]
            self._act()  # type: ignore[operator]
            while piece := self.next_piece(Stop()):
                parts.append(piece)
            return b"".join(parts)
        finally:
            self.close()


def entries_of(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: file.read() for info in tar.getmembers() if (file := tar.extractfile(info))}


def test_a_file_that_grows_is_cut_at_its_size_and_one_that_shrinks_fails(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * 4 * READ_BYTES)
    (tmp_path / "small").write_bytes(b"y")

    def grow() -> None:
        with large.open("ab") as file:
            file.write(b"more" * 1000)

    assert entries_of(Meanwhile(tmp_path, grow).all())["large"] == b"x" * 4 * READ_BYTES
    with pytest.raises(Conflict, match="shorter"):
        Meanwhile(tmp_path, lambda: os.truncate(large, READ_BYTES)).all()


def test_a_file_that_is_replaced_meanwhile_comes_in_one_version(tmp_path: Path) -> None:
    large, other = tmp_path / "large", tmp_path / "zz"
    large.write_bytes(b"x" * 4 * READ_BYTES)
    other.write_bytes(b"y" * 5 * READ_BYTES)
    assert entries_of(Meanwhile(tmp_path, lambda: os.replace(other, large)).all()) == {"large": b"x" * 4 * READ_BYTES}


def test_what_vanishes_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * READ_BYTES)
    (tmp_path / "b").mkdir()
    (tmp_path / "c").write_bytes(b"c")

    def vanish() -> None:
        (tmp_path / "b").rmdir()
        (tmp_path / "c").unlink()

    assert list(entries_of(Meanwhile(tmp_path, vanish).all())) == ["a"]


def test_the_last_mode_of_a_directory_counts_and_locked_ones_are_filled(tmp_path: Path) -> None:
    locked = member("d", kind=tarfile.DIRTYPE, mode=0o555)
    inner = member("d/e", kind=tarfile.DIRTYPE, mode=0o500)
    unpack(tmp_path, archive(locked, inner, member("d/e/f", b"x")))
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("d", "d/e")] == [0o555, 0o500]
    unpack(tmp_path, archive(locked, member("d/g", b"x"), member("d", kind=tarfile.DIRTYPE, mode=0o750)))
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750


@pytest.mark.anyio
async def test_nothing_stays_open_or_half_written(tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/large").write_bytes(b"x" * 5_000_000)
    data = await content(trees(tmp_path).download("tree"))
    before = open_descriptors()
    stream = trees(tmp_path).download("tree")
    await anext(stream)
    await stream.aclose()

    async def endless() -> AsyncIterator[bytes]:
        yield data[:3_000_000]
        reached.set()
        await asyncio.Event().wait()

    for turns in range(6):
        reached = asyncio.Event()
        task = asyncio.create_task(trees(tmp_path).upload("copy", endless()))
        async with asyncio.timeout(20):
            await reached.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Rejected):
            await trees(tmp_path).upload("copy", pieces(data[:-600]))
        with pytest.raises((Rejected, NotADirectory)):
            await trees(tmp_path).upload("copy", pieces(archive(member("a", b"x"), member("a/b", b"x"))))
    assert open_descriptors() <= before
    assert [name for _, _, names in os.walk(tmp_path) for name in names if name.startswith(".shadow")] == []
