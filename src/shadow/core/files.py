"""Files of a workspace as values: what a path names, what was read, what a listing holds.

A path is a ``str`` relative to the workspace's root, with ``/`` between names. Names that are not UTF-8 are carried by
Python's ``surrogateescape``. An absolute path is accepted where it begins with the root as the workspace's commands see it.
"""

from dataclasses import dataclass
from enum import StrEnum

from shadow.core.errors import Changed, Rejected

ANY_VERSION = "*"
"""In place of a version: whichever; the file must be there."""
MAX_SEARCH_REPLACE_BYTES = 64 * 1024 * 1024
DEFAULT_READ_LIMIT_BYTES = 16 * 1024 * 1024
DEFAULT_LISTING_LIMIT = 10_000
MAX_LISTING_LIMIT = 1_000_000


class FileKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    """A socket, a pipe or a device: listed, never opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStat:
    path: str
    kind: FileKind
    size_bytes: int
    mode: int
    """Permission bits, ``0o7777`` at most."""
    modified_at: float
    target: str | None = None
    """What a symlink holds, not resolved."""
    error: str | None = None
    """Why this directory's content could not be listed, where it could not."""
    version: str = ""
    """Another one wherever the content may be another; only of regular files, by ``stat`` and ``write_file``, and empty where
    it cannot be told: while the file changes faster than its version could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """``content`` begins at ``offset``; there is more where ``offset + len(content) < size_bytes``."""

    path: str
    content: bytes
    offset: int
    size_bytes: int
    version: str = ""
    """Of the file that ``content`` is from, as ``FileStat.version``; empty also where it was changed while it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLines:
    """Lines ``first`` to ``last`` (1-based, inclusive) with their line ends as they are; an empty file has none."""

    path: str
    content: bytes
    first: int
    last: int
    """Below ``first`` where there is no such line."""
    total: int
    """How many lines the file has; a last line without a line end counts."""
    truncated: bool
    """Whether ``content`` stopped before ``last`` was whole, at the limit of bytes."""
    version: str = ""
    """As ``FileContent.version``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Entries sorted by path, by code point of each name. ``next_after`` continues a listing that reached its limit."""

    entries: tuple[FileStat, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    path: str
    line: int
    """1-based line where the replaced text began."""
    size_bytes: int
    version: str = ""
    """Of what was written."""


def check_version(now: str | None, expected: str | None, shown: str) -> None:
    """``now``: the version of what is there; ``None``: nothing is. ``expected``: as callers give it; ``None``: they do not care.

    Raises: Changed; Rejected: an empty one was given, which is what a version that could not be told looks like.
    """
    if expected is None:
        return
    if not expected:
        raise Rejected("The version that the file must have is empty: it was not known.", mend="Read the file again.")
    if now is None:
        raise Changed(f"{shown} is not there any more.", mend="Look at what there is now.")
    if expected not in (ANY_VERSION, now):
        raise Changed(f"{shown} is not the version that was seen.", mend="Read it again, and decide by what it is now.")
