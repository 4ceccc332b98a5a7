"""How much a tree of files takes that hostile code has made and may be changing; in a child where nobody can wait for it."""

import os
import signal
import stat
from collections.abc import Callable
from contextlib import suppress

from shadow.core.errors import LimitExceeded
from shadow.core.limits import Limits, TreeSize, exceeded_by
from shadow.execution.holder.kernel import PR_SET_PDEATHSIG, prctl
from shadow.execution.holder.loop import Loop

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_ENTRIES_MEASURED = 20_000_000
_NICE = 19


def measure_tree(directory: int, *, enough: Limits | None = None) -> TreeSize:
    """Bytes on disk and entries below an open directory; hard links count once. What changes meanwhile is counted as it was met.

    With ``enough`` it stops once those limits are exceeded. Raises: LimitExceeded: above 20 million files.
    """
    return _Measurement(directory, enough or Limits()).run()


class _Measurement:
    """A walk with one descriptor for any depth: it climbs by ``..`` and goes on only where that is where it came from."""

    def __init__(self, directory: int, enough: Limits) -> None:
        self._enough = enough
        self._here = os.dup(directory)
        self._trail: list[tuple[tuple[int, int], list[str]]] = []
        """For each level: which directory it is, and the names below it that are still to visit."""
        self._linked: set[tuple[int, int]] = set()
        self._entries = 0
        self._bytes = 0

    def run(self) -> TreeSize:
        try:
            while True:
                self._trail.append((_identity(self._here), self._measure_level()))
                size = TreeSize(size_bytes=self._bytes, files=self._entries)
                if exceeded_by(self._enough, size) is not None or not self._go_on():
                    return size
        finally:
            os.close(self._here)

    def _measure_level(self) -> list[str]:
        directories: list[str] = []
        with suppress(FileNotFoundError), os.scandir(self._here) as scan:
            for entry in scan:
                self._entries += 1
                if self._entries > _MAX_ENTRIES_MEASURED:
                    raise LimitExceeded(f"More than {_MAX_ENTRIES_MEASURED} files are too many to measure.")
                try:
                    info = entry.stat(follow_symlinks=False)
                except OSError:  # it is gone, or its directory may be listed but not searched
                    continue
                if stat.S_ISDIR(info.st_mode):
                    directories.append(entry.name)
                elif info.st_nlink > 1:
                    key = (info.st_dev, info.st_ino)
                    if key in self._linked:
                        continue
                    self._linked.add(key)
                self._bytes += info.st_blocks * 512
        return directories

    def _go_on(self) -> bool:
        while self._trail:
            names = self._trail[-1][1]
            while names:
                try:
                    child = os.open(names.pop(), _DIRECTORY, dir_fd=self._here)
                except OSError:  # gone, replaced by something else, or closed to us: there is nothing to count
                    continue
                self._move(child)
                return True
            self._trail.pop()
            if self._trail:
                parent = os.open("..", _DIRECTORY, dir_fd=self._here)
                self._move(parent)
                if _identity(parent) != self._trail[-1][0]:  # moved meanwhile: never walk where it leads
                    return False
        return False

    def _move(self, fd: int) -> None:
        os.close(self._here)
        self._here = fd


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def measure_apart(loop: Loop, root: str, enough: Limits, on_result: Callable[[TreeSize | None], None]) -> None:
    """Measure ``root`` in a child process; ``on_result`` is called once, with ``None`` where it could not be done.

    Raises: OSError: where the system has no room for another process.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if child == 0:
        _measure_and_tell(root, enough, writer, parent)
    os.close(writer)

    def read() -> None:
        data = os.read(reader, 200)  # less than PIPE_BUF: it comes as a whole
        loop.unwatch(reader)
        os.close(reader)
        numbers = data.split()
        size = TreeSize(size_bytes=int(numbers[0]), files=int(numbers[1])) if len(numbers) == 2 else None
        on_result(size)

    loop.watch(reader, read)


def _measure_and_tell(root: str, enough: Limits, writer: int, parent: int) -> None:
    """The child: it never returns into the holder's code."""
    try:
        signal.set_wakeup_fd(-1)
        # Whatever the holder has open, pipes of commands above all, must end when the holder closes it.
        os.closerange(3, writer)
        os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            os.nice(_NICE)
            try:
                size = measure_tree(os.open(root, _DIRECTORY), enough=enough)
            except LimitExceeded:
                size = TreeSize(size_bytes=0, files=_MAX_ENTRIES_MEASURED)
            os.write(writer, b"%d %d" % (size.size_bytes, size.files))
    finally:
        os._exit(0)
