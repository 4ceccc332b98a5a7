"""Feeding a command's stdin or a terminal: in order, never blocking the holder, safe to repeat by offset."""

import errno
import os
from collections import deque
from collections.abc import Callable

from shadow.core.errors import Conflict, LimitExceeded, ShadowError
from shadow.execution.holder.journal import Record
from shadow.execution.holder.loop import Loop

MAX_QUEUED_BYTES = 1024 * 1024
MAX_QUEUED_WRITES = 1024
"""However small, even empty: whoever sent one may have left, it stays until its turn."""
MAX_WRITERS = 256
"""Of one terminal: how many are remembered, the latest."""

Reply = Callable[[Record | ShadowError], None]


class StdinFeed:
    """The writing end of a pipe. ``accepted`` counts the bytes that the pipe has taken."""

    def __init__(self, loop: Loop | None, fd: int | None, *, accepted: int = 0) -> None:
        self.accepted = accepted
        self._loop = loop
        self._fd = fd
        self._queue: deque[tuple[memoryview, bool, Reply]] = deque()
        self._queued = 0
        self._typed: dict[str, int] = {}
        """By writer of a terminal: how many bytes of its own are in the queue or written; who wrote last is last."""
        if fd is not None:
            os.set_blocking(fd, False)

    @staticmethod
    def finished(accepted: int) -> "StdinFeed":
        return StdinFeed(None, None, accepted=accepted)

    def write(self, data: bytes, *, offset: int | None, close: bool, reply: Reply) -> None:
        """Answers once the pipe has taken ``data``. Raises: Conflict, LimitExceeded."""
        if self._fd is None:
            if offset is not None and offset + len(data) <= self.accepted:
                reply({"accepted": self.accepted})
                return
            raise Conflict("The command's stdin is closed.", details={"accepted": self.accepted})
        position = self.accepted + self._queued
        skip = 0 if offset is None else position - offset
        if skip < 0:
            raise Conflict(
                f"The data begins at byte {offset} of stdin, but only {position} have arrived.",
                details={"accepted": self.accepted},
            )
        self._enqueue(memoryview(data)[skip:], close, reply)

    def type(self, data: bytes, *, writer: str, offset: int, reply: Reply) -> None:
        """What one of several writers types; ``offset`` counts what it typed itself. Raises: Conflict, LimitExceeded."""
        if self._fd is None:
            raise Conflict("The terminal's program has ended.")
        typed = self._typed.pop(writer, 0)
        if offset > typed:
            self._typed[writer] = typed
            raise Conflict(
                f"The data begins at byte {offset} of what this writer types, but only {typed} have arrived.",
                details={"accepted": typed},
            )
        new = memoryview(data)[typed - offset :]
        accepted = typed + len(new)
        if accepted:  # who only asks how far it has come must not push out who types
            self._typed[writer] = typed
        self._enqueue(
            new, False, lambda result: reply(result if isinstance(result, ShadowError) else {"accepted": accepted})
        )
        if accepted:
            self._typed[writer] = accepted
        if len(self._typed) > MAX_WRITERS:
            del self._typed[next(iter(self._typed))]

    def _enqueue(self, view: memoryview, close: bool, reply: Reply) -> None:
        too_large = self._queued and self._queued + len(view) > MAX_QUEUED_BYTES
        if too_large or len(self._queue) >= MAX_QUEUED_WRITES:
            raise LimitExceeded("Too much input is waiting already.", mend="Wait for earlier writes first.")
        self._queue.append((view, close, reply))
        self._queued += len(view)
        self._feed()

    def close(self, reason: str) -> None:
        """Close the pipe; writes that still wait are refused with ``reason``."""
        if self._fd is None or self._loop is None:
            return
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = None
        while self._queue:
            _, _, reply = self._queue.popleft()
            reply(Conflict(reason, details={"accepted": self.accepted}))

    def _feed(self) -> None:
        assert self._loop is not None
        while self._queue and self._fd is not None:
            view, close, reply = self._queue[0]
            if view:
                try:
                    written = os.write(self._fd, view)
                except BlockingIOError:
                    self._loop.watch(self._fd, self._feed, write=True)
                    return
                except BrokenPipeError:
                    self.close("The command has closed its stdin.")
                    return
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    self.close("Nobody has the other end of the terminal any more.")
                    return
                self.accepted += written
                self._queued -= written
                self._queue[0] = (view[written:], close, reply)
                continue
            self._queue.popleft()
            if close:
                self.close("The command's stdin was closed.")
            reply({"accepted": self.accepted})
        if self._fd is not None:
            self._loop.unwatch(self._fd)
