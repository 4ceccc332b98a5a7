"""What lies at a place, as a ``FileStat``."""

import os
import stat
from dataclasses import replace

from shadow.core.errors import NotFound
from shadow.core.files import FileKind, FileStat
from shadow.execution.host.paths import Place, WorkspacePaths, decode_path, show_path
from shadow.execution.host.versions import settled, version_of


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
        if not stat.S_ISREG(place.found.st_mode):
            return file_stat(place.path, place.found)
        return _stat_of_file(place, place.found)


def _stat_of_file(place: Place, found: os.stat_result) -> FileStat:
    now = settled(lambda: os.stat(place.name, dir_fd=place.parent, follow_symlinks=False))
    if now is None:
        return file_stat(place.path, found)
    return replace(file_stat(place.path, now), version=version_of(now))


def _target(directory: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None  # no longer a link
