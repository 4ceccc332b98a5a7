"""Paths that lead out, in every parameter of every operation, where no wall stands but the check of paths.

The executor runs without a sandbox, as whoever runs the tests: what it reaches outside it could change. The judge is a
directory outside with a canary in it, and what the operations answer.
"""

import ctypes
import hashlib
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec
from shadow.core.errors import NotARepository, NotFound, PathRefused, ShadowError
from shadow.core.git import GitPerson
from shadow.core.search import GrepQuery
from shadow.execution.host.executor import open_host
from shadow.execution.interface import ToolExecutor
from shadow.execution.streams import closing
from shadow.testing.trees import archive, member
from tests.support.git_servers import make_repository

pytestmark = pytest.mark.anyio

SECRET = "the-secret-of-the-canary"
AT_FDCWD, RENAME_EXCHANGE = -100, 2
RACE_S = 0.5
AGENT = GitPerson(name="Agent", email="agent@example.org")


@dataclass(frozen=True)
class Place:
    executor: ToolExecutor
    root: Path
    outside: Path


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    outside = make_repository(tmp_path / "outside", {"secret": SECRET.encode(), "sub/secret": SECRET.encode()})
    (outside / "secret").write_text(SECRET + " changed")
    root = make_repository(tmp_path / "files", {"own": b"own", "dir/file": b"inside"})
    async with open_host(root, tmp_path / "state") as executor:
        yield Place(executor, root, outside)


def fingerprint(directory: Path) -> str:
    """Of names, kinds, modes, times and contents of everything in it."""
    digest = hashlib.sha256()
    for parent, directories, files in os.walk(directory):
        for name in sorted([*directories, *files]):
            path = Path(parent, name)
            status = path.lstat()
            digest.update(f"{path}\0{status.st_mode}\0{status.st_ino}\0{status.st_mtime_ns}\0".encode())
            if path.is_file() and not path.is_symlink():
                digest.update(path.read_bytes())
    return digest.hexdigest()


async def joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def first(events: AsyncIterator[object]) -> object:
    async with closing(events):
        return await anext(events)


async def evil_tree() -> AsyncIterator[bytes]:
    yield archive(member("evil", b"evil"), member("secret", b"evil"), member("sub/secret", b"evil"))


Call = Callable[[ToolExecutor, str], Awaitable[object]]
FILES: Mapping[str, Call] = {
    "stat": lambda e, p: e.stat(p),
    "read_file": lambda e, p: e.read_file(p),
    "read_lines": lambda e, p: e.read_lines(p),
    "stream_file": lambda e, p: joined(e.stream_file(p)),
    "write_file": lambda e, p: e.write_file(p, b"evil"),
    "write_file exclusive": lambda e, p: e.write_file(f"{p}/evil", b"evil", exclusive=True),
    "search_replace": lambda e, p: e.search_replace(p, old="secret", new="evil"),
    "make_directory": lambda e, p: e.make_directory(f"{p}/evil/deep"),
    "move from": lambda e, p: e.move(f"{p}/secret", "stolen", overwrite=True),
    "move to": lambda e, p: e.move("own", f"{p}/secret", overwrite=True),
    "delete": lambda e, p: e.delete(f"{p}/secret", recursive=True),
    "list_directory": lambda e, p: e.list_directory(p, recursive=True),
    "download_tree": lambda e, p: joined(e.download_tree(p)),
    "upload_tree": lambda e, p: e.upload_tree(p, evil_tree()),
    "upload_tree below": lambda e, p: e.upload_tree(f"{p}/sub", evil_tree()),
    "watch": lambda e, p: first(e.watch(p)),
    "grep": lambda e, p: e.grep(GrepQuery(pattern="secret", path=p, include_ignored=True)),
    "search_files": lambda e, p: e.search_files("secret", path=p),
}
OTHERS: Mapping[str, Call] = {
    "start": lambda e, p: e.start(CommandSpec(argv=("touch", "evil"), cwd=p)),
    "run": lambda e, p: e.run(CommandSpec(argv=("cat", "secret"), cwd=p)),
    "git_status": lambda e, p: e.git_status(p),
    "git_diff": lambda e, p: e.git_diff(p),
    "git_diff paths": lambda e, p: e.git_diff(".", paths=[p]),
    "git_file_changes": lambda e, p: e.git_file_changes(p),
    "git_log": lambda e, p: e.git_log(p),
    "git_branches": lambda e, p: e.git_branches(p),
    "git_create_branch": lambda e, p: e.git_create_branch("evil", p, checkout=True),
    "git_checkout": lambda e, p: e.git_checkout("HEAD", p),
    "git_commit": lambda e, p: e.git_commit("evil", p, author=AGENT),
    "git_commit paths": lambda e, p: e.git_commit("evil", ".", author=AGENT, paths=[p]),
}

LITERAL = ("git_diff paths", "git_commit paths")
"""A link that is named there is itself meant."""

