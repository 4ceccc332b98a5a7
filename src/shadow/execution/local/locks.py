"""Locks between processes: bytes of a file, owned by an open file description, so that a descriptor handed on keeps them.

They end with the last copy of the descriptor, however its owners end, and can be asked about without being taken.
"""

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from shadow.core.errors import Unavailable

ALIVE = 0
"""The byte that a workspace's holder keeps for as long as it lives."""
CHANGES = 1
"""The byte of who changes the manifest."""
REMOVING = 2
"""The byte of who takes the directory down."""
EGRESS = 3
"""The byte that a workspace's egress proxy keeps for as long as it lives."""

_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid
_POLL_S = 0.003


def open_lock(path: str | Path, *, directory_fd: int | None = None) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)


def try_lock(fd: int, byte: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def is_locked(fd: int, byte: int) -> bool:
    """Whether somebody else's description holds it; takes nothing."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    return _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK


async def lock(fd: int, byte: int, *, timeout_s: float = 10.0) -> None:
    """Raises: Unavailable: somebody else has held it all that time."""
    try:
        async with asyncio.timeout(timeout_s):
            while not try_lock(fd, byte):  # noqa: ASYNC110 - the kernel tells nobody when a lock becomes free
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Unavailable(
            f"Another process has held a lock of Shadow's for {timeout_s:.0f} s.",
            mend="Try again; if it stays, look for a stopped Shadow process.",
        ) from error


@asynccontextmanager
async def held(path: Path, *, byte: int = 0) -> AsyncGenerator[None]:
    """The lock for the length of a block of short, local work."""
    fd = open_lock(path)
    try:
        await lock(fd, byte)
        yield
    finally:
        os.close(fd)
