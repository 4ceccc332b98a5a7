"""Changes of files on the wire: server-sent events ``watching``, ``changes``, ``missed``, and last ``end`` or ``error``."""

from pydantic import Field

from shadow.core.watching import ChangeKind, ChangesMissed, FileChange, FileChanges
from shadow.wire.message import Message
from shadow.wire.values import FsPath, Items


class FileChangeMessage(Message, core=FileChange):
    kind: ChangeKind
    path: FsPath
    source: FsPath | None = None
    is_directory: bool = False


class FileChangesMessage(Message, core=FileChanges):
    changes: Items[FileChangeMessage]


class ChangesMissedMessage(Message, core=ChangesMissed):
    reason: str = Field(max_length=1000)
