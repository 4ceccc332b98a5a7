"""A person at a terminal of their own, who runs ``shadow`` in it: types, looks at the screen, resizes, and walks away."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from types import TracebackType
from typing import Any, Self

from shadow.core.terminals import TerminalSize
from shadow.terminal.screen import Screen
from tests.support.shadow_cli import ShadowCli

DEADLINE_S = 30.0


class Person:
    """Everything that the terminal was sent is in ``sent``; ``screen`` shows it as an emulator does."""

    def __init__(self, cli: ShadowCli, *arguments: str, columns: int = 80, rows: int = 24) -> None:
        self.sent = bytearray()
        self.screen = Screen(TerminalSize(columns=columns, rows=rows), scrollback_lines=10_000)
        self._master, self._terminal = os.openpty()
        os.set_blocking(self._master, False)
        self._set_size(columns, rows)
        self.modes_before = self.modes
        # In a session of its own, whose controlling terminal it is: changes of the size come as signals.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *cli.argv, *arguments],
            env=cli.environment() | {"TERM": "xterm-256color"},
            cwd=cli.home,
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._master)
        os.close(self._terminal)

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._terminal)

    def type(self, keys: str | bytes) -> None:
        data = keys.encode() if isinstance(keys, str) else keys
        end = time.monotonic() + DEADLINE_S
        while data:
            assert time.monotonic() < end, "nobody takes what is typed"
            self._look(0)
            _, writable, _ = select.select([], [self._master], [], 0.05)
            if writable:
                data = data[os.write(self._master, data) :]

    def resize(self, columns: int, rows: int) -> None:
        self._set_size(columns, rows)
        self.screen.resize(TerminalSize(columns=columns, rows=rows))

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def sees(self, text: str) -> None:
        """Waits until the screen shows ``text``."""
        end = time.monotonic() + DEADLINE_S
        while text not in "\n".join(self.screen.text):
            assert time.monotonic() < end, f"{text!r} is not on the screen: {self.screen.text}"
            self._look(0.05)

    def is_sent(self, data: bytes, *, after: int = 0) -> int:
        """Waits until the terminal was sent ``data``; returns where that ends."""
        end = time.monotonic() + DEADLINE_S
        while (at := self.sent.find(data, after)) < 0:
            assert time.monotonic() < end, f"{data!r} was not sent: {bytes(self.sent[-2000:])!r}"
            self._look(0.05)
        return at + len(data)

    def leaves(self, *, within_s: float = DEADLINE_S) -> int:
        """Waits for the end of ``shadow``; returns its exit code."""
        end = time.monotonic() + within_s
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {bytes(self.sent[-2000:])!r}"
            self._look(0.02)
        while self._look(0):
            pass
        return self.process.returncode

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _look(self, timeout_s: float) -> bool:
        readable, _, _ = select.select([self._master], [], [], timeout_s)
        if not readable:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.sent += data
        self.screen.feed(data)
        return bool(data)
