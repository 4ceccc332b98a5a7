"""Requests that wait for something: each ends when its client goes away or the service stops."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from shadow.core.errors import OutcomeUnknown, ShadowError, Unavailable
from shadow.http.admission import Admission


class Stopping(Exception):
    """The service is about to end; a stream just stops, its reader resumes."""


class Holds:
    def __init__(self, admission: Admission, *, noun: str = "sidecar") -> None:
        self._noun = noun
        self.admission = admission
        """Whoever answers with a stream asks it first."""
        self._scopes: set[asyncio.Timeout] = set()
        self.stopping = False

    def stop(self) -> None:
        """End everything that waits, now."""
        self.stopping = True
        for scope in self._scopes:
            _expire(scope)

    @asynccontextmanager
    async def stoppable(self) -> AsyncGenerator[asyncio.Timeout]:
        """Raises: Stopping; TimeoutError where somebody else moved the deadline."""
        if self.stopping:
            raise Stopping
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                try:
                    yield scope
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            if not (scope.expired() and self.stopping):
                raise
            raise Stopping from None

    @asynccontextmanager
    async def hold(self, receive: Receive) -> AsyncGenerator[asyncio.Timeout]:
        """The body of the request must have been read. Raises: ClientDisconnect, Stopping."""
        gone = False
        scope: asyncio.Timeout | None = None

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            assert scope is not None
            _expire(scope)

        try:
            async with self.stoppable() as scope:
                watcher = asyncio.create_task(watch())
                try:
                    yield scope
                finally:
                    watcher.cancel()
        except Stopping:
            if gone:
                raise ClientDisconnect from None
            raise
        except TimeoutError:
            if scope is None or not scope.expired():
                raise
            raise ClientDisconnect from None

    @asynccontextmanager
    async def waiting(self, receive: Receive, *, mutates: bool) -> AsyncGenerator[None]:
        """A hold for calls with one answer: stopping is told as an error."""
        try:
            async with self.hold(receive):
                yield
        except Stopping:
            raise stopping_error(self._noun, mutates=mutates) from None


def stopping_error(noun: str, *, mutates: bool) -> ShadowError:
    told = f"The {noun} is being restarted."
    return OutcomeUnknown(told) if mutates else Unavailable(told)


def _expire(scope: asyncio.Timeout) -> None:
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())
