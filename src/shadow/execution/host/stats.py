"""What lies at a place, as a ``FileStat``."""

import os
import stat
from dataclasses import replace

from shadow.core.errors import NotFound
from shadow.core.files import FileKind, FileStat
from shadow.execution.host.paths import WorkspacePaths, decode_path, show_path


def kind_of(mode: int) -> FileKind:
    if stat.S_ISREG(mode):
        return FileKind.FILE
    if stat.S_ISDIR(mode):
        return FileKind.DIRECTORY
    return FileKind.SYMLINK if stat.S_ISLNK(mode) else FileKind.OTHER


def file_stat(path: str, found: os.stat_result, *, target: bytes | None = None, error: str | None = None) -> FileStat:
    return FileStat(
        path=path,
        kind=kind_of(found.st_mode),
        size_bytes=found.st_size,
        mode=stat.S_IMODE(found.st_mode),
        modified_at=found.st_mtime,
        target=None if target is None else decode_path(target),
        error=error,
    )


def describe(directory: int, name: bytes, path: str) -> FileStat:
    """What ``name`` in ``directory`` is; a link is not followed. Raises ``OSError``."""
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return file_stat(path, found, target=_target(directory, name) if stat.S_ISLNK(found.st_mode) else None)


def read_stat(paths: WorkspacePaths, path: str, *, follow: bool) -> FileStat:
    with paths.resolve(path, follow=follow) as place:
        if place.found is None:
            raise NotFound(f"{show_path(path)} is not there.")
        if stat.S_ISLNK(place.found.st_mode):
            return describe(place.parent, place.name, place.path)
        return replace(file_stat(place.path, place.found), version=_version(place.found))


def _version(found: os.stat_result) -> str:
    """The time of the last change is the kernel's own: no program can set it back."""
    if not stat.S_ISREG(found.st_mode):
        return ""
    return f"{found.st_dev:x}.{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}.{found.st_ctime_ns:x}"


def _target(directory: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None  # no longer a link
