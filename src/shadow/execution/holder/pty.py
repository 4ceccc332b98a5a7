"""The holder's end of a terminal."""

import fcntl
import os
import struct
import termios

from shadow.core.terminals import TerminalSize

_IUTF8 = 0o40000


def open_pty(size: TerminalSize) -> tuple[int, int]:
    """Both ends, ours first. Raises: OSError where the system has no more."""
    master, slave = os.openpty()
    try:
        attributes = termios.tcgetattr(slave)
        attributes[0] |= _IUTF8  # erasing takes whole characters
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        set_size(slave, size)
    except (OSError, termios.error):
        os.close(master)
        os.close(slave)
        raise
    return master, slave


def set_size(fd: int, size: TerminalSize) -> None:
    """The kernel tells the foreground process group of a change."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))


def foreground_group(fd: int) -> int | None:
    """The process group that the keyboard goes to; ``None`` where there is none (any more)."""
    try:
        group = os.tcgetpgrp(fd)
    except OSError:
        return None
    return group if group > 0 else None
