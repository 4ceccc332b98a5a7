"""A byte log on disk: segment files that the holder appends to and anybody who may see the directory reads.

``<start:016x>.log`` holds the bytes of a segment, ``<start:016x>.marks`` its marks: 8 bytes of offset and 1 of channel each,
``<start:016x>.times`` its timeline (``terminal/timeline.py``). A mark is written before its bytes, and the offset up to which
one may read is told apart from the files.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress

from shadow.core.commands import Channel, Gap, Output
from shadow.core.terminals import TerminalSize
from shadow.terminal.byte_log import ByteLogLayout, Segment, Span, plan_read
from shadow.terminal.timeline import RECORD_BYTES, Record, Timeline, decode

_MARK = struct.Struct("!QB")


def _log_name(start: int) -> str:
    return f"{start:016x}.log"


def _marks_name(start: int) -> str:
    return f"{start:016x}.marks"


def _times_name(start: int) -> str:
    return f"{start:016x}.times"


class LogWriter:
    """Appends to one log. The directory is made with the first byte: most commands say little."""

    def __init__(self, directory: str, *, limit_bytes: int, size: TerminalSize | None = None) -> None:
        """``size`` is that of the terminal; ``None`` where there is none."""
        self.layout = ByteLogLayout(limit_bytes=limit_bytes)
        self._directory = directory
        self._timeline = Timeline(size)
        self._log_fd: int | None = None
        self._marks_fd: int | None = None
        self._times_fd: int | None = None

    def append(self, channel: Channel, data: bytes, *, at_s: float) -> None:
        """Keep ``data``, which came ``at_s`` seconds after the start.

        Where the disk refuses, older bytes of this log make room, else the new ones become a gap."""
        view = memoryview(data)
        while view:
            piece = view[: self.layout.room()]
            while True:
                try:
                    self._append(channel, piece, at_s)
                    break
                except OSError:
                    self._close_files()
                    dropped = self.layout.drop_oldest()
                    if dropped is None:
                        self.layout.lose(len(piece))
                        break
                    self._remove(dropped)
            view = view[len(piece) :]

    def resize(self, size: TerminalSize, *, at_s: float) -> None:
        """From here on the terminal has another size."""
        self._note(self._timeline.resized(size, self.layout.end, at_s))

    def close(self) -> None:
        self._close_files()

    def remove(self) -> None:
        """Delete the log from the disk."""
        self._close_files()
        for segment in self.layout.segments:
            self._remove(segment.start)
        self.layout.segments.clear()
        with suppress(OSError):
            os.rmdir(self._directory)

    def _append(self, channel: Channel, piece: memoryview, at_s: float) -> None:
        before = self.layout.end
        step = self.layout.append(channel, len(piece))
        for start in step.drop:
            self._remove(start)
        try:
            if step.open or self._log_fd is None or self._marks_fd is None:
                self._open(before, at_s)
            assert self._log_fd is not None
            assert self._marks_fd is not None
            if step.mark:
                _write_all(self._marks_fd, _MARK.pack(before, channel))
            self._note(self._timeline.arrived(before, at_s))
            _write_all(self._log_fd, piece)
        except OSError:
            self.layout.undo(before)
            raise

    def _note(self, record: Record | None) -> None:
        """Keep a record where a segment is open and the disk has room: without it times are less exact, and nothing else."""
        if record is None or self._times_fd is None:
            return
        size = os.fstat(self._times_fd).st_size
        try:
            _write_all(self._times_fd, record.encode())
        except OSError:
            os.ftruncate(self._times_fd, size)

    def _open(self, end: int, at_s: float) -> None:
        """Open the newest segment, cut to what it holds before ``end``: a failed write may have left more."""
        self._close_files()
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        segment = self.layout.segments[-1]
        marks = sum(1 for offset, _ in segment.marks if offset < end)
        self._log_fd = self._open_at(_log_name(segment.start), end - segment.start)
        self._marks_fd = self._open_at(_marks_name(segment.start), marks * _MARK.size)
        if end == segment.start:
            self._times_fd = self._open_at(_times_name(segment.start), 0)
            self._note(self._timeline.opened(end, at_s))
        else:
            self._times_fd = self._open_at(_times_name(segment.start), None)
            whole = os.fstat(self._times_fd).st_size // RECORD_BYTES
            os.ftruncate(self._times_fd, whole * RECORD_BYTES)
            self._note(self._timeline.reopened(whole, end, at_s))

    def _open_at(self, name: str, size: int | None) -> int:
        fd = os.open(f"{self._directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if size is not None:
            os.ftruncate(fd, size)
        return fd

    def _close_files(self) -> None:
        for fd in (self._log_fd, self._marks_fd, self._times_fd):
            if fd is not None:
                os.close(fd)
        self._log_fd = self._marks_fd = self._times_fd = None

    def _remove(self, start: int) -> None:
        for name in (_log_name(start), _marks_name(start), _times_name(start)):
            # Code in the workspace may have done anything to the directory: what stays costs room, and nothing else.
            with suppress(OSError):
                os.unlink(f"{self._directory}/{name}")


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class LogReader:
    """Reads one log, also while it is written to. Keeps the newest segment's descriptor open between calls."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._open_start: int | None = None
        self._open_fd: int | None = None

    def read(self, *, after: int, end: int, limit_bytes: int) -> Iterator[Output | Gap]:
        """What lies in ``[after, end)``, at most ``limit_bytes``, in order and without holes.

        A segment that is dropped meanwhile ends the answer early; the next call then begins with its gap.
        """
        for piece in plan_read(self._segments(after), after=after, end=end, limit_bytes=limit_bytes):
            if isinstance(piece, Gap):
                yield piece
                continue
            data = self._read(piece)
            if data:
                yield Output(offset=piece.start, channel=piece.channel, data=data)
            if len(data) < piece.end - piece.start:
                self.close()  # another file may have the name by now
                return

    def close(self) -> None:
        if self._open_fd is not None:
            os.close(self._open_fd)
        self._open_start = self._open_fd = None

    def segments(self) -> list[Segment]:
        return self._segments(0)

    def timeline(self) -> Iterator[Record]:
        """The records of what is kept, oldest first."""
        for start in self._starts():
            with suppress(FileNotFoundError), open(f"{self._directory}/{_times_name(start)}", "rb") as file:
                yield from decode(file.read())

    def _starts(self) -> list[int]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(int(name[:16], 16) for name in names if name.endswith(".log"))

    def _segments(self, after: int) -> list[Segment]:
        """Those that may matter to a reader at ``after``."""
        starts = self._starts()
        first = max((index for index, start in enumerate(starts) if start <= after), default=0)
        found: list[Segment] = []
        for start in starts[first:]:
            try:
                size = os.stat(f"{self._directory}/{_log_name(start)}").st_size
                with open(f"{self._directory}/{_marks_name(start)}", "rb") as file:
                    data = file.read()
            except FileNotFoundError:
                continue
            whole = data[: len(data) - len(data) % _MARK.size]
            marks = [(offset, Channel(channel)) for offset, channel in _MARK.iter_unpack(whole)]
            if size and marks:
                found.append(Segment(start=start, end=start + size, marks=marks))
        return found

    def _read(self, span: Span) -> bytes:
        if self._open_start != span.segment or self._open_fd is None:
            self.close()
            try:
                self._open_fd = os.open(f"{self._directory}/{_log_name(span.segment)}", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
            self._open_start = span.segment
        return os.pread(self._open_fd, span.end - span.start, span.start - span.segment)
