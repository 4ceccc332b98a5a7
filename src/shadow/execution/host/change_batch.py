"""Changes gathered within a short time: put together where that is safe, bounded. No I/O."""

from collections.abc import Iterator

from shadow.core.watching import ChangeKind, FileChange

MAX_CHANGES = 2000
MAX_CHANGES_BYTES = 256 * 1024
"""Of the paths of one batch."""

Key = tuple[ChangeKind, str, int]


class Batch:
    """Changes within a short time, in order; or the reason why they cannot be told.

    Between two renames each path and kind comes once. Over a rename nothing is put together: paths mean something else then.
    """

    def __init__(self) -> None:
        self._changes: dict[Key, FileChange] = {}
        self._bytes = 0
        self._renames = 0
        self.missed: str | None = None

    def __iter__(self) -> Iterator[FileChange]:
        return iter(self._changes.values())

    def add(self, kind: ChangeKind, path: str, *, is_directory: bool) -> None:
        if kind is ChangeKind.MODIFIED and (ChangeKind.CREATED, path, self._renames) in self._changes:
            return
        key = (kind, path, self._renames)
        self._changes.pop(key, None)  # the last time counts: a file may come, go, and come again
        self._put(key, FileChange(kind=kind, path=path, is_directory=is_directory))

    def leave(self, path: str, cookie: int, *, is_directory: bool) -> Key:
        """It was moved, and has left unless ``arrive`` follows."""
        key = (ChangeKind.DELETED, path, ~cookie)
        self._put(key, FileChange(kind=ChangeKind.DELETED, path=path, is_directory=is_directory))
        return key

    def arrive(self, left: Key, path: str, *, is_directory: bool) -> None:
        self._changes.pop(left, None)
        self._renames += 1
        change = FileChange(kind=ChangeKind.RENAMED, path=path, source=left[1], is_directory=is_directory)
        self._put((ChangeKind.RENAMED, path, self._renames), change)

    def miss(self, reason: str) -> None:
        self._changes.clear()
        self.missed = self.missed or reason

    def _put(self, key: Key, change: FileChange) -> None:
        if self.missed:
            return
        self._changes[key] = change
        self._bytes += len(change.path) + len(change.source or "")
        if len(self._changes) > MAX_CHANGES or self._bytes > MAX_CHANGES_BYTES:
            self.miss("too many changes at once")
