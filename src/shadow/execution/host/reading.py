"""Reading regular files: by bytes, by lines, in pieces. Never opens anything that could block."""

import errno
import os
import stat
from dataclasses import replace

from shadow.core.errors import NotAFile, NotFound
from shadow.core.files import FileContent, FileLines
from shadow.execution.host.failures import error_from_os
from shadow.execution.host.paths import MAX_SWAPS, Place, WorkspacePaths, keeps_changing, show_path
from shadow.execution.host.threads import Stop
from shadow.execution.host.versions import Reading
from shadow.execution.lines import LineCutter, check_range

PIECE_BYTES = 1024 * 1024


class OpenFile:
    """A regular file, open for reading. ``open`` and ``close`` are apart so that a cancelled opening leaks nothing."""

    def __init__(self, paths: WorkspacePaths, path: str) -> None:
        self._paths = paths
        self._asked = path
        self._fd = -1
        self.path = path
        self.size_bytes = 0
        """At the time of opening."""

    def open(self) -> None:
        """Raises: NotFound, NotAFile, Conflict and what ``resolve`` raises."""
        for _ in range(MAX_SWAPS):
            with self._paths.resolve(self._asked) as place:
                fd = open_regular(place, self._asked)
                if fd is not None:
                    self._fd, self.path, self.size_bytes = fd, place.path, os.fstat(fd).st_size
                    return
        raise keeps_changing(self._asked)

    def read(self, offset: int, size: int) -> bytes:
        """Fewer than ``size`` bytes only at the end of the file."""
        return read_at(self._fd, offset, size)

    def reading(self) -> Reading:
        """Begin to watch which version is read from now on."""
        return Reading(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "OpenFile":
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Fewer than ``size`` bytes only at the end of the file."""
    data = os.pread(fd, size, offset)
    if len(data) == size or not data:
        return data
    pieces = [data]
    missing = size - len(data)
    while missing and (data := os.pread(fd, missing, offset + size - missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


def open_regular(place: Place, asked: str) -> int | None:
    """A descriptor for reading the regular file at ``place``; ``None`` where a link was swapped in since it was resolved.

    Raises: NotFound, NotAFile, Denied, ….
    """
    if place.found is None:
        raise NotFound(f"{show_path(asked)} is not there.")
    check_regular(place.found, asked)
    try:
        # O_NONBLOCK: if a pipe is swapped in now, nothing hangs.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(place.name, flags, dir_fd=place.parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise error_from_os(error, asked) from error
    try:
        check_regular(os.fstat(fd), asked)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_regular(found: os.stat_result, asked: str) -> None:
    """Raises: NotAFile."""
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise NotAFile(f"{show_path(asked)} is a directory.", mend="List it, or name a file in it.")
    raise NotAFile(f"{show_path(asked)} is no regular file but a pipe, a socket or a device.")


def read_content(paths: WorkspacePaths, path: str, *, offset: int, limit_bytes: int) -> FileContent:
    check_range(offset=offset, limit_bytes=limit_bytes)
    with OpenFile(paths, path) as file:
        reading = file.reading()
        size = max(0, min(limit_bytes, file.size_bytes - offset))
        content = file.read(offset, size) if size else b""
        return FileContent(
            path=file.path, content=content, offset=offset, size_bytes=file.size_bytes, version=reading.version()
        )


def read_file_lines(
    paths: WorkspacePaths, path: str, stop: Stop, *, first: int, last: int | None, limit_bytes: int
) -> FileLines:
    cutter = LineCutter(first=first, last=last, limit_bytes=limit_bytes)
    with OpenFile(paths, path) as file:
        reading = file.reading()
        offset = 0
        while offset < file.size_bytes:  # no further: a log that grows meanwhile would never end
            stop.check()
            piece = file.read(offset, min(PIECE_BYTES, file.size_bytes - offset))
            if not piece:
                break
            cutter.feed(piece)
            offset += len(piece)
        return replace(cutter.result(file.path), version=reading.version())
