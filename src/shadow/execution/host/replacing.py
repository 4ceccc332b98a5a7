"""Replacing the one occurrence of a text in a file, literally."""

import os

from shadow.core.files import Replacement, check_version
from shadow.execution.host.paths import MAX_SWAPS, WorkspacePaths, keeps_changing, show_path
from shadow.execution.host.reading import open_regular, read_at
from shadow.execution.host.versions import version_of
from shadow.execution.host.writing import Draft, PathLocks, Swapped
from shadow.execution.occurrences import check_size, check_texts, find_unique


def search_replace(
    paths: WorkspacePaths, locks: PathLocks, path: str, *, old: str, new: str, seen: str | None = None
) -> Replacement:
    """``seen``: the version that the file must have."""
    wanted, replacement = check_texts(old, new)
    for _ in range(MAX_SWAPS):
        try:
            done = _replace_once(paths, locks, path, wanted, replacement, seen)
        except Swapped:
            continue  # somebody wrote between our reading and our writing: begin with what is there now
        if done is not None:
            return done
    raise keeps_changing(path)


def _replace_once(
    paths: WorkspacePaths, locks: PathLocks, path: str, wanted: bytes, replacement: bytes, seen: str | None
) -> Replacement | None:
    with paths.resolve(path) as place, locks.hold(place.path):
        fd = open_regular(place, path)
        if fd is None:
            return None
        try:
            expected = os.fstat(fd)
            check_version(version_of(expected), seen, show_path(path))
            check_size(expected.st_size, path)
            content = read_at(fd, 0, expected.st_size)
        finally:
            os.close(fd)
        position = find_unique(content, wanted, path)
        draft = Draft(paths, locks, path, create_parents=False)
        try:
            draft.open()
            draft.write(memoryview(content)[:position])
            draft.write(replacement)
            draft.write(memoryview(content)[position + len(wanted) :])
            written = draft.commit(expected=expected)
        finally:
            draft.close()
    return Replacement(
        path=written.path,
        line=content.count(b"\n", 0, position) + 1,
        size_bytes=written.size_bytes,
        version=written.version,
    )
