"""Standard streams as raw bytes, without ever blocking the event loop or the end of the process."""

import asyncio
import os
import queue
import select
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
PIECE_BYTES = 64 * 1024


def fill_closed() -> None:
    """Put /dev/null in place of standard streams that we were started without.

    Python has ``None`` for them, and what is opened next would get their numbers: output would go into a socket.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", encoding="utf-8"))


class BlockingThread:
    """Makes blocking calls one after the other, on a daemon thread: one that never returns holds nothing up."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((future, function))
        return await future

    def _work(self) -> None:
        while True:
            future, function = self._calls.get()
            try:
                value, error = function(), None
            except OSError as raised:
                value, error = None, raised
            try:
                self._loop.call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more


def _settle(future: asyncio.Future[Any], value: object, error: OSError | None) -> None:
    if future.done():
        return  # cancelled meanwhile
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, also where somebody else made the descriptor non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def read_some(descriptor: int) -> bytes:
    """The next bytes; none at the end."""
    while True:
        try:
            return os.read(descriptor, PIECE_BYTES)
        except BlockingIOError:
            select.select([descriptor], [], [])


def is_fed(descriptor: int) -> bool:
    """Whether somebody feeds this descriptor: it is a pipe, a socket or a file, not a terminal, /dev/null or closed."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)
