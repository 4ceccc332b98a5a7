"""From a command's pipes into its byte log, held back for a reader where the command asked for that."""

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from shadow.core.commands import Channel, Overflow
from shadow.execution.holder.log_files import LogWriter
from shadow.execution.holder.loop import Loop, Timer

F_SETPIPE_SZ = 1031
READ_BYTES = 256 * 1024
WAIT_FOR_READER_S = 10.0
READER_MARGIN_BYTES = 16 * 1024 * 1024
"""Kept behind the position of a reader: what it was sent may not have reached it."""

ReaderKey = tuple[int, str]
_RESUMING: ReaderKey = (0, "")
"""Stands for a reader that has not come yet, or was cut off and may come back."""


class OutputPump:
    """Reads the pipes of one command. ``on_change`` is called after each piece and after the last pipe has closed."""

    def __init__(
        self,
        loop: Loop | None,
        log: LogWriter,
        pipes: dict[int, Channel],
        *,
        overflow: Overflow,
        on_change: Callable[[], None],
        in_small_pieces: bool = False,
        kept: int | None = None,
    ) -> None:
        """``kept``: the other end of a PTY, kept open until its program has ended."""
        self.log = log
        self._kept = kept
        self.last_read_at = 0.0
        self._began = loop.time() if loop is not None else 0.0
        self._loop = loop
        self._pipes = pipes
        self._overflow = overflow
        self._in_small_pieces = in_small_pieces
        # Where readers are waited for, one piece must not push out what a reader near the end still needs.
        wait = overflow is Overflow.WAIT
        self._piece_bytes = min(READ_BYTES, log.layout.segment_bytes) if wait else READ_BYTES
        self._on_change = on_change
        self._held: Timer | None = None
        self._readers: dict[ReaderKey, tuple[int, float]] = {}
        """Where each reader stands, and since when."""
        for fd in pipes:
            os.set_blocking(fd, False)
            with suppress(OSError):  # the user's share of pipe memory may be used up; it works with less
                fcntl.fcntl(fd, F_SETPIPE_SZ, READ_BYTES)

    @staticmethod
    def finished(log: LogWriter) -> "OutputPump":
        return OutputPump(None, log, {}, overflow=Overflow.DROP_OLDEST, on_change=lambda: None)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of the log."""
        assert self._loop is not None
        return self._loop.time() - self._began

    @property
    def closed(self) -> bool:
        return not self._pipes

    @property
    def held(self) -> bool:
        """Whether reading waits for a reader."""
        return self._held is not None

    def start(self) -> None:
        assert self._loop is not None
        self._readers[_RESUMING] = (0, self._loop.time())
        self._watch()

    def reader_at(self, reader: ReaderKey, offset: int) -> None:
        """A reader has got everything before ``offset``."""
        if self._overflow is not Overflow.WAIT:
            return  # nobody is waited for
        known = self._readers.get(reader)
        if self._loop is not None and (known is None or offset > known[0]):
            self._readers.pop(_RESUMING, None)
            self._readers[reader] = (offset, self._loop.time())
            self._release()

    def reader_gone(self, reader: ReaderKey) -> None:
        """What it had not got is kept back for a while, in case that it comes again."""
        known = self._readers.pop(reader, None)
        if known is not None and self._loop is not None:
            self._readers[_RESUMING] = (known[0], self._loop.time())

    def connection_gone(self, connection: int) -> None:
        for reader in [reader for reader in self._readers if reader[0] == connection]:
            self.reader_gone(reader)

    def take_ready(self) -> None:
        """Read what lies in the pipes right now: a busy loop may not have come to it yet."""
        for fd in list(self._pipes):
            for _ in range(0, READ_BYTES, self._piece_bytes):  # a writer that goes on must not keep us
                if self.held or not self._read(fd):
                    break

    def program_ended(self) -> None:
        """From now on a PTY that nobody has is at its end."""
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None
            self.take_ready()

    def discard(self) -> None:
        """Close everything and delete the log."""
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None
        for fd in list(self._pipes):
            self._close(fd)
        self.log.remove()

    def _watch(self) -> None:
        assert self._loop is not None
        for fd in self._pipes:
            self._loop.watch(fd, partial(self._read, fd))

    def _read(self, fd: int) -> bool:
        """Take one piece; ``False`` where there is none now."""
        assert self._loop is not None
        if self._overflow is Overflow.WAIT and self._hold():
            return False
        try:
            data = self._gathered(fd) if self._in_small_pieces else os.read(fd, self._piece_bytes)
        except BlockingIOError:
            return False
        if data:
            self.last_read_at = self._loop.time()
            self.log.append(self._pipes[fd], data, at_s=self.elapsed_s)
        else:
            self._close(fd)
            if self.closed:
                self.log.close()
        self._on_change()
        return bool(data)

    def _gathered(self, fd: int) -> bytes:
        """What a PTY has right now, which it gives in pages at most; nothing at its end. Raises: BlockingIOError."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < self._piece_bytes:
                piece = os.read(fd, self._piece_bytes - size)
                if not piece:
                    break
                pieces.append(piece)
                size += len(piece)
        except BlockingIOError:
            if not pieces:
                raise
        except OSError as error:
            if error.errno != errno.EIO:  # how a PTY says that nobody has its other end
                raise
        return b"".join(pieces)

    def _close(self, fd: int) -> None:
        assert self._loop is not None
        self._loop.unwatch(fd)
        os.close(fd)
        del self._pipes[fd]

    def _hold(self) -> bool:
        """Stop reading while a reader still needs what the next bytes would push out."""
        assert self._loop is not None
        layout = self.log.layout
        would_drop = layout.would_drop(self._piece_bytes)
        if would_drop <= layout.start:
            return False
        margin = min(READER_MARGIN_BYTES, layout.limit_bytes // 2)
        now = self._loop.time()
        left_s = [
            since + WAIT_FOR_READER_S - now
            for position, since in self._readers.values()
            if position - margin < would_drop and since + WAIT_FOR_READER_S > now
        ]
        if not left_s:
            return False
        for fd in self._pipes:
            self._loop.unwatch(fd)
        self._held = self._loop.call_later(max(left_s), self._release)
        return True

    def _release(self) -> None:
        if self._held is not None:
            self._held.cancel()
            self._held = None
            self._watch()
