"""Files on the wire. Contents travel as raw bodies; these are the rest."""

from typing import Annotated

from pydantic import Field

from shadow.core.files import (
    DEFAULT_LISTING_LIMIT,
    DEFAULT_READ_LIMIT_BYTES,
    FileKind,
    FileLines,
    FileStat,
    Listing,
    Replacement,
)
from shadow.wire.message import LARGE_BODY_BYTES, Message
from shadow.wire.values import FsPath, Items, Offset, OsText, QueryText, TextBytes

LineNumber = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class PathQuery(Message):
    path: QueryText


class ReadQuery(PathQuery):
    offset: Offset = 0
    limit_bytes: Offset | None = None
    """At most so many bytes; without it, up to the end."""


class WriteQuery(PathQuery):
    mode: Annotated[str, Field(pattern=r"^[0-7]{1,4}$")] | None = None
    """Permission bits in octal; without it those of the file that is there, or the usual ones."""
    create_parents: bool = True
    exclusive: bool = False
    """Refuse where something is there."""


class DeleteQuery(PathQuery):
    recursive: bool = False


class StatQuery(PathQuery):
    follow: bool = True
    """What a symlink leads to, instead of the symlink."""


class LinesQuery(PathQuery):
    first: LineNumber = 1
    """1-based."""
    last: LineNumber | None = None
    """Included."""
    limit_bytes: int = Field(default=DEFAULT_READ_LIMIT_BYTES, ge=0, le=DEFAULT_READ_LIMIT_BYTES)


class DirectoryQuery(Message):
    path: QueryText = "."


class ListQuery(DirectoryQuery):
    recursive: bool = False
    after: QueryText | None = None
    """``next_after`` of the page before."""
    limit: Offset = DEFAULT_LISTING_LIMIT
    """Entries a page; cut to 100,000."""


MAX_VERSION_CHARS = 200
Version = Annotated[str, Field(max_length=MAX_VERSION_CHARS, pattern="^[!#-~]*$")]
"""Stands between the quotes of an ``ETag`` too."""


class FileStatMessage(Message, core=FileStat):
    path: FsPath
    kind: FileKind
    size_bytes: Offset
    mode: int = Field(ge=0, le=0o7777)
    modified_at: float
    target: FsPath | None = None
    error: OsText | None = None
    version: Version = ""


class FileLinesMessage(Message, core=FileLines):
    path: FsPath
    content: TextBytes
    first: int
    last: int
    total: Offset
    truncated: bool
    version: Version = ""


class ListingMessage(Message, core=Listing):
    entries: Items[FileStatMessage]
    next_after: FsPath | None


class ReplaceMessage(Message, body_limit_bytes=LARGE_BODY_BYTES):
    path: FsPath
    old: OsText
    new: OsText


class ReplacementMessage(Message, core=Replacement):
    path: FsPath
    line: int
    size_bytes: Offset
    version: Version = ""


class MoveMessage(Message):
    source: FsPath
    target: FsPath
    overwrite: bool = False


class MakeDirectoryMessage(Message):
    path: FsPath
    create_parents: bool = True
