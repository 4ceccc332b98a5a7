"""Deleting: one thing or a whole tree of any depth, by descriptor, never through a link."""

import errno
import os
import stat

from shadow.core.errors import Conflict, NotFound
from shadow.execution.host.paths import MAX_SWAPS, Descent, WorkspacePaths, keeps_changing, list_names, show_path
from shadow.execution.host.threads import Stop
from shadow.execution.host.versions import check_place
from shadow.execution.host.writing import PathLocks, check_path_is_not_root

_OWNER_ALL = stat.S_IRWXU
_SWAPPED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def delete(
    paths: WorkspacePaths, locks: PathLocks, path: str, stop: Stop, *, recursive: bool, expected: str | None = None
) -> None:
    with paths.resolve(path, follow=False) as place, locks.hold(place.path):
        check_path_is_not_root(place, "deleted")
        if place.found is None:
            raise NotFound(f"{show_path(path)} is not there.")
        check_place(place.parent, place.name, expected, path)
        if not stat.S_ISDIR(place.found.st_mode):
            os.unlink(place.name, dir_fd=place.parent)
        elif recursive:
            _delete_tree(place.parent, place.name, path, stop)
        else:
            _remove_empty(place.parent, place.name, path)


def _remove_empty(directory: int, name: bytes, path: str) -> None:
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise Conflict(f"The directory {show_path(path)} is not empty.", mend="Delete it recursively.") from error
        raise


def _delete_tree(directory: int, name: bytes, path: str, stop: Stop) -> None:
    descent = Descent(os.dup(directory))
    levels: list[list[bytes]] = [[name]]  # for each directory on the way, the names still to be deleted
    swaps = 0
    try:
        while True:
            stop.check()
            if levels[-1]:
                child = levels[-1].pop()
                if not _unlink(descent.fd, child):
                    if _enter(descent, child):
                        levels.append(list_names(descent.fd))
                    else:
                        swaps += 1
                        levels[-1].append(child)
            else:
                levels.pop()
                if not levels:
                    return
                left = descent.leave()
                if not _rmdir(descent.fd, left):
                    swaps += 1
                    levels[-1].append(left)
            if swaps > MAX_SWAPS:
                raise keeps_changing(path)
    finally:
        descent.close()


def _unlink(directory: int, name: bytes) -> bool:
    """``False`` where it is a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    except FileNotFoundError:
        pass  # gone already: as wished
    return True


def _rmdir(directory: int, name: bytes) -> bool:
    """``False`` where something came into it meanwhile, or it is a directory no longer."""
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in _SWAPPED:
            return False
        raise
    return True


def _enter(descent: Descent, name: bytes) -> bool:
    """Go into a directory, and make ours accessible that is not; ``False`` where it is none any more."""
    try:
        descent.enter(name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    found = os.fstat(descent.fd)
    if found.st_mode & _OWNER_ALL != _OWNER_ALL and found.st_uid == os.geteuid():
        # By its descriptor: what the name stands for may have changed.
        os.chmod(f"/proc/self/fd/{descent.fd}", stat.S_IMODE(found.st_mode) | _OWNER_ALL)
    return True
