"""Large files that a commit has only pointers to (git-lfs): fetched into the mirror, measured and checked there.

git-lfs of the control plane fetches from the repository's own address with the credentials of its access; settings of the
repository (``.lfsconfig``), transfer agents and other programs are off. From a directory of this host they are copied without
running anything. See git-lfs's docs/spec.md for pointers.
"""

import asyncio
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from shadow.core.errors import LimitExceeded, NotFound
from shadow.scm.access import Access
from shadow.scm.git import SLOW_S, Call, Progress, git
from shadow.scm.local_source import LocalSource
from shadow.scm.trees import LINK, MODULE, Entry

MAX_POINTER_BYTES = 1024
POINTERS_AT_ONCE = 16 * 1024
SLACK_BYTES = 1024 * 1024
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n"
)
_SETTINGS = (
    "lfs.basictransfersonly=true",
    "lfs.standalonetransferagent=",
    "lfs.fetchinclude=",
    "lfs.fetchexclude=",
    "lfs.fetchrecentalways=false",
    "lfs.skipdownloaderrors=false",
    "lfs.transfer.maxretries=3",
    "lfs.transfer.maxretrydelay=2",
)


@dataclass(frozen=True, slots=True)
class Pointer:
    oid: str
    size_bytes: int

    @property
    def name(self) -> str:
        """In a git directory."""
        return f"lfs/objects/{self.oid[:2]}/{self.oid[2:4]}/{self.oid}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    name: str
    """In a git directory."""
    file: Path
    size_bytes: int


def parse_pointer(content: bytes) -> Pointer | None:
    found = _POINTER.fullmatch(content)
    return Pointer(found[1].decode(), int(found[2])) if found else None


async def bring(
    mirror: Path,
    commit: str,
    entries: Sequence[Entry],
    access: Access,
    *,
    limit_bytes: int,
    progress: Progress | None = None,
) -> Sequence[StoredObject]:
    """The large files of ``commit``, whose tree has these ``entries``, sound, in the mirror's store.

    ``limit_bytes``: of all together. Raises: NotFound: the other side does not have one; Unsupported: git-lfs is missing;
    LimitExceeded; and what fetching from a remote raises.
    """
    pointers = await _pointers(mirror, entries)
    size = sum(pointer.size_bytes for pointer in pointers)
    if size > limit_bytes:
        raise LimitExceeded(
            f"The large files take {size} bytes; at most {limit_bytes} are allowed.",
            mend="Leave --lfs away, or raise SHADOW_REPOSITORY_LIMIT_BYTES.",
        )
    missing = await _missing(mirror, pointers)
    if missing:
        _make_room(mirror, {pointer.oid for pointer in pointers}, limit_bytes)
        if access.local is not None:
            for pointer in missing:
                await asyncio.to_thread(_copy, access.local, mirror, pointer)
        else:
            await _fetch(mirror, commit, access, max(pointer.size_bytes for pointer in missing), progress)
        lacking = await _missing(mirror, missing)
        if lacking:
            raise NotFound(
                f"{len(lacking)} large files are not there, or are not what their pointers say, such as {lacking[0].oid}.",
                mend="Run `git lfs fetch` there."
                if access.local
                else "Run `git lfs push --all` there; .lfsconfig is not followed.",
            )
    return [StoredObject(pointer.name, mirror / pointer.name, pointer.size_bytes) for pointer in pointers]


async def _pointers(repository: Path, entries: Sequence[Entry]) -> Sequence[Pointer]:
    small = list(
        dict.fromkeys(
            entry.object
            for entry in entries
            if entry.mode not in (LINK, MODULE) and 0 < (entry.size_bytes or 0) <= MAX_POINTER_BYTES
        )
    )
    found: dict[str, Pointer] = {}
    for first in range(0, len(small), POINTERS_AT_ONCE):
        call = Call(arguments=["cat-file", "--batch"], directory=repository, about="Looking for large files")
        names = "\n".join([*small[first : first + POINTERS_AT_ONCE], ""]).encode()
        for content in _contents((await git(call, stdin=names)).stdout):
            pointer = parse_pointer(content)
            if pointer is not None:
                found[pointer.oid] = pointer
    return list(found.values())


def _contents(batch: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(batch):
        head, _, _ = batch[offset : offset + 256].partition(b"\n")
        size = int(head.split()[2])
        offset += len(head) + 1
        yield batch[offset : offset + size]
        offset += size + 1


async def _missing(mirror: Path, pointers: Sequence[Pointer]) -> Sequence[Pointer]:
    """Those not in the mirror's store; what is damaged there is removed."""
    return [pointer for pointer in pointers if not await asyncio.to_thread(_is_sound, mirror / pointer.name, pointer)]


def _is_sound(path: Path, pointer: Pointer) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == pointer.size_bytes and hashlib.file_digest(file, "sha256").hexdigest() == pointer.oid:
            return True
    path.unlink()
    return False


def _make_room(mirror: Path, keep: set[str], limit_bytes: int) -> None:
    """A store above the limit forgets what this commit does not need."""
    files = [file for file in (mirror / "lfs/objects").glob("*/*/*") if file.is_file()]
    if sum(file.stat().st_size for file in files) > limit_bytes:
        for file in files:
            if file.name not in keep:
                file.unlink(missing_ok=True)


async def _fetch(mirror: Path, commit: str, access: Access, largest_bytes: int, progress: Progress | None) -> None:
    config = [*access.call.config, *_SETTINGS, f"remote.origin.url={access.address}"]
    if access.address.startswith("http"):
        base = access.address.rstrip("/")
        config.append(f"lfs.url={base}{'' if base.endswith('.git') else '.git'}/info/lfs")
    call = replace(
        access.call,
        arguments=["lfs", "fetch", "origin", commit],
        directory=mirror,
        config=config,
        timeout_s=SLOW_S,
        file_bytes=largest_bytes + SLACK_BYTES,
        about=f"{access.call.about} (large files)",
    )
    try:
        await git(call, progress=progress)
    finally:
        for left in ("cache", "incomplete", "logs", "tmp"):
            shutil.rmtree(mirror / "lfs" / left, ignore_errors=True)


def _copy(source: LocalSource, mirror: Path, pointer: Pointer) -> None:
    """What is not there, or not what the pointer says, is left out."""
    fd = _open(source, pointer)
    if fd is None:
        return
    target = mirror / pointer.name
    new = target.with_name(f"{pointer.oid}.new")
    with open(fd, "rb") as file:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1024 * 1024)
    new.rename(target)


def _open(source: LocalSource, pointer: Pointer) -> int | None:
    """The object, reached without a symbolic link: a pointer is no right to read another file of this host."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with ExitStack() as closing:
        try:
            fd = os.open(source.common_dir, flags | os.O_DIRECTORY)
            closing.callback(os.close, fd)
            owner = os.fstat(fd).st_uid
            *directories, name = pointer.name.split("/")
            for directory in directories:
                fd = os.open(directory, flags | os.O_DIRECTORY, dir_fd=fd)
                closing.callback(os.close, fd)
            file = os.open(name, flags, dir_fd=fd)
        except OSError:
            return None
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_size == pointer.size_bytes and found.st_uid == owner:
            return file
        os.close(file)
        return None
