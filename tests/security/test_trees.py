"""Archives made to do harm, against an executor without a wall: the judge is a directory outside and what the kernel shows."""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from shadow.core.errors import LimitExceeded, PathRefused, Rejected, ShadowError
from shadow.execution.host.executor import open_host
from shadow.execution.interface import ToolExecutor
from shadow.testing.trees import archive, member, pieces
from tests.security.test_paths import Swapper, fingerprint

pytestmark = pytest.mark.anyio

SECRET = b"the-secret-of-the-canary"
RACE_S = 1.5


@dataclass(frozen=True)
class Place:
    executor: ToolExecutor
    root: Path
    outside: Path


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    outside, root = tmp_path / "outside", tmp_path / "files"
    (outside / "sub").mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    (outside / "sub/secret").write_bytes(SECRET)
    root.mkdir()
    async with open_host(root, tmp_path / "state") as executor:
        yield Place(executor, root, outside)


async def content(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


SLIPS = [
    "../outside/secret", "x/../../outside/secret", "{out}/secret", "/{out}/secret", "./../outside/secret", "..", "../", "/", "//",
    "x/..", ".//..//outside/secret", "\0/../outside", "a\0b", "link/secret", "link/sub/secret", "chain/secret",
    "up/outside/secret",
    "dotdot/../outside/secret", "link/../outside/secret", "..\0", "link/.", "link/",
]  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("brought", [True, False])
@pytest.mark.parametrize("by_pax", [True, False])
async def test_no_name_slips_out(kind: bytes, brought: bool, by_pax: bool, place: Place) -> None:
    links = {"link": str(place.outside), "chain": "link", "up": "..", "dotdot": "../."}
    if not brought:
        for name, target in links.items():
            (place.root / name).symlink_to(target)
    before = fingerprint(place.outside)
    for slip in SLIPS:
        name = slip.format(out=place.outside)
        info, _ = member("x" if by_pax else name.replace("\0", "?"), b"", kind=kind, link="first", mode=0o777)
        if by_pax:
            info.pax_headers = {"path": name}
        first = [member("first", b"evil")]
        ways = [member(way, kind=tarfile.SYMTYPE, link=target) for way, target in links.items()] if brought else []
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for one, data in [*first, *ways, (info, b"")]:
                tar.addfile(one, io.BytesIO(data))
        with suppress(ShadowError):
            await place.executor.upload_tree(".", pieces(file.getvalue()))
        assert fingerprint(place.outside) == before, f"{name!r} changed what is outside"
    assert set(os.listdir(place.root.parent)) == {"files", "outside", "state"}
    assert not [path for path in place.root.rglob("*") if path.is_symlink() and "evil" in os.readlink(path)]


async def test_hard_links_take_nothing_from_outside(place: Place) -> None:
    (place.root / "way").symlink_to(place.outside)
    (place.root / "direct").symlink_to(place.outside / "secret")
    (place.root / "own").write_bytes(b"own")
    brought = [
        member("in", kind=tarfile.SYMTYPE, link=str(place.outside / "secret")),
        member("f", b"x"),
        member("f", kind=tarfile.SYMTYPE, link=str(place.outside / "secret")),
        member("d/f", b"x"),
        member("e", kind=tarfile.SYMTYPE, link=str(place.outside)),
    ]
    for target in (
        "../outside/secret",
        "way/secret",
        "direct",
        "own",
        "in",
        "f",
        "d/../f",
        "e/secret",
        str(place.outside / "secret"),
        "",
        ".",
    ):
        with pytest.raises((Rejected, PathRefused)):
            await place.executor.upload_tree(
                ".", pieces(archive(*brought, member("stolen", kind=tarfile.LNKTYPE, link=target)))
            )
        assert not (place.root / "stolen").exists()
    for path in place.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET not in path.read_bytes()
    assert (place.outside / "secret").stat().st_nlink == 1


async def test_an_upload_is_not_raced_out(place: Place) -> None:
    """A directory that the archive writes to is exchanged for a link to the outside and back, as fast as can be."""
    (place.root / "way").mkdir()
    (place.root / "other").symlink_to(place.outside)
    before = fingerprint(place.outside)
    data = archive(
        member("way", kind=tarfile.DIRTYPE, mode=0o711),
        member("way/secret", b"evil" * 1000),
        member("way/sub", kind=tarfile.DIRTYPE, mode=0o511),
        member("way/sub/secret", b"evil"),
        member("way/evil", kind=tarfile.SYMTYPE, link="x"),
        member("way/copy", kind=tarfile.LNKTYPE, link="way/secret"),
    )
    swapper = Swapper(place.root / "way", place.root / "other")
    swapper.start()
    end, whole = time.monotonic() + RACE_S, 0
    try:
        while time.monotonic() < end or not whole:
            with suppress(ShadowError):
                await place.executor.upload_tree(".", pieces(data, 512))
                whole += 1
    finally:
        swapper.stopping.set()
        swapper.join()
    assert swapper.swaps > 100
    assert fingerprint(place.outside) == before
    for path in place.root.rglob("*"):
        assert path.is_symlink() or not path.is_file() or SECRET not in path.read_bytes()


async def test_a_download_is_not_raced_out(place: Place) -> None:
    (place.root / "tree/way/sub").mkdir(parents=True)
    for name in ("secret", "sub/secret"):
        (place.root / "tree/way" / name).write_bytes(b"inside")
    (place.root / "other").symlink_to(place.outside)
    swapper = Swapper(place.root / "tree/way", place.root / "other")
    swapper.start()
    end, whole = time.monotonic() + RACE_S, 0
    try:
        while time.monotonic() < end or not whole:
            try:
                data = await content(place.executor.download_tree("tree"))
            except ShadowError:
                continue
            whole += 1
            assert SECRET not in data
    finally:
        swapper.stopping.set()
        swapper.join()
    assert swapper.swaps > 100


async def test_files_swapped_for_links_and_pipes_are_not_read_through(place: Place) -> None:
    """Names exchanged between a file, a link to a secret and a pipe that nobody writes to: nothing leaks, nothing hangs."""
    (place.root / "tree").mkdir()
    (place.root / "tree/file").write_bytes(b"inside")
    (place.root / "link").symlink_to(place.outside / "secret")
    os.mkfifo(place.root / "pipe")
    swappers = [Swapper(place.root / "tree/file", place.root / name) for name in ("link", "pipe")]
    for swapper in swappers:
        swapper.start()
    end = time.monotonic() + RACE_S
    try:
        while time.monotonic() < end:
            with suppress(ShadowError):
                assert SECRET not in await content(place.executor.download_tree("tree"))
    finally:
        for swapper in swappers:
            swapper.stopping.set()
            swapper.join()


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT if size >= 8**11 else tarfile.USTAR_FORMAT)


