"""What the program of a simulated command sees: its arguments, its directory, its input and output, and time."""

import asyncio
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from shadow.core.commands import Channel
from shadow.execution.mock.files import MockFiles
from shadow.execution.mock.output import MockOutput
from shadow.execution.mock.stdin import MockStdin
from shadow.execution.mock.times import Time
from shadow.execution.mock.tree import ROOT

DISCARDED = "/dev/null"


class NotSimulated(Exception):
    """The program would do something here that the mock does not simulate."""


class EndsBySignal(Exception):
    """A program that ends so is ``Signalled``."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.signal = signal


@dataclass(slots=True, kw_only=True, eq=False)
class Process:
    """A stopped one (SIGSTOP) goes no further than its next input, output or sleep."""

    argv: tuple[str, ...]
    cwd: str
    """From the workspace's root."""
    env: Mapping[str, str]
    files: MockFiles
    time: Time
    stdin: MockStdin
    output: MockOutput
    running: asyncio.Event
    """Cleared while it is stopped."""
    wrote: asyncio.Event
    targets: dict[Channel, Channel | str] = field(default_factory=dict[Channel, Channel | str])
    """Where output goes instead: to the other channel, or to the end of a file."""

    @property
    def directory(self) -> str:
        """Where it runs, as commands see it."""
        return ROOT if self.cwd == "." else f"{ROOT}/{self.cwd}"

    def path(self, name: str) -> str:
        """``name``, as this program means it, for ``files``."""
        return name if name.startswith("/") else posixpath.join(self.directory, name)

    async def read(self, size: int = 64 * 1024) -> bytes:
        """From stdin; nothing at its end."""
        await self.running.wait()
        self.time.active()
        return await self.stdin.read(size)

    async def write(self, data: bytes, channel: Channel = Channel.STDOUT) -> None:
        target = self.targets.get(channel, channel)
        if isinstance(target, str):
            await self.running.wait()
            if target != DISCARDED:
                self.files.write(target, self.files.open(target)[0] + data, create_parents=False)
            return
        step = self.output.layout.segment_bytes
        for start in range(0, len(data), step):
            await self.running.wait()
            piece = data[start : start + step]
            await self.output.room(len(piece))
            self.output.append(target, piece)
            self.wrote.set()
            self.time.active()
            await asyncio.sleep(0)  # as a pipe does, it gives readers their turn

    async def complain(self, text: str) -> None:
        """A line on stderr that begins with the program's name, as programs do it."""
        await self.write(f"{self.argv[0]}: {text}\n".encode("utf-8", "surrogateescape"), Channel.STDERR)

    async def sleep(self, seconds: float) -> None:
        await self.time.background_sleep(seconds)
        await self.running.wait()


def command_line(argv: tuple[str, ...]) -> str:
    """What ``MockCommand.pattern`` is matched with."""
    return shell_line(argv) or shlex.join(argv)


def shell_line(argv: tuple[str, ...]) -> str | None:
    """The line that a shell is asked to run."""
    if len(argv) >= 3 and posixpath.basename(argv[0]) in ("bash", "sh") and argv[1] in ("-c", "-lc"):
        return argv[2]
    return None
