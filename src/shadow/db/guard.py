"""Who uses a database file: everybody who has it open shares a lock beside it, and who replaces it has the lock alone."""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from shadow.core.errors import Conflict, Unavailable

WAIT_S = 10.0
_POLL_S = 0.02


def lock_path(database: Path) -> Path:
    return database.with_name(f"{database.name}.lock")


@asynccontextmanager
async def shared(database: Path) -> AsyncGenerator[None]:
    """While the file is open. Raises: Unavailable: it is being replaced all the time; OSError."""
    with _opened(database) as fd:
        try:
            async with asyncio.timeout(WAIT_S):
                while not _try(fd, fcntl.LOCK_SH):  # noqa: ASYNC110 - the kernel tells nobody when a lock becomes free
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise Unavailable("The database is being restored.", mend="Try again when it is done.") from error
        yield


@contextmanager
def alone(database: Path) -> Generator[None]:
    """While the file is replaced. Raises: Conflict: somebody has it open; OSError."""
    with _opened(database) as fd:
        if not _try(fd, fcntl.LOCK_EX):
            raise Conflict(
                f"{database} is in use by another Shadow process.",
                mend="End `shadow run` and everything else that uses it; then try again.",
            )
        yield


@contextmanager
def reading(database: Path) -> Generator[None]:
    """As ``shared``, without waiting. Raises: Unavailable: it is being replaced; OSError."""
    with _opened(database) as fd:
        if not _try(fd, fcntl.LOCK_SH):
            raise Unavailable("The database is being restored.", mend="Try again when it is done.")
        yield


@contextmanager
def _opened(database: Path) -> Generator[int]:
    """The lock goes with the last descriptor, however its process ends."""
    fd = os.open(lock_path(database), os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
