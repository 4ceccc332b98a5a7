"""Making directories and renaming, by descriptor."""

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack

from shadow.core.errors import AlreadyExists, NotFound, Rejected
from shadow.core.files import FileStat
from shadow.execution.host.paths import Place, WorkspacePaths, show_path
from shadow.execution.host.stats import describe, file_stat
from shadow.execution.host.versions import check_place
from shadow.execution.host.writing import PathLocks, check_path_is_not_root

_RENAME_NOREPLACE = 1
_NO_RENAMEAT2 = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def make_directory(paths: WorkspacePaths, path: str, *, create_parents: bool) -> FileStat:
    with paths.resolve(path, follow=False, create_parents=create_parents) as place:
        if place.found is not None and stat.S_ISLNK(place.found.st_mode):
            return _linked_directory(paths, path)
        if place.found is None:
            try:
                os.mkdir(place.name, dir_fd=place.parent)
            except FileExistsError:
                pass  # somebody was quicker: look at what they made
            except BaseException:
                place.forget_parents()
                raise
            made = os.stat(place.name, dir_fd=place.parent, follow_symlinks=False)
        else:
            made = place.found
        if not stat.S_ISDIR(made.st_mode):
            raise AlreadyExists(f"{show_path(path)} is there and is not a directory.")
        return file_stat(place.path, made)


def _linked_directory(paths: WorkspacePaths, path: str) -> FileStat:
    """The directory that a link points to; one that points to nothing is in the way, as it is for ``mkdir(2)``."""
    with paths.resolve(path) as place:
        if place.found is None or not stat.S_ISDIR(place.found.st_mode):
            raise AlreadyExists(f"{show_path(path)} is there and is no link to a directory.")
        return file_stat(place.path, place.found)


def move(
    paths: WorkspacePaths,
    locks: PathLocks,
    source: str,
    target: str,
    *,
    overwrite: bool,
    expected: str | None = None,
) -> FileStat:
    with (
        paths.resolve(source, follow=False) as old,
        paths.resolve(target, follow=False) as new,
        ExitStack() as holding,
    ):
        check_path_is_not_root(old, "moved")
        check_path_is_not_root(new, "replaced")
        for path in sorted({old.path, new.path}):  # in one order: two moves never wait for each other
            holding.enter_context(locks.hold(path))
        if old.found is None:
            raise NotFound(f"{show_path(source)} is not there.")
        check_place(old.parent, old.name, expected, source)
        try:
            if overwrite:
                _replace(old, new, target)
            else:
                _rename_to_free_name(old, new, target)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise Rejected(f"{show_path(source)} cannot be moved into itself.") from error
            raise
        return describe(new.parent, new.name, new.path)


def _replace(old: Place, new: Place, target: str) -> None:
    assert old.found is not None
    if new.found is not None:
        if old.path == new.path:
            return
        if stat.S_ISDIR(new.found.st_mode):
            raise AlreadyExists(f"{show_path(target)} is a directory.", mend="Delete it first.")
        if stat.S_ISDIR(old.found.st_mode):
            raise AlreadyExists(
                f"{show_path(target)} exists, and a directory cannot replace it.", mend="Delete it first."
            )
        if os.path.samestat(old.found, new.found):
            os.unlink(old.name, dir_fd=old.parent)  # two names of one file: rename(2) would leave both
            return
    os.rename(old.name, new.name, src_dir_fd=old.parent, dst_dir_fd=new.parent)


def _rename_to_free_name(old: Place, new: Place, target: str) -> None:
    exists = AlreadyExists(f"{show_path(target)} exists already.", mend="Pass overwrite, or choose another name.")
    if new.found is not None:
        raise exists
    try:
        _rename_without_replacing(old, new)
    except FileExistsError as error:
        raise exists from error


def _rename_without_replacing(old: Place, new: Place) -> None:
    rename = _renameat2()
    if rename is not None:
        if rename(old.parent, old.name, new.parent, new.name, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_RENAMEAT2:
            raise OSError(number, os.strerror(number))
    # An old C library or file system: what is made at the target in this very moment is replaced.
    os.rename(old.name, new.name, src_dir_fd=old.parent, dst_dir_fd=new.parent)


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    signature = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, use_errno=True
    )
    try:
        return signature(("renameat2", ctypes.CDLL(None, use_errno=True)))
    except AttributeError:
        return None
