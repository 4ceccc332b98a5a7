"""The terminal of the person who runs us: taken over for a while, and given back as it was whatever happens."""

import asyncio
import os
import re
import termios
import tty
from contextlib import suppress
from types import TracebackType
from typing import Self

from shadow.cli.outcome import WrongUsage
from shadow.cli.streams import BlockingThread, write_all
from shadow.core.terminals import MAX_CELLS_A_SIDE, ScreenSnapshot, TerminalSize
from shadow.terminal.leaving import Leaving

STDIN, STDOUT = 0, 1
READ_BYTES = 32 * 1024
SETTLE_S = 1.0
DEFAULT_DETACH_KEY = "ctrl-]"
_ERASE_BELOW = b"\x1b[J"


class DetachKey:
    """The key that leaves: a control character, or none at all."""

    def __init__(self, name: str) -> None:
        """``ctrl-]``, ``^]`` or ``none``. Raises: WrongUsage."""
        self.name = name
        self._forms: re.Pattern[bytes] | None = None
        if name == "none":
            return
        match = re.fullmatch(r"(?:ctrl-|c-|\^)([a-z@\[\]\\^_])", name.lower())
        if match is None:
            raise WrongUsage(f"--detach-key cannot be {name!r}.", mend="Give ctrl-] or another such, or none.")
        key, code = match[1], ord(match[1].upper()) & 31
        self.name = f"Ctrl-{key.upper()}"
        # As programs may have asked the terminal to send it: as ever, in the manner of kitty, in that of xterm.
        kitty, xterm = rb"\x1b\[%d;5(?::1)?u" % ord(key), rb"\x1b\[27;5;%d~" % ord(key)
        self._forms = re.compile(b"|".join((re.escape(bytes([code])), kitty, xterm)))

    def find(self, data: bytes) -> int | None:
        """Where it is in what was typed."""
        match = self._forms.search(data) if self._forms is not None else None
        return match.start() if match is not None else None


def check_is_terminal() -> None:
    """Raises: WrongUsage."""
    for descriptor, name in ((STDIN, "stdin"), (STDOUT, "stdout")):
        if not os.isatty(descriptor):
            raise WrongUsage(
                f"This needs a terminal, and {name} is not one.",
                mend="Without one: `shadow workspace exec` runs a command, `shadow logs` shows its output.",
            )


class LocalTerminal:
    """Raw while it is entered: every key comes as bytes, every byte is shown as the program wrote it."""

    def __init__(self) -> None:
        self._output = BlockingThread("terminal")
        self._leaving = Leaving()
        self._saved: list[object] | None = None
        self._last_words = b""

    def __enter__(self) -> Self:
        self._saved = termios.tcgetattr(STDIN)
        self.take()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # It may be gone by now, its window closed: then nothing is to be given back.
        # It may also stand still: that must not keep us from leaving.
        with suppress(OSError):
            blocking = os.get_blocking(STDOUT)
            os.set_blocking(STDOUT, False)
            try:
                os.write(STDOUT, self._leaving.way_back() + self._last_words)
            finally:
                os.set_blocking(STDOUT, blocking)
        assert self._saved is not None
        with suppress(termios.error):
            termios.tcsetattr(STDIN, termios.TCSANOW, self._saved)  # pyright: ignore[reportArgumentType]

    def take(self) -> None:
        """Also once more, after we were stopped and the shell had it. What was typed already is kept."""
        with suppress(termios.error):
            tty.setraw(STDIN, termios.TCSANOW)

    def cut(self) -> None:
        """The program goes on, and its cursor stands anywhere: what it drew below would mix with what comes next."""
        self._last_words = _ERASE_BELOW

    @property
    def size(self) -> TerminalSize:
        try:
            columns, rows = os.get_terminal_size(STDOUT)
        except OSError:
            columns, rows = 0, 0
        default = TerminalSize()
        return TerminalSize(
            columns=min(columns, MAX_CELLS_A_SIDE) or default.columns, rows=min(rows, MAX_CELLS_A_SIDE) or default.rows
        )

    async def read(self) -> bytes:
        """What was typed next; nothing where it is gone."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(STDIN, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(STDIN)
        try:
            return os.read(STDIN, READ_BYTES)
        except OSError:
            return b""  # EIO: its other end has gone

    async def show(self, data: bytes) -> None:
        self._leaving.feed(data)
        await self._output.call(lambda: write_all(STDOUT, data))

    async def settle(self) -> None:
        """What is being shown comes to its end, unless the terminal stands still."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._output.call(lambda: None)

    async def paint(self, snapshot: ScreenSnapshot) -> None:
        """In place of what is there, which scrolls away."""
        rows = self.size.rows
        clean = self._leaving.way_back() + b"\r" + b"\n" * rows + b"\x1b[H\x1b[2J"
        self._leaving = Leaving()
        self._leaving.feed(snapshot.data)
        await self._output.call(lambda: write_all(STDOUT, clean + snapshot.data))