async def endless(head: bytes, piece: bytes, fed: list[int]) -> AsyncIterator[bytes]:
    yield head
    while True:
        fed[0] += len(piece)
        yield piece


BOMBS = {
    "a pax header without end": (header(tarfile.XHDTYPE, 1 << 32), b"x" * 65536),
    "a global header without end": (header(tarfile.XGLTYPE, 1 << 32), b"x" * 65536),
    "a long name without end": (header(tarfile.GNUTYPE_LONGNAME, 1 << 32), b"x" * 65536),
    "a file of exabytes": (header(tarfile.REGTYPE, 1 << 60), b"x" * 65536),
}


@pytest.mark.parametrize("what", BOMBS)
async def test_bombs_are_refused_before_they_are_fed(what: str, place: Place) -> None:
    fed = [0]
    with pytest.raises(LimitExceeded):
        await place.executor.upload_tree(".", endless(*BOMBS[what], fed))
    assert fed[0] <= 4 * 1024 * 1024
    assert os.listdir(place.root) == []


_MEASURED = """
import asyncio, resource, sys
from pathlib import Path
from shadow.execution.host.trees import HostTrees
from shadow.execution.host.writing import PathLocks
sys.path.insert(0, sys.argv[2])
from shadow.testing.trees import member
import tarfile
def entry(name, content=b"", **fields):
    info, content = member(name, content, **fields)
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)
async def bomb():
    kind = sys.argv[3]
    if kind == "pax":
        record = b"262100 comment=" + b"x" * (262100 - 16) + b"\\n"
        info = tarfile.TarInfo("p"); info.type = tarfile.XHDTYPE; info.size = len(record)
        one = info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)
        for _ in range(1000):
            yield one
        yield entry("last")
    elif kind == "names":
        for number in range(20000):
            yield entry("d" * 200 + "/" + "n" * 50 + str(number % 7), b"x")
    else:
        for number in range(20000):
            yield entry("d/" + "x" * 200 + str(number), kind=tarfile.DIRTYPE, mode=0)
    yield bytes(1024)
async def main():
    trees = HostTrees(Path(sys.argv[1]), locks=PathLocks())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await trees.upload(".", bomb())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["pax", "names", "modes"])
async def test_memory_does_not_grow_with_an_archive(kind: str, tmp_path: Path) -> None:
    """256 MB of extended headers, 20000 entries with long names: a few megabytes."""
    argv = [sys.executable, "-c", _MEASURED, str(tmp_path), os.getcwd(), kind]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 48 * 1024, "kibibytes more than before"


async def test_a_full_disk_is_a_limit_and_leaves_no_part(tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        async with open_host(root, tmp_path / "state") as executor:
            data = archive(member("d/first", b"x" * 100_000), member("d/second", b"y" * 3_000_000))
            with pytest.raises(LimitExceeded):
                await executor.upload_tree("target", pieces(data))
        assert os.listdir(root / "target/d") == ["first"]
    finally:
        subprocess.run(["umount", str(root)], check=True)


HOSTILE_NAMES = [
    "-rf", "--", "$(touch evil)", "`touch evil`", "a;touch evil", "line\nend", "\r", "\x1b]52;c;ZXZpbA==\x07", "\u202egpj.exe",
    ".git/hooks/post-checkout", "PaxHeaders/x", "././@LongLink", "@PaxHeader", "%2e%2e/x", "..%2fx", "…/x", "...", "C:\\x",
    "~root/x", " ", "x ", "NUL", "\udcff\udcfe", "a" * 255, "b" * 99, "c" * 100, "d" * 101, "/".join(["e" * 154, "f" * 100]),
]  # fmt: skip


async def test_hostile_names_name_just_what_they_say(place: Place) -> None:
    for name in HOSTILE_NAMES:
        if name != "./.":
            await place.executor.upload_tree(
                "in", pieces(archive(member(name, name.encode("utf-8", "surrogateescape"))))
            )
    raw = os.fsencode(place.root / "in")
    for name in HOSTILE_NAMES:
        assert Path(os.fsdecode(raw), name).read_bytes() == os.fsencode(name)
    await place.executor.upload_tree("out", place.executor.download_tree("in"))
    assert subprocess.run(["diff", "-r", "in", "out"], cwd=place.root, check=False).returncode == 0
    assert not list(place.root.rglob("evil"))


async def test_the_mode_of_the_target_itself_cannot_be_taken_away(place: Place) -> None:
    for name in (".", "./", "./."):
        await place.executor.upload_tree(".", pieces(archive(member(name, kind=tarfile.DIRTYPE, mode=0))))
    assert place.root.stat().st_mode & 0o700 == 0o700


async def test_uploads_at_once_leave_each_file_whole(place: Place) -> None:
    contents = [bytes([65 + number]) * 300_000 for number in range(6)]
    seen, done = set[bytes](), threading.Event()

    def look() -> None:
        while not done.is_set():
            with suppress(FileNotFoundError):
                data = (place.root / "d/f").read_bytes()
                seen.add(
                    bytes({data[0], data[-1]}) if len(data) == 300_000 and len(set(data[::1000])) == 1 else b"torn"
                )

    looker = threading.Thread(target=look)
    looker.start()
    try:
        async with asyncio.TaskGroup() as group:
            for data in contents:
                group.create_task(place.executor.upload_tree(".", pieces(archive(member("d/f", data)))))
    finally:
        done.set()
        looker.join()
    assert b"torn" not in seen
    assert (place.root / "d/f").read_bytes() in contents
