"""The holder's event loop: descriptors, timers, child processes. Small, so that an idle workspace costs little."""

import heapq
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class Timer:
    at: float
    order: int
    call: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        self.call = None


class Loop:
    """``run`` serves until ``stop``. ``on_children`` is called after SIGCHLD, ``on_idle`` once after each batch of events."""

    def __init__(self, *, on_children: Callable[[], None], on_idle: Callable[[], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._order = 0
        self._stopped = False
        self._on_children = on_children
        self._on_idle = on_idle
        self._wakeup, wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        # The handler does nothing: the byte in the wake-up pipe is the message.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._drain_wakeup)

    def time(self) -> float:
        return time.monotonic()

    def watch(self, fd: int, call: Callable[[], object], *, write: bool = False) -> None:
        """Call when ``fd`` is readable, or with ``write`` writable; replaces an earlier watch of the same descriptor."""
        events = selectors.EVENT_WRITE if write else selectors.EVENT_READ
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, call)
        else:
            self._selector.register(fd, events, call)

    def watch_both(self, fd: int, call: Callable[[], object]) -> None:
        self._selector.modify(fd, selectors.EVENT_READ | selectors.EVENT_WRITE, call)

    def unwatch(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self._order += 1
        timer = Timer(self.time() + delay_s, self._order, call)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        self._on_children()  # some may have ended before anybody listened
        while not self._stopped:
            for key, _ in self._selector.select(self._timeout()):
                # An earlier callback of this batch may have ended the watch.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            while self._timers and self._timers[0].at <= self.time():
                call = heapq.heappop(self._timers).call
                if call is not None:
                    call()
            self._on_idle()

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        # epoll counts milliseconds in 32 bits; waking once an hour costs nothing.
        return min(max(0.0, self._timers[0].at - self.time()), 3600.0) if self._timers else None

    def _drain_wakeup(self) -> None:
        os.read(self._wakeup, 4096)
        self._on_children()
