"""Time as the mock sees it: the host's, or a virtual one that moves only while somebody waits for it."""

import asyncio
import heapq
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

DEFAULT_START = 1_700_000_000.0
SETTLING_PASSES = 50
"""Rounds of the event loop that everything gets to go on before virtual time moves again."""
MAX_BUSY_ROUNDS = 1000
"""How often that is granted anew to commands that go on and on: one that never stops must not hold time up for ever."""


class Time(ABC):
    """What the mock tells the time by and waits with. Seconds since 1970."""

    @abstractmethod
    def now(self) -> float: ...

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """As a caller does it, whom time must not keep waiting for ever."""

    @abstractmethod
    async def background_sleep(self, seconds: float) -> None:
        """As a command or a lease does it, for which time does not move by itself."""

    @contextmanager
    def waiting(self) -> Generator[None]:
        """A caller waits for something within the block."""
        yield

    def active(self) -> None:  # noqa: B027 - real time goes on by itself
        """A command does something that takes no time."""

    async def wait(self, event: asyncio.Event, timeout_s: float | None = None, *, background: bool = False) -> bool:
        """Whether ``event`` came within ``timeout_s``."""
        if event.is_set():
            return True
        if background:
            return await self._race(event, timeout_s)
        with self.waiting():
            return await self._race(event, timeout_s)

    async def _race(self, event: asyncio.Event, timeout_s: float | None) -> bool:
        if timeout_s is None:
            return await event.wait()
        waits = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(self.background_sleep(timeout_s))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return event.is_set()
        finally:
            for wait in waits:
                wait.cancel()


class RealTime(Time):
    """``clock`` and ``sleep`` as they are given."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep

    def now(self) -> float:
        return self._clock()

    async def sleep(self, seconds: float) -> None:
        await self._sleep(seconds)

    async def background_sleep(self, seconds: float) -> None:
        await self._sleep(seconds)


class VirtualTime(Time):
    """Stands still while nobody waits in a call; then jumps from one thing that is due to the next, in order.

    So hours pass in milliseconds, and in the same order each time. While a caller computes or waits elsewhere (for a model,
    a database), no time passes here.
    """

    def __init__(self, *, start: float = DEFAULT_START) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._changes = 0
        """Counts whoever begins or ends to sleep or to wait."""
        self._activity = 0
        self._waiting = 0
        self._moving: asyncio.Task[None] | None = None

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        with self.waiting():
            await self.background_sleep(seconds)

    async def background_sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._changes += 1
        due = max(self._now + seconds, math.nextafter(self._now, math.inf))  # the shortest sleep moves time too
        sleeper = (due, self._changes, asyncio.get_running_loop().create_future())
        heapq.heappush(self._sleepers, sleeper)
        self._move()
        try:
            await sleeper[2]
        except asyncio.CancelledError:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)
            raise

    @contextmanager
    def waiting(self) -> Generator[None]:
        self._waiting += 1
        self._changes += 1
        self._move()
        try:
            yield
        finally:
            self._waiting -= 1
            self._changes += 1

    def active(self) -> None:
        self._activity += 1

    def _move(self) -> None:
        """See to it that time moves where somebody waits."""
        if self._waiting and self._sleepers and (self._moving is None or self._moving.done()):
            self._moving = asyncio.get_running_loop().create_task(self._pass_time())

    async def _pass_time(self) -> None:
        busy_rounds = 0
        while True:
            changes, activity = self._changes, self._activity
            for _ in range(SETTLING_PASSES):
                await asyncio.sleep(0)
            if not (self._waiting and self._sleepers):
                return
            if changes != self._changes:
                continue  # something goes on without time: calls that are answered at once
            busy_rounds += 1
            if activity != self._activity and busy_rounds < MAX_BUSY_ROUNDS:
                continue
            busy_rounds = 0
            due, _, sleeper = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not sleeper.done():
                sleeper.set_result(None)
