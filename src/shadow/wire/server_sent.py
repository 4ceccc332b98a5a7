"""Server-sent events: a stream of named texts."""

from collections.abc import Iterator

EVENTS = "text/event-stream"
MAX_EVENT_BYTES = 4 * 1024 * 1024
HEARTBEAT = b": heartbeat\n\n"


class EventStreamError(Exception):
    """What was received cannot be understood."""


def encode_event(name: str, data: bytes, *, place: int | None = None) -> bytes:
    """``data`` is text of one line. ``place`` is what a browser sends back as ``Last-Event-ID`` when it comes again."""
    id_ = b"" if place is None else b"id: %d\n" % place
    return b"%sevent: %s\ndata: %s\n\n" % (id_, name.encode(), data)


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
