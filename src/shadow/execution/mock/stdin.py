"""The standard input of a simulated command: a pipe of bounded size, safe to feed again by offset."""

import asyncio

from shadow.core.errors import Conflict

PIPE_BYTES = 64 * 1024


class MockStdin:
    """``accepted`` counts the bytes that the pipe has taken."""

    def __init__(self, *, is_open: bool) -> None:
        self.accepted = 0
        self._pipe = bytearray()
        self._closed = None if is_open else "The command's stdin is closed."
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()

    @staticmethod
    def of(content: bytes) -> "MockStdin":
        """A file instead of a pipe."""
        stdin = MockStdin(is_open=False)
        stdin._pipe += content
        return stdin

    async def write(self, data: bytes, *, offset: int | None, close: bool) -> int:
        """Returns once the pipe has taken ``data``. Raises: Conflict."""
        async with self._writing:
            skip = 0 if offset is None else self.accepted - offset
            if self._closed and not (offset is not None and skip >= len(data)):
                raise Conflict(self._closed, details={"accepted": self.accepted})
            if skip < 0:
                raise Conflict(
                    f"The data begins at byte {offset} of stdin, but only {self.accepted} have arrived.",
                    details={"accepted": self.accepted},
                )
            left = memoryview(data)[skip:]
            while left:
                if self._closed:
                    raise Conflict(self._closed, details={"accepted": self.accepted})
                taken = left[: PIPE_BYTES - len(self._pipe)]
                self._pipe += taken
                self.accepted += len(taken)
                left = left[len(taken) :]
                await self._change(wait=bool(left))
            if close:
                self.close("The command's stdin is closed.")
            return self.accepted

    async def read(self, size: int) -> bytes:
        """At least one byte and at most ``size``; nothing at the end."""
        while not self._pipe and self._closed is None:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._pipe[:size])
        del self._pipe[:size]
        self._changed.set()
        return data

    def close(self, reason: str) -> None:
        """No more comes; what is in the pipe can still be read."""
        if self._closed is None:
            self._closed = reason
        self._changed.set()

    async def _change(self, *, wait: bool) -> None:
        self._changed.set()
        if wait:
            while len(self._pipe) == PIPE_BYTES and self._closed is None:
                self._changed.clear()
                await self._changed.wait()
