"""Changes of files on the wire: server-sent events ``watching``, ``changes``, ``missed``, and last ``end`` or ``error``."""

from collections.abc import Iterator

from pydantic import Field

from shadow.core.watching import ChangeKind, ChangesMissed, FileChange, FileChanges
from shadow.wire.message import Message
from shadow.wire.values import FsPath, Items

MEDIA_TYPE = "text/event-stream"
MAX_EVENT_BYTES = 4 * 1024 * 1024
HEARTBEAT = b": heartbeat\n\n"


class FileChangeMessage(Message, core=FileChange):
    kind: ChangeKind
    path: FsPath
    source: FsPath | None = None
    is_directory: bool = False


class FileChangesMessage(Message, core=FileChanges):
    changes: Items[FileChangeMessage]


class ChangesMissedMessage(Message, core=ChangesMissed):
    reason: str = Field(max_length=1000)


class EventStreamError(Exception):
    """What was received cannot be understood."""


def encode_event(name: str, data: bytes) -> bytes:
    """``data`` is JSON on one line."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


class EventDecoder:
    """Events of a stream that is fed in pieces: name and data of each. One line of data is all that we send."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._size = 0
        """Of the event that is gathered."""
        self._name = ""
        self._data: bytes | None = None

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Raises: EventStreamError."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._add(line)
            event = self._end_line()
            if event is not None:
                yield event
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._size += len(part) + 1  # with its line end
        if self._size > MAX_EVENT_BYTES:
            raise EventStreamError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        self._line += part

    def _end_line(self) -> tuple[str, bytes] | None:
        line = bytes(self._line)
        self._line.clear()
        if line:
            field, _, value = line.partition(b": ")
            if field == b"event":
                self._name = value.decode("ascii", "replace")
            elif field == b"data":
                self._data = value
            return None
        event = None if self._data is None else (self._name, self._data)
        self._name, self._data, self._size = "", None, 0
        return event
