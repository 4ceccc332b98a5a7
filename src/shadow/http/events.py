"""Server-sent events, as fast as their reader takes them; what it does not take is not kept here."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, Self, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from shadow.core.errors import ShadowError
from shadow.execution.streams import closing
from shadow.http.holds import Holds, Stopping
from shadow.wire.errors import encode_error
from shadow.wire.server_sent import EVENTS, HEARTBEAT, encode_event

FIRST_S = 1.0
HEARTBEAT_S = 10.0
BEATS_BEFORE_STALLED = 6
"""After how many beats without taking anything a reader is given up."""

T = TypeVar("T")


class EventStream(Generic[T]):
    """An error within ``FIRST_S``, before the first event, still has its status; then the answer begins in any case."""

    def __init__(
        self, events: AsyncIterator[T], encode: Callable[[T], bytes], holds: Holds, *, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._events = events
        self._encode = encode
        self._holds = holds
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holds.admission.stream():
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        async with closing(self._events) as events, _Ahead(events) as ahead:
            if await ahead.is_there(within_s=FIRST_S):
                ahead.look()
            headers = [(b"content-type", EVENTS.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                async with self._holds.hold(receive):
                    await self._pump(ahead, send)
                last = encode_event("end", b"{}")
            except ShadowError as error:
                last = encode_event("error", encode_error(error))
            except Stopping:
                last = b""  # the reader sees no end and comes again
            except ClientDisconnect:
                return
        await send({"type": "http.response.body", "body": last})

    async def _pump(self, ahead: "_Ahead[T]", send: Send) -> None:
        while True:
            if not await ahead.is_there(within_s=self._heartbeat_s):
                await self._send(send, HEARTBEAT)
                continue
            event = ahead.take()
            if event is None:
                return
            await self._send(send, self._encode(event))

    async def _send(self, send: Send, data: bytes) -> None:
        """A reader that takes nothing for so long is given up."""
        try:
            async with asyncio.timeout(self._heartbeat_s * BEATS_BEFORE_STALLED):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            raise ClientDisconnect from None


class _Ahead(Generic[T]):
    """The next of ``events`` is awaited, however often one looks whether it is there."""

    def __init__(self, events: AsyncIterator[T]) -> None:
        self._events = events
        self._next = asyncio.ensure_future(_following(events))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._next.cancel()
        await asyncio.wait((self._next,))  # nothing may run in the generator when it is closed

    async def is_there(self, *, within_s: float) -> bool:
        await asyncio.wait((self._next,), timeout=within_s)
        return self._next.done()

    def look(self) -> T | None:
        """``None``: there is none any more. Raises: what the events end with."""
        return self._next.result()

    def take(self) -> T | None:
        taken = self._next.result()
        if taken is not None:
            self._next = asyncio.ensure_future(_following(self._events))
        return taken


async def _following(events: AsyncIterator[T]) -> T | None:
    return await anext(events, None)
