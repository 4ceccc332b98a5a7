"""The descriptors of a new command: pipes, or a terminal."""

import os
from dataclasses import dataclass, field

from shadow.core.commands import Channel, StdinMode
from shadow.core.terminals import TerminalSize
from shadow.execution.holder.pty import open_pty


@dataclass(slots=True)
class Stdio:
    theirs: list[int] = field(default_factory=list[int])
    """What the command gets as 0, 1 and 2."""
    outputs: dict[int, Channel] = field(default_factory=dict[int, Channel])
    """What it writes comes out of these."""
    stdin: int | None = None
    """What goes in here it reads."""
    pty: int | None = None
    """Our end of its terminal; also among ``outputs``."""
    tty: str | None = None
    """The path of its end."""
    kept: int | None = None
    """Its end once more, for us: programs may close theirs and open it again, and a PTY that nobody has is at its end."""

    def close_theirs(self) -> None:
        """They have been handed on."""
        for fd in set(self.theirs):
            os.close(fd)
        self.theirs.clear()

    def close_ours(self) -> None:
        """There is no command after all."""
        for fd in (*self.outputs, self.stdin, self.kept):
            if fd is not None:
                os.close(fd)


def open_stdio(mode: StdinMode, size: TerminalSize | None) -> Stdio:
    """With ``size`` a terminal. Raises: OSError: there are no more descriptors or terminals."""
    stdio = Stdio()
    try:
        if size is None:
            _pipes(stdio, mode)
        else:
            _terminal(stdio, size)
    except OSError:
        stdio.close_theirs()
        stdio.close_ours()
        raise
    return stdio


def _pipes(stdio: Stdio, mode: StdinMode) -> None:
    if mode is StdinMode.OPEN:
        read, stdio.stdin = os.pipe2(os.O_CLOEXEC)
    else:
        read = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    stdio.theirs.append(read)
    for channel in Channel:
        read, write = os.pipe2(os.O_CLOEXEC)
        stdio.outputs[read] = channel
        stdio.theirs.append(write)


def _terminal(stdio: Stdio, size: TerminalSize) -> None:
    stdio.pty, slave = open_pty(size)
    stdio.outputs[stdio.pty] = Channel.STDOUT
    stdio.theirs += (slave, slave, slave)
    stdio.tty = os.ttyname(slave)
    stdio.stdin = os.dup(stdio.pty)  # reading and writing are watched apart
    stdio.kept = os.dup(slave)
