"""Large files that a commit has only pointers to (git-lfs): fetched into the mirror, measured and checked there.

From a remote ``lfs_batch`` fetches them: from the repository's own address, whatever its ``.lfsconfig`` says. From a directory of
this host they are copied. Nothing is run for either.
"""

import asyncio
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from shadow.core.errors import LimitExceeded, NotFound
from shadow.scm import lfs_batch
from shadow.scm.access import Access
from shadow.scm.git import Call, Progress, git
from shadow.scm.local_source import LocalSource
from shadow.scm.pointers import MAX_POINTER_BYTES, Pointer, parse_pointer
from shadow.scm.trees import LINK, MODULE, Entry

POINTERS_AT_ONCE = 16 * 1024


@dataclass(frozen=True, slots=True)
class StoredObject:
    name: str
    """In a git directory."""
    file: Path
    size_bytes: int


async def bring(
    mirror: Path,
    entries: Sequence[Entry],
    access: Access,
    *,
    limit_bytes: int,
    progress: Progress | None = None,
) -> Sequence[StoredObject]:
    """The large files of a commit whose tree has these ``entries``, sound, in the mirror's store.

    ``limit_bytes``: of all together. Raises: NotFound: the other side does not have one; LimitExceeded; and what fetching from
    a remote raises.
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
            lacking = await _missing(mirror, missing)
            if lacking:
                raise NotFound(
                    f"{len(lacking)} large files are not there, or are not what their pointers say, such as {lacking[0].oid}.",
                    mend="Run `git lfs fetch` there.",
                )
        else:
            await lfs_batch.fetch(access, missing, mirror=mirror, progress=progress)
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
