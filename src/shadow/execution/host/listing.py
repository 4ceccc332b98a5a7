"""Listing directories: sorted, page by page, to any depth; nothing is left out silently and no link is followed."""

import os

from shadow.core.errors import Rejected
from shadow.core.files import MAX_LISTING_LIMIT, FileKind, FileStat, Listing
from shadow.execution.host.paths import Descent, WorkspacePaths, decode_path, list_names, show_path
from shadow.execution.host.stats import describe
from shadow.execution.host.threads import Stop


def list_entries(
    paths: WorkspacePaths, path: str, stop: Stop, *, recursive: bool, after: str | None, limit: int
) -> Listing:
    if not 1 <= limit <= MAX_LISTING_LIMIT:
        raise Rejected(f"limit must lie between 1 and {MAX_LISTING_LIMIT}, not {limit}.")
    fd, where = paths.open_directory(path)
    prefix = "" if where == "." else where + "/"
    descent = Descent(fd)
    try:
        walk = _Listing(descent, prefix, _names_after(prefix, after), recursive=recursive, limit=limit)
        return walk.run(stop)
    finally:
        descent.close()


def _names_after(prefix: str, after: str | None) -> list[str]:
    """The names below the listed directory that lead to the entry after which to go on."""
    if after is None:
        return []
    if not after.startswith(prefix) or len(after) == len(prefix):
        raise Rejected(f"after={show_path(after)} is not an entry of this listing.", mend="Pass next_after as it came.")
    return after[len(prefix) :].split("/")


class _Listing:
    """One page: a walk in order that starts behind the entry ``trail`` leads to."""

    def __init__(self, descent: Descent, prefix: str, trail: list[str], *, recursive: bool, limit: int) -> None:
        self._descent = descent
        self._prefixes = [prefix]  # for each directory on the way, what stands before its names
        self._trail = trail
        self._on_trail = bool(trail)
        self._recursive = recursive
        self._limit = limit
        self._levels: list[list[str]] = []  # for each directory on the way, the names still to come, last first
        self._entries: list[FileStat] = []

    def run(self, stop: Stop) -> Listing:
        self._levels.append(self._read_names())
        while self._levels:
            stop.check()
            if not self._levels[-1]:
                self._levels.pop()
                self._prefixes.pop()
                if self._levels:
                    self._descent.leave()
                continue
            depth = len(self._levels) - 1
            name = self._levels[-1].pop()
            if self._on_trail and name == self._trail[depth]:
                self._on_trail = depth + 1 < len(self._trail)
                if self._recursive:
                    self._enter(name)
                continue
            self._on_trail = False
            if not self._take(name):
                return Listing(entries=tuple(self._entries), next_after=self._entries[-1].path)
        return Listing(entries=tuple(self._entries), next_after=None)

    def _take(self, name: str) -> bool:
        """Add the entry and go into it if it is a directory; ``False`` where the page is full."""
        raw = name.encode("utf-8", "surrogateescape")
        path = self._prefixes[-1] + name
        try:
            entry = describe(self._descent.fd, raw, path)
        except FileNotFoundError:
            return True  # gone since its directory was read
        except OSError as error:
            entry = _unknown(path, os.strerror(error.errno or 0))
        if len(self._entries) == self._limit:
            return False
        if self._recursive and entry.kind is FileKind.DIRECTORY:
            problem = self._enter(name)
            if problem is not None:
                entry = _with_error(entry, problem)
        self._entries.append(entry)
        return True

    def _enter(self, name: str) -> str | None:
        """Go into a directory and read its names; the reason where that cannot be done."""
        try:
            self._descent.enter(name.encode("utf-8", "surrogateescape"))
        except (FileNotFoundError, NotADirectoryError):
            return None  # gone or something else meanwhile: no longer a directory to look into
        except OSError as error:
            return os.strerror(error.errno or 0)
        try:
            self._levels.append(self._read_names())
            self._prefixes.append(f"{self._prefixes[-1]}{name}/")
        except OSError as error:
            self._descent.leave()
            return os.strerror(error.errno or 0)
        return None

    def _read_names(self) -> list[str]:
        names = sorted(map(decode_path, list_names(self._descent.fd)), reverse=True)
        if self._on_trail:
            floor = self._trail[len(self._levels)]
            names = [name for name in names if name >= floor]
        return names


def _unknown(path: str, error: str) -> FileStat:
    """An entry of a directory whose names may be read and nothing more."""
    return FileStat(path=path, kind=FileKind.OTHER, size_bytes=0, mode=0, modified_at=0.0, error=error)


def _with_error(entry: FileStat, error: str) -> FileStat:
    return FileStat(
        path=entry.path,
        kind=entry.kind,
        size_bytes=entry.size_bytes,
        mode=entry.mode,
        modified_at=entry.modified_at,
        target=entry.target,
        error=error,
    )
