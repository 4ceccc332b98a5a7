"""Versions of files: what tells whether a file is still the one that somebody saw, for the price of one ``fstat``.

A version is made of a regular file's device, inode, size, and the times of its last write and its last change; a hash of the
content would cost a read of all of it for each look at a large file. What the kernel stamps changes with every write, but its
clock for that stands still for a tick (1 to 10 ms), in which a second write of the same size in place leaves the same stamps
(Linux before 6.13, and some file systems still). So:

- Who *tells* a version waits until the tick of the last write is over (``settled``): any later write is stamped with another
  one. A file that is written in every tick has no version that could be told.
- What we write ourselves is a new inode whose time of the last write we set to the nanosecond. A write in place sets it to the
  kernel's tick, so that nobody has to wait for the version of what was just written.

What it does not see: stores through a shared mapping to a page that is already dirty, which the kernel does not stamp; a program
that writes within one tick and sets the time of the last write back to the nanosecond; file systems whose stamps are coarser
than a tick. A version may also change where the content does not (a change of mode, a further link).

``expected`` is compared under the lock of the path (``writing.PathLocks``), right before the file is replaced, renamed or
removed: of all changes that come through this executor exactly one sees it unchanged. Programs in the workspace take no such
lock, and Linux has no call that replaces a file only if it is a certain one: what they write between our look and our rename, a
few microseconds, is lost, as it is with any two programs that write one file.
"""

import os
import stat
import time
from collections.abc import Callable
from functools import partial

from shadow.core.files import check_version
from shadow.execution.path_text import show_path

_TICKS = 5  # CLOCK_REALTIME_COARSE, which Python has no name for: what the kernel stamps files with
_TICK_NS = max(1, round(time.clock_getres(_TICKS) * 1e9))
_TRIES = 3


def version_of(found: os.stat_result) -> str:
    """Empty for what is no regular file."""
    if not stat.S_ISREG(found.st_mode):
        return ""
    return f"{found.st_dev:x}.{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}.{found.st_ctime_ns:x}"


def settled(look: Callable[[], os.stat_result]) -> os.stat_result | None:
    """A regular file as it is now, once every later write will show; ``None``: it is written too often. Blocks for ticks."""
    for _ in range(_TRIES):
        now_ns = time.clock_gettime_ns(
            _TICKS
        )  # before the look: what comes after the look is stamped with this or later
        found = look()
        if not _may_be_stamped_again(found, now_ns):
            return found
        time.sleep(_TICK_NS / 1e9)
    return None


def _may_be_stamped_again(found: os.stat_result, now_ns: int) -> bool:
    """Whether a write from ``now_ns`` on could leave the very same stamps. A write sets both times to the same tick."""
    is_of_a_write = found.st_mtime_ns == found.st_ctime_ns
    return (
        is_of_a_write and now_ns <= found.st_ctime_ns <= now_ns + 2 * _TICK_NS
    )  # further ahead: the clock was set back


class Reading:
    """Around reading an open file: which version it was, if it was one from beginning to end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = settled(partial(os.fstat, fd))

    def version(self) -> str:
        """Empty where the file was changed meanwhile, or is all the time."""
        if self._before is None:
            return ""
        before = version_of(self._before)
        return before if version_of(os.fstat(self._fd)) == before else ""


def stamp(fd: int) -> int:
    """Set the time of the last write of a file that is ours alone to now, in nanoseconds; what it is then."""
    found = os.fstat(fd)
    os.utime(fd, ns=(found.st_atime_ns, time.time_ns()))
    return os.fstat(fd).st_mtime_ns


def check_place(directory: int, name: bytes, expected: str | None, path: str) -> None:
    """What ``name`` is at this moment; a link is not followed, and has no version. Raises: Changed, Rejected."""
    if expected is None:
        return
    try:
        now = version_of(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        now = None
    check_version(now, expected, show_path(path))
