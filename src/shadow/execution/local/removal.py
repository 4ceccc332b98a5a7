"""Remove and measure trees that hostile code has made: by descriptor, without recursion, never through a symlink."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from shadow.core.errors import LimitExceeded

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_ENTRIES_MEASURED = 20_000_000
_BATCH = 1000


def remove_tree(parent_fd: int, name: str, *, last: Sequence[str] = ()) -> None:
    """Remove the directory ``name`` below ``parent_fd``, the files named in ``last`` only when all else is gone.

    A directory that is not empty is moved up to the top before its turn comes, so that depth costs nothing: neither
    descriptors nor long paths. What is missing is fine: another process may be removing the same tree.
    """
    top = _open_directory(parent_fd, name)
    if top is None:
        return
    try:
        while names := _some_names(top, leave=last):
            for entry in names:
                if _remove_entry(top, entry):
                    continue
                directory = _open_directory(top, entry)
                if directory is None:
                    continue
                try:
                    _empty(directory, top)
                finally:
                    os.close(directory)
                _remove_entry(top, entry)
        for entry in last:
            _remove_entry(top, entry)
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=parent_fd)


def _some_names(directory: int, *, leave: Sequence[str]) -> list[str]:
    with os.scandir(directory) as entries:
        names = (entry.name for entry in entries if entry.name not in leave)
        return [name for _, name in zip(range(_BATCH), names, strict=False)]


def _empty(directory: int, top: int) -> None:
    """Remove what can be removed at once, which also makes room on a full disk, and move full directories to the top."""
    while True:
        full: list[str] = []
        removed = False
        with os.scandir(directory) as entries:
            for entry in entries:
                if _remove_entry(directory, entry.name):
                    removed = True
                elif len(full) < _BATCH:
                    full.append(entry.name)
        for name in full:
            _move_up(directory, name, top)
        if not removed and not full:  # a scan during removals may leave entries out: only an empty one is the end
            return


def _remove_entry(directory: int, name: str) -> bool:
    """``False`` for a directory that is not empty."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
    return True


def _move_up(directory: int, name: str, top: int) -> None:
    child = _open_directory(directory, name)  # also makes it writable, which moving it elsewhere asks for
    if child is None:
        return
    os.close(child)
    with suppress(FileNotFoundError):
        os.rename(name, os.urandom(10).hex(), src_dir_fd=directory, dst_dir_fd=top)


def _open_directory(parent_fd: int, name: str) -> int | None:
    """Opened for a listing, with its owner's permissions set again where they were taken away; ``None``: it is gone."""
    try:
        path_fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    except FileNotFoundError:
        return None
    try:
        itself = f"/proc/self/fd/{path_fd}"
        mode = stat.S_IMODE(os.fstat(path_fd).st_mode)
        if mode & 0o700 != 0o700:
            os.chmod(itself, mode | 0o700)
        return os.open(itself, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    finally:
        os.close(path_fd)


def measure_tree(directory: int) -> int:
    """Bytes on disk below an open directory; hard links count once. What changes meanwhile is counted as it was met.

    Raises: LimitExceeded: above 20 million files.
    """
    return _Measurement(directory).run()


class _Measurement:
    """A walk with one descriptor for any depth: it climbs by ``..`` and goes on only where that is where it came from."""

    def __init__(self, directory: int) -> None:
        self._here = os.dup(directory)
        self._trail: list[tuple[tuple[int, int], list[str]]] = []
        """For each level: which directory it is, and the names below it that are still to visit."""
        self._linked: set[tuple[int, int]] = set()
        self._entries = 0
        self._bytes = 0

    def run(self) -> int:
        try:
            while True:
                self._trail.append((_identity(self._here), self._measure_level()))
                if not self._go_on():
                    return self._bytes
        finally:
            os.close(self._here)

    def _measure_level(self) -> list[str]:
        directories: list[str] = []
        with suppress(FileNotFoundError), os.scandir(self._here) as scan:
            for entry in scan:
                self._entries += 1
                if self._entries > _MAX_ENTRIES_MEASURED:
                    raise LimitExceeded(f"More than {_MAX_ENTRIES_MEASURED} files are too many to measure.")
                try:
                    info = entry.stat(follow_symlinks=False)
                except OSError:  # it is gone, or its directory may be listed but not searched
                    continue
                if stat.S_ISDIR(info.st_mode):
                    directories.append(entry.name)
                elif info.st_nlink > 1:
                    key = (info.st_dev, info.st_ino)
                    if key in self._linked:
                        continue
                    self._linked.add(key)
                self._bytes += info.st_blocks * 512
        return directories

    def _go_on(self) -> bool:
        while self._trail:
            names = self._trail[-1][1]
            while names:
                try:
                    child = os.open(names.pop(), _DIRECTORY, dir_fd=self._here)
                except OSError:  # gone, replaced by something else, or closed to us: there is nothing to count
                    continue
                self._move(child)
                return True
            self._trail.pop()
            if self._trail:
                parent = os.open("..", _DIRECTORY, dir_fd=self._here)
                self._move(parent)
                if _identity(parent) != self._trail[-1][0]:  # moved meanwhile: never walk where it leads
                    return False
        return False

    def _move(self, fd: int) -> None:
        os.close(self._here)
        self._here = fd


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
