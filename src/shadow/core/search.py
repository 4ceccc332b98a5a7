"""Searches as values: what to look for, what was found, and whether all of it is there."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GrepQuery:
    pattern: str
    """A regular expression of ripgrep's, or literal text where ``literal``."""
    path: str = "."
    literal: bool = False
    ignore_case: bool = False
    globs: tuple[str, ...] = ()
    """As in a .gitignore, relative to ``path``; a leading ``!`` leaves out."""
    include_ignored: bool = False
    """Also what .gitignore leaves out. Hidden files are always searched, the ``.git`` directory never."""
    context: int = 0
    """Lines shown before and after each match."""
    max_matches: int = 1000
    max_bytes: int = 1024 * 1024
    """Of text in the answer; lines are cut at ``max_line_bytes``."""
    max_line_bytes: int = 4096
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrepLine:
    path: str
    number: int
    """1-based."""
    text: bytes
    """Without the line end."""
    is_match: bool
    """``False`` for a line of context."""
    cut: bool = False
    """Whether ``text`` was longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrepResult:
    """No match is no error: ``lines`` is empty."""

    lines: tuple[GrepLine, ...]
    truncated: str | None
    """Why there may be more: ``matches``, ``bytes`` or ``time``; ``None`` where this is everything."""
    errors: tuple[str, ...] = ()
    """Files that could not be read, as ripgrep says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMatch:
    path: str
    score: int
    """Higher is better; only comparable within one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSearchResult:
    """Best first."""

    matches: tuple[FileMatch, ...]
    searched: int
    """How many paths were looked at."""
    truncated: bool
    """Whether there were more matches than asked for, or more paths than the search looks at."""
