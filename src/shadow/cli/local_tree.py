"""The local side of a copy: reads without following symlinks, writes only beneath one directory, by descriptor."""

import errno
import os
import secrets
import stat
from asyncio import to_thread
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from shadow.core.errors import Conflict, Denied, LimitExceeded, NotFound, PathRefused, ShadowError

PIECE_BYTES = 256 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Directory:
    path: str


@dataclass(frozen=True, slots=True)
class File:
    """Who takes it closes ``descriptor``."""

    path: str
    descriptor: int
    mode: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Link:
    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Skipped:
    path: str
    reason: str


def walk(root: Path) -> Iterator[Directory | File | Link | Skipped]:
    """Everything below ``root``, directories before what they hold, with paths relative to it."""
    faults: list[OSError] = []
    for directory, names, files, descriptor in os.fwalk(root, onerror=faults.append):
        for name in sorted(names + files):
            path = os.path.relpath(os.path.join(directory, name), root)
            try:
                yield _entry(name, path, descriptor)
            except OSError as error:
                yield Skipped(path, error.strerror or str(error))
        names.sort()
    for fault in faults:
        yield Skipped(os.path.relpath(os.fsdecode(fault.filename or ""), root), fault.strerror or str(fault))


def _entry(name: str, path: str, parent: int) -> Directory | File | Link | Skipped:
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode):
        return Directory(path)
    if stat.S_ISLNK(mode):
        return Link(path, os.readlink(name, dir_fd=parent))
    if not stat.S_ISREG(mode):
        return Skipped(path, "neither a file nor a directory nor a symlink")
    return open_file(path, name, parent=parent)


def open_file(path: str, name: str, *, parent: int | None = None) -> File | Skipped:
    """Open a file for reading; with ``parent`` a symlink that took its place meanwhile is not followed."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if parent is not None else 0)
    descriptor = os.open(name, flags, dir_fd=parent)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return Skipped(path, "not a file any more")
    return File(path, descriptor, stat.S_IMODE(status.st_mode) & 0o777, status.st_size)


async def pieces(file: File, first: bytes) -> AsyncIterator[bytes]:
    """``first``, which was read already, and the rest."""
    yield first
    while piece := await to_thread(os.read, file.descriptor, PIECE_BYTES):
        yield piece


def stays_within(path: str, target: str) -> bool:
    """Whether a symlink at ``path`` that holds ``target`` can only lead to places beneath the root of ``path``.

    ``..`` may only stand in front: there it climbs real directories, behind a name it might climb from another symlink.
    """
    parts = target.split("/")
    climbs = 0
    while climbs < len(parts) and parts[climbs] in ("..", "."):
        climbs += 1
    up = parts[:climbs].count("..")
    return bool(target) and not target.startswith("/") and up <= path.count("/") and ".." not in parts[climbs:]


class LocalTree:
    """Writes beneath ``root``, a directory that is made where it is missing. Symlinks below it are never followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(exist_ok=True)
            self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise typed(error, str(root)) from error

    def close(self) -> None:
        os.close(self._descriptor)

    def make_directory(self, path: str) -> None:
        os.close(self._open(_names(path)))

    def link(self, path: str, target: str) -> None:
        """Put a symlink in place of what is there, unless that is a directory."""
        *parents, name = _names(path)
        parent = self._open(parents)
        beside = _beside(name)
        try:
            os.symlink(target, beside, dir_fd=parent)
            _put(beside, name, parent)
        except OSError as error:
            raise typed(error, str(self.root / path)) from error
        finally:
            os.close(parent)

    async def write(self, path: str, content: AsyncIterable[bytes], *, mode: int) -> int:
        """Replace a file as a whole, or not at all; a symlink there is replaced, not followed. Returns its size."""
        *parents, name = _names(path)
        parent, beside, size = self._open(parents), _beside(name), 0
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(beside, flags, mode & 0o777, dir_fd=parent)
            try:
                async for piece in content:
                    size += await to_thread(_write_all, descriptor, piece)
                _put(beside, name, parent)
            except BaseException:
                _remove(beside, parent)
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            raise typed(error, str(self.root / path)) from error
        finally:
            os.close(parent)
        return size

    def _open(self, names: list[str]) -> int:
        """A descriptor of a directory, made with its parents where they are missing."""
        current = os.dup(self._descriptor)
        for name in names:
            try:
                try:
                    inner = os.open(name, _DIRECTORY, dir_fd=current)
                except FileNotFoundError:
                    os.mkdir(name, dir_fd=current)
                    inner = os.open(name, _DIRECTORY, dir_fd=current)
            except OSError as error:
                raise typed(error, str(self.root.joinpath(*names))) from error
            finally:
                os.close(current)
            current = inner
        return current


def _names(path: str) -> list[str]:
    """The names of a path that came out of a workspace. Raises: PathRefused: it could lead elsewhere."""
    names = path.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise PathRefused(f"{path!r} is no name for something below a directory.")
    return names


def _beside(name: str) -> str:
    return f".{os.fsdecode(os.fsencode(name)[:200])}.{secrets.token_hex(4)}"


def _put(beside: str, name: str, parent: int) -> None:
    try:
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError:
        _remove(beside, parent)
        raise


def _remove(name: str, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _write_all(descriptor: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)


def typed(error: OSError, path: str) -> ShadowError:
    """The typed error for what the operating system said about a local path."""
    message = f"{path!r} on this host: {error.strerror or error}."
    match error.errno:
        case errno.ENOENT:
            return NotFound(message)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Denied(message, mend="Check its permissions.")
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return LimitExceeded(message, mend="Make room, then copy again.")
        case errno.ELOOP | errno.ENOTDIR:
            return PathRefused(
                message, mend="A symlink or a file stands where a directory must be; it is not followed."
            )
        case _:
            return Conflict(message)
