"""A directory as a tar stream: walked by descriptor, made piece by piece as it is asked for, never through a link."""

import errno
import os
import stat
from collections.abc import Generator, Iterator

from shadow.core.errors import Conflict, LimitExceeded
from shadow.core.trees import MAX_TREE_BYTES, MAX_TREE_ENTRIES
from shadow.execution.host.failures import error_from_os
from shadow.execution.host.paths import (
    MAX_SWAPS,
    Descent,
    WorkspacePaths,
    decode_path,
    keeps_changing,
    list_names,
    show_path,
)
from shadow.execution.host.reading import read_at
from shadow.execution.host.tar_reader import BLOCK_BYTES
from shadow.execution.host.threads import Stop
from shadow.execution.path_text import MAX_PATH_BYTES

PIECE_BYTES = 512 * 1024
READ_BYTES = 1024 * 1024
END = bytes(2 * BLOCK_BYTES)
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
REGULAR, SYMLINK, DIRECTORY = b"0", b"2", b"5"
"""Types of a header."""
_CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO)
"""What the system says where a name has come to stand for something else, or for nothing."""


class Packing:
    """``open``, then ``next_piece`` until it is empty; ``close`` in any case. All methods block; they raise Shadow's errors."""

    def __init__(
        self,
        paths: WorkspacePaths,
        path: str,
        *,
        max_entries: int = MAX_TREE_ENTRIES,
        max_bytes: int = MAX_TREE_BYTES,
    ) -> None:
        self._paths = paths
        self._path = path
        self._entries_left = max_entries
        self._bytes_left = max_bytes
        self._descent: Descent | None = None
        self._parts = self._archive()

    def open(self) -> None:
        fd, self._path = self._paths.open_directory(self._path)
        self._descent = Descent(fd)

    def next_piece(self, stop: Stop) -> bytes:
        """Nothing at the end."""
        parts: list[bytes] = []
        size = 0
        try:
            while size < PIECE_BYTES and (part := next(self._parts, b"")):
                stop.check()
                parts.append(part)
                size += len(part)
        except OSError as error:
            raise error_from_os(error, self._where()) from error
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise self._too_large()
        return b"".join(parts)

    def close(self) -> None:
        self._parts.close()
        if self._descent is not None:
            self._descent.close()
            self._descent = None

    @property
    def _walk(self) -> Descent:
        assert self._descent is not None
        return self._descent

    def _where(self) -> str:
        return decode_path(b"/".join((os.fsencode(self._path), *self._walk.names)))

    def _archive(self) -> Generator[bytes]:
        levels = [self._names()]  # for each directory on the way, the names still to come, last first
        while levels:
            if not levels[-1]:
                levels.pop()
                if levels:
                    self._walk.leave()
                continue
            before = len(self._walk.names)
            yield from self._entry(levels[-1].pop())
            if len(self._walk.names) > before:
                levels.append(self._names())
        yield END

    def _names(self) -> list[bytes]:
        names = list_names(self._walk.fd)
        if len(names) > self._entries_left:
            raise self._too_many()
        return sorted(names, reverse=True)

    def _entry(self, name: bytes) -> Iterator[bytes]:
        """What stands for one name; a directory is gone into. What is gone meanwhile is left out."""
        for _ in range(MAX_SWAPS):
            try:
                found = os.stat(name, dir_fd=self._walk.fd, follow_symlinks=False)
            except FileNotFoundError:
                return
            try:
                if stat.S_ISREG(found.st_mode):
                    fd = os.open(name, _OPEN_FILE, dir_fd=self._walk.fd)
                elif stat.S_ISLNK(found.st_mode):
                    target = os.readlink(name, dir_fd=self._walk.fd)
                    yield self._header(name, found, SYMLINK, target=target)
                    return
                elif stat.S_ISDIR(found.st_mode):
                    self._walk.enter(name)
                    yield self._header(None, os.fstat(self._walk.fd), DIRECTORY)
                    return
                else:
                    return
            except OSError as error:
                if error.errno in _CHANGED:
                    continue
                raise error_from_os(error, self._where() + "/" + decode_path(name)) from error
            try:
                found = os.fstat(fd)
                if stat.S_ISREG(found.st_mode):
                    yield from self._file(name, fd, found)
                    return
            finally:
                os.close(fd)
        raise keeps_changing(self._where() + "/" + decode_path(name))

    def _file(self, name: bytes, fd: int, found: os.stat_result) -> Iterator[bytes]:
        """A small file is read before its size is told; of a large one neither more nor less than was told."""
        data = read_at(fd, 0, READ_BYTES)
        size = len(data) if len(data) < READ_BYTES else max(found.st_size, READ_BYTES)
        if size > self._bytes_left:
            raise self._too_large()
        yield self._header(name, found, REGULAR, size=size)
        offset = len(data)
        while data:
            yield data
            data = read_at(fd, offset, min(READ_BYTES, size - offset)) if offset < size else b""
            offset += len(data)
        if offset < size:
            raise Conflict(
                f"{show_path(self._where() + '/' + decode_path(name))} became shorter while it was read.",
                mend="Try again when nothing writes there.",
            )
        if size % BLOCK_BYTES:
            yield bytes(BLOCK_BYTES - size % BLOCK_BYTES)

    def _header(
        self, name: bytes | None, found: os.stat_result, type_: bytes, *, size: int = 0, target: bytes = b""
    ) -> bytes:
        """Of ``name`` in the directory where the walk stands, or of that itself."""
        if not self._entries_left:
            raise self._too_many()
        self._entries_left -= 1
        path = b"/".join((*self._walk.names, *(() if name is None else (name,))))
        if len(path) > MAX_PATH_BYTES:
            raise LimitExceeded(f"{show_path(decode_path(path[:200]))}… lies too deep to be sent.")
        import tarfile  # half a MiB, which most workspaces never need

        info = tarfile.TarInfo(decode_path(path))
        info.type, info.size, info.linkname = type_, size, decode_path(target)
        info.mode = stat.S_IMODE(found.st_mode) & 0o777
        info.mtime = max(0, int(found.st_mtime))
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def _too_many(self) -> LimitExceeded:
        return LimitExceeded(f"The directory {show_path(self._path)} holds too many entries to be sent as a whole.")

    def _too_large(self) -> LimitExceeded:
        return LimitExceeded(f"The directory {show_path(self._path)} is too large to be sent as a whole.")
