"""Reading a part of a file: which bytes or lines it is. Pure."""

from shadow.core.errors import Rejected
from shadow.core.files import FileLines


def check_range(*, offset: int, limit_bytes: int | None) -> None:
    """Raises: Rejected."""
    if offset < 0:
        raise Rejected(f"offset must be 0 or more, not {offset}.")
    if limit_bytes is not None and limit_bytes < 0:
        raise Rejected(f"limit_bytes must be 0 or more, not {limit_bytes}.")


class LineCutter:
    """Takes a file piece by piece; keeps the lines asked for and counts all. Memory: what it keeps. Raises: Rejected."""

    def __init__(self, *, first: int, last: int | None, limit_bytes: int) -> None:
        check_range(offset=0, limit_bytes=limit_bytes)
        if first < 1:
            raise Rejected(f"first must be 1 or more, not {first}.", mend="Lines are counted from 1.")
        if last is not None and last < first:
            raise Rejected(f"last ({last}) must not be below first ({first}).")
        self._first = first
        self._last = last
        self._room = limit_bytes
        self._kept: list[bytes] = []
        self._truncated = False
        self._breaks = 0
        self._open_line = False

    def feed(self, piece: bytes) -> None:
        line = self._breaks + 1  # the line that the piece begins in
        breaks = piece.count(b"\n")
        self._breaks += breaks
        self._open_line = not piece.endswith(b"\n")
        if self._truncated or line + breaks < self._first or (self._last is not None and line > self._last):
            return
        start = _after_breaks(piece, self._first - line)
        end = len(piece)
        if self._last is not None and self._last < line + breaks:
            end = _after_breaks(piece, self._last - line + 1)
        if end - start > self._room:
            end = start + self._room
            self._truncated = True
        self._room -= end - start
        self._kept.append(piece[start:end])

    def result(self, path: str) -> FileLines:
        total = self._breaks + self._open_line
        content = b"".join(self._kept)
        last = total if self._last is None else min(self._last, total)
        if self._truncated:
            last = self._first + content.count(b"\n")
        return FileLines(
            path=path, content=content, first=self._first, last=last, total=total, truncated=self._truncated
        )


def _after_breaks(piece: bytes, count: int) -> int:
    """The position after the ``count``-th LF, which must be there."""
    position = 0
    for _ in range(count):
        position = piece.index(b"\n", position) + 1
    return position
