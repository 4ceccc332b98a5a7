"""Server-sent events, as fast as their reader takes them; what it does not take is not kept here."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from shadow.core.errors import ShadowError
from shadow.execution.streams import closing
from shadow.http.holds import Holds, Stopping
from shadow.wire.errors import encode_error
from shadow.wire.server_sent import EVENTS, HEARTBEAT, encode_event

HEARTBEAT_S = 10.0
BEATS_BEFORE_STALLED = 6
"""After how many beats without taking anything a reader is given up."""

T = TypeVar("T")


class EventStream(Generic[T]):
    """The first event is awaited before anything is sent: until then an error has its status."""

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
        async with closing(self._events) as events:
            first = await anext(events, None)
            headers = [(b"content-type", EVENTS.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                async with self._holds.hold(receive):
                    if first is not None:
                        await self._send(send, self._encode(first))
                        await self._pump(events, send)
                last = encode_event("end", b"{}")
            except ShadowError as error:
                last = encode_event("error", encode_error(error))
            except Stopping:
                last = b""  # the reader sees no end and comes again
            except ClientDisconnect:
                return
        await send({"type": "http.response.body", "body": last})

    async def _pump(self, events: AsyncIterator[T], send: Send) -> None:
        following = asyncio.ensure_future(_following(events))
        try:
            while True:
                await asyncio.wait((following,), timeout=self._heartbeat_s)
                if not following.done():
                    await self._send(send, HEARTBEAT)
                    continue
                event = following.result()
                if event is None:
                    return
                await self._send(send, self._encode(event))
                following = asyncio.ensure_future(_following(events))
        finally:
            following.cancel()
            await asyncio.wait((following,))  # nothing may run in the generator when it is closed

    async def _send(self, send: Send, data: bytes) -> None:
        """A reader that takes nothing for so long is given up."""
        try:
            async with asyncio.timeout(self._heartbeat_s * BEATS_BEFORE_STALLED):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            raise ClientDisconnect from None


async def _following(events: AsyncIterator[T]) -> T | None:
    return await anext(events, None)
