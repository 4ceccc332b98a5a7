"""Blocking file-system calls in threads, so that the event loop stays free."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(Exception):
    """A long call noticed that nobody waits for it any more."""


class Stop:
    """Asked now and then by a long call; set when its caller is cancelled."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises: Stopped."""
        if self._event.is_set():
            raise Stopped


async def in_thread(stop: Stop | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``call``. When cancelled, its end is awaited first: nothing that it uses is closed beneath it."""
    future = asyncio.get_running_loop().run_in_executor(None, functools.partial(call, *args, **kwargs))
    try:
        await asyncio.wait((future,))
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((future,))
        future.exception()  # nobody is left to hear of it
        raise
    return future.result()
