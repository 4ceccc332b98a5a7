"""Files on the wire. Contents travel as raw bodies; these are the rest."""

from pydantic import Field

from shadow.core.files import FileKind, FileLines, FileStat, Listing, Replacement
from shadow.wire.message import Message
from shadow.wire.values import FsPath, Items, Offset, OsText, TextBytes

MAX_VERSION_CHARS = 200


class FileStatMessage(Message, core=FileStat):
    path: FsPath
    kind: FileKind
    size_bytes: Offset
    mode: int = Field(ge=0, le=0o7777)
    modified_at: float
    target: FsPath | None = None
    error: OsText | None = None
    version: str = Field(default="", max_length=MAX_VERSION_CHARS)


class FileLinesMessage(Message, core=FileLines):
    path: FsPath
    content: TextBytes
    first: int
    last: int
    total: Offset
    truncated: bool


class ListingMessage(Message, core=Listing):
    entries: Items[FileStatMessage]
    next_after: FsPath | None


class ReplaceMessage(Message):
    path: FsPath
    old: OsText
    new: OsText


class ReplacementMessage(Message, core=Replacement):
    path: FsPath
    line: int
    size_bytes: Offset


class MoveMessage(Message):
    source: FsPath
    target: FsPath
    overwrite: bool = False


class MakeDirectoryMessage(Message):
    path: FsPath
    create_parents: bool = True
