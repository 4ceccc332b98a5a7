"""Searches on the wire."""

from pydantic import Field

from shadow.core.search import FileMatch, FileSearchResult, GrepLine, GrepQuery, GrepResult
from shadow.wire.message import Message
from shadow.wire.values import FsPath, Items, Offset, OsText, QueryText, TextBytes

_DEFAULTS = GrepQuery(pattern="")  # the class itself has slots where its defaults were


class GrepQueryMessage(Message, core=GrepQuery):
    pattern: OsText
    path: FsPath = "."
    literal: bool = False
    ignore_case: bool = False
    globs: Items[OsText] = ()
    include_ignored: bool = False
    context: int = _DEFAULTS.context
    max_matches: int = _DEFAULTS.max_matches
    max_bytes: int = _DEFAULTS.max_bytes
    max_line_bytes: int = _DEFAULTS.max_line_bytes
    timeout_s: float = _DEFAULTS.timeout_s


class GrepLineMessage(Message, core=GrepLine):
    path: FsPath
    number: int
    text: TextBytes
    is_match: bool
    cut: bool = False


class GrepResultMessage(Message, core=GrepResult):
    lines: Items[GrepLineMessage]
    truncated: str | None
    errors: Items[OsText] = ()


class SearchFilesQuery(Message):
    query: QueryText
    path: QueryText = "."
    limit: Offset = 50
    """Cut to 10,000."""


class FileMatchMessage(Message, core=FileMatch):
    path: FsPath
    score: int


class FileSearchResultMessage(Message, core=FileSearchResult):
    matches: Items[FileMatchMessage]
    searched: int = Field(ge=0)
    truncated: bool