# {out}: the directory outside; {root}: the workspace's. Links are made by ``plant``.
WAYS_OUT = [
    "..", "../", "../outside", "../outside/sub/..", "dir/../../outside", "./../outside", "dir/./../../outside",
    "dir//..//../outside",
    "{out}", "{out}/", "/{out}", "//{out}", "{root}/../outside", "{root}/dir/../../outside", "/proc/self/root{out}",
    "/proc/self/cwd/../outside", "/dev/fd/../../..{out}", "{root}x/../outside", "missing/../../outside", "../files/../outside",
    "absolute", "relative", "chain3", "dir/up/outside", "absolute/sub", "absolute/.", "absolute/../outside", "magic{out}",
    "cwd/../outside", "dotdot/outside", "loop/../../outside",
    "~/../outside", "$PWD/../outside", "..\\outside", "%2e%2e/outside", "..%2foutside", "\u2025/outside", "\uff0e\uff0e/outside",
    "..\u200b/outside", "../outside\0", "..\0/outside", "../outside\n", " ../outside", ".. /outside", "file:///{out}",
    "\\..\\outside",
    ":(top)../outside", ":/../outside", "--git-dir={out}/.git", "-C{out}", "{out}\udcff",
    "../outside/.git/../secret", "../outside/secret",
    "absolute/secret", "hard/../../outside",
]  # fmt: skip


def plant(place: Place) -> None:
    root, out = place.root, place.outside
    (root / "absolute").symlink_to(out)
    (root / "relative").symlink_to("../outside")
    for number, target in enumerate(("absolute", "chain0", "dir/../chain1", "./chain2")):
        (root / f"chain{number}").symlink_to(target)
    (root / "dir/up").symlink_to("../..")
    (root / "dotdot").symlink_to("..")
    (root / "magic").symlink_to("/proc/self/root")
    (root / "cwd").symlink_to("/proc/self/cwd")
    (root / "loop").symlink_to("loop")


@pytest.mark.parametrize("name", [*FILES, *OTHERS])
async def test_no_way_out_in_any_parameter(name: str, place: Place) -> None:
    call = {**FILES, **OTHERS}[name]
    plant(place)
    before = fingerprint(place.outside)
    for way in WAYS_OUT:
        path = way.format(out=place.outside, root=place.root)
        try:
            answer = await call(place.executor, path)
        except ShadowError:
            answer = None
        assert SECRET not in str(answer), f"{name} of {path!r} shows what is outside"
        assert fingerprint(place.outside) == before, f"{name} of {path!r} changed what is outside"
    assert set(os.listdir(place.root.parent)) == {"files", "outside", "state"}
    assert not (place.root / "stolen").exists() or SECRET not in (place.root / "stolen").read_text()


@pytest.mark.parametrize("way", ["../outside", "{out}", "absolute", "dir/up/outside", "/proc/self/root{out}"])
async def test_a_plain_way_out_is_refused_as_such(way: str, place: Place) -> None:
    plant(place)
    path = way.format(out=place.outside, root=place.root)
    for name, call in {**FILES, **OTHERS}.items():
        if name in LITERAL and way in ("absolute", "dir/up/outside"):
            continue
        with pytest.raises(PathRefused if not name.startswith("git_") else (PathRefused, NotARepository, NotFound)):
            await call(place.executor, path)


class Swapper(threading.Thread):
    """Exchanges a directory and a link to the outside, in one step, as fast as it can."""

    def __init__(self, directory: Path, link: Path) -> None:
        super().__init__(daemon=True)
        self._paths = (os.fsencode(directory), os.fsencode(link))
        self.stopping = threading.Event()
        self.swaps = 0

    def run(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        while not self.stopping.is_set():
            self.swaps += libc.renameat2(AT_FDCWD, self._paths[0], AT_FDCWD, self._paths[1], RENAME_EXCHANGE) == 0


RACES: Mapping[str, Call] = {
    **{
        name: call
        for name, call in FILES.items()
        if name not in ("move from", "move to", "write_file", "search_replace")
    },
    "write_file": lambda e, p: e.write_file(f"{p}/secret", b"evil"),
    "read_file": lambda e, p: e.read_file(f"{p}/secret"),
    "read_lines": lambda e, p: e.read_lines(f"{p}/sub/secret"),
    "stream_file": lambda e, p: joined(e.stream_file(f"{p}/sub/../secret")),
    "stat": lambda e, p: e.stat(f"{p}/secret"),
    "search_replace": lambda e, p: e.search_replace(f"{p}/secret", old=SECRET, new="evil"),
    "move from": lambda e, p: e.move(f"{p}/secret", "stolen", overwrite=True),
    "move to": lambda e, p: e.move("own", f"{p}/secret", overwrite=True),
    "delete recursively": lambda e, p: e.delete(f"{p}/sub", recursive=True),
}


@pytest.mark.parametrize("name", RACES)
async def test_no_operation_is_raced_out(name: str, place: Place) -> None:
    (place.root / "way").mkdir()
    (place.root / "other").symlink_to(place.outside)
    before = fingerprint(place.outside)
    swapper = Swapper(place.root / "way", place.root / "other")
    swapper.start()
    end = time.monotonic() + RACE_S
    try:
        while time.monotonic() < end:
            for ours in {"secret", "sub/secret"}:
                with suppress(ShadowError):
                    await place.executor.write_file(f"way/{ours}", b"inside")
            with suppress(ShadowError):
                await place.executor.write_file("own", b"own")
            try:
                answer = await RACES[name](place.executor, "way")
            except ShadowError:
                continue
            assert SECRET not in str(answer)
    finally:
        swapper.stopping.set()
        swapper.join()
    assert swapper.swaps > 100
    assert fingerprint(place.outside) == before
    assert not (place.root / "stolen").exists() or SECRET not in (place.root / "stolen").read_text()
