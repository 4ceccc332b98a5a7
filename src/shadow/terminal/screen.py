"""What a terminal shows, kept by an emulator, and snapshots of it for those who come later. No I/O."""

import codecs
import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from shadow.core.terminals import ScreenSnapshot, TerminalSize
from shadow.terminal.modes import Modes

if TYPE_CHECKING:
    from avt._avt import Cell, Color, Line, Pen, Vt
    from avt._avt.terminal import Cursor

_ATTRIBUTES = (
    ("bold", 1),
    ("faint", 2),
    ("italic", 3),
    ("underline", 4),
    ("blink", 5),
    ("inverse", 7),
    ("strikethrough", 9),
)
_LEAST_COLUMNS = 2
"""Of the emulator: in a single one it fails over wide characters."""
_CELL_BYTES = 24
_FED_BYTES = 32 * 1024 * 1024
"""What one feed may take up before the emulator drops the lines beyond its scrollback."""
_STEP_CELLS = 500_000
"""What one step may touch: a hundredth of a second."""
_LONGEST_STEP = 256
_SHORTEST = 3
"""Characters of a sequence that touches the whole screen."""
_REPEATED = re.compile(r"(.)\x1b\[(\d+)b")


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
        piece = _piece_chars(self._size)
        for start in range(0, len(text), piece):
            self._vt.feed_str(text[start : start + piece])

    def steps(self, data: bytes) -> Iterator[int]:
        """``feed`` in steps that are short whatever ``data`` holds; gives how much has been fed after each.

        A few characters may redraw a screen of a million cells: whoever has other things to do does them between steps.
        """
        step = min(max(1, _SHORTEST * _STEP_CELLS // (self._size.columns * self._size.rows)), _LONGEST_STEP)
        for start in range(0, len(data), step):
            self.feed(data[start : start + step])
            yield min(start + step, len(data))

    def resize(self, size: TerminalSize) -> None:
        if size != self._size:
            self._vt.resize(max(_LEAST_COLUMNS, size.columns), size.rows)
            self._size = size

    @property
    def text(self) -> list[str]:
        """The lines of the screen, without the blanks at their ends."""
        return [line.text.rstrip() for line in self._vt.view()]

    @property
    def lines(self) -> "list[Line]":
        """The cells of the screen, with their colours."""
        return self._vt.view()

    @property
    def cursor(self) -> "Cursor":
        return self._vt.cursor

    @property
    def size(self) -> TerminalSize:
        return self._size

    @property
    def scrolled(self) -> "list[Line]":
        """The lines above the screen that are kept."""
        return self._vt.lines()[: -self._size.rows]

    def snapshot(self, offset: int) -> ScreenSnapshot:
        """Of everything fed so far, which ends at ``offset``.

        While a program uses the alternate screen, the lines above the other one cannot be told.
        """
        above = self.scrolled
        scrolled = _painted_lines(above)
        if above:
            # So many line ends that the last of them has left the screen; what follows starts at its top.
            scrolled += "\r\n" * (self._size.rows - 1) + "\x1b[H"
        # The emulator writes control sequences in their 8-bit form, and repeats characters: not every other reads that.
        screen = self._vt.dump().replace("\x9b", "\x1b[")
        screen = _REPEATED.sub(lambda match: match[1] * (1 + int(match[2])), screen)
        unfinished, _ = self._decoder.getstate()
        data = (scrolled + self._modes.sequences() + screen).encode() + unfinished
        return ScreenSnapshot(offset=offset, size=self._size, data=data)


def _emulator(size: TerminalSize, scrollback_lines: int) -> "Vt":
    """Loaded when it is wanted: most workspaces never have a terminal."""
    from avt._avt import Vt

    return Vt(max(_LEAST_COLUMNS, size.columns), size.rows, scrollback_lines)


def _piece_chars(size: TerminalSize) -> int:
    """How much to feed at once: a line feed makes a new line, a request to scroll (five characters) a screen full of them."""
    grown_bytes = _CELL_BYTES * size.columns * max(1, size.rows // 5)
    return min(max(16, _FED_BYTES // grown_bytes), 64 * 1024)


def _painted_lines(lines: "list[Line]") -> str:
    """Lines as text and colours. One that went on in the next goes on in the next, whatever the width will be."""
    from avt._avt.util import TextUnwrapper

    unwrapper = TextUnwrapper()
    parts: list[str] = []
    for line in lines:
        goes_on = unwrapper.push(line) is None
        parts.append(_painted(line) if goes_on else _painted(line).rstrip(" ") + "\r\n")
    if parts and not parts[-1].endswith("\r\n"):
        parts.append("\r\n")
    return "".join(parts)


def _painted(line: "Line") -> str:
    """A line as text and colours."""
    parts: list[str] = []
    for sgr, cells in groupby(line.cells, _sgr_of):
        text = "".join(cell.char for cell in cells if cell.width > 0)
        parts.append(f"\x1b[{sgr}m{text}\x1b[m" if sgr else text)
    return "".join(parts)


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
