"""Remove trees that hostile code has made: by descriptor, without recursion, never through a symlink."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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
