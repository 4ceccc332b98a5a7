"""What a terminal shows, kept by an emulator, and snapshots of it for those who come later. No I/O."""

import codecs
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from shadow.core.terminals import ScreenSnapshot, TerminalSize
from shadow.terminal.modes import Modes

if TYPE_CHECKING:
    from avt._avt import Cell, Color, Line, Pen, Vt

_ATTRIBUTES = (
    ("bold", 1),
    ("faint", 2),
    ("italic", 3),
    ("underline", 4),
    ("blink", 5),
    ("inverse", 7),
    ("strikethrough", 9),
)


class Screen:
    """Feed it what the program writes, in any pieces; characters and sequences may be split between them."""

    def __init__(self, size: TerminalSize, *, scrollback_lines: int) -> None:
        self._vt = _emulator(size, scrollback_lines)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._modes = Modes()
        self._size = size

    def feed(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        self._modes.feed(text)
        self._vt.feed_str(text)

    def resize(self, size: TerminalSize) -> None:
        if size != self._size:
            self._vt.resize(size.columns, size.rows)
            self._size = size

    @property
    def text(self) -> list[str]:
        """The lines of the screen, without the blanks at their ends."""
        return [line.text.rstrip() for line in self._vt.view()]

    def snapshot(self, offset: int) -> ScreenSnapshot:
        """Of everything fed so far, which ends at ``offset``.

        While a program uses the alternate screen, the lines above the other one cannot be told.
        """
        above = self._vt.lines()[: -self._size.rows]
        scrolled = "".join(f"{_painted(line)}\r\n" for line in above)
        if above:
            # So many line ends that the last of them has left the screen; what follows starts at its top.
            scrolled += "\r\n" * (self._size.rows - 1) + "\x1b[H"
        # The emulator writes control sequences in their 8-bit form, which not every other reads in UTF-8.
        screen = self._vt.dump().replace("\x9b", "\x1b[")
        unfinished, _ = self._decoder.getstate()
        data = (scrolled + self._modes.sequences() + screen).encode() + unfinished
        return ScreenSnapshot(offset=offset, size=self._size, data=data)


def _emulator(size: TerminalSize, scrollback_lines: int) -> "Vt":
    """Loaded when it is wanted: most workspaces never have a terminal."""
    from avt._avt import Vt

    return Vt(size.columns, size.rows, scrollback_lines)


def _painted(line: "Line") -> str:
    """A line as text and colours."""
    parts: list[str] = []
    for sgr, cells in groupby(line.cells, _sgr_of):
        text = "".join(cell.char for cell in cells if cell.width > 0)
        parts.append(f"\x1b[{sgr}m{text}\x1b[m" if sgr else text)
    return "".join(parts).rstrip(" ")


def _sgr_of(cell: "Cell") -> str:
    pen = cell.pen
    return "" if pen.is_default() else _sgr(pen)


def _sgr(pen: "Pen") -> str:
    codes = [str(code) for name, code in _ATTRIBUTES if getattr(pen, name)]
    codes += _colour(pen.foreground, 30)
    codes += _colour(pen.background, 40)
    return ";".join(codes)


def _colour(colour: "Color | None", base: int) -> Iterator[str]:
    from avt._avt import Color

    if isinstance(colour, Color.RGB):
        yield f"{base + 8};2;{colour[0]};{colour[1]};{colour[2]}"
    elif isinstance(colour, Color.Indexed):
        index = colour[0]
        if index < 8:
            yield str(base + index)
        elif index < 16:
            yield str(base + 60 + index - 8)
        else:
            yield f"{base + 8};5;{index}"
