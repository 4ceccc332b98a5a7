"""The route of changes: server-sent events, as fast as its reader takes them; what it does not take is not kept here."""

import asyncio
from collections.abc import AsyncIterator
from typing import assert_never

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from shadow.core.errors import ShadowError
from shadow.core.watching import ChangesMissed, FileChanges, Watching
from shadow.execution.interface import WatchEvent
from shadow.execution.streams import closing
from shadow.http.holds import Holds, Stopping
from shadow.http.requests import read_query
from shadow.http.routes import ApiRoute, ApiRoutes, Raw
from shadow.sidecar.operations import ExecutorOf
from shadow.sidecar.output import BEATS_BEFORE_STALLED, HEARTBEAT_S
from shadow.wire.errors import encode_error
from shadow.wire.files import DirectoryQuery
from shadow.wire.watching import HEARTBEAT, MEDIA_TYPE, ChangesMissedMessage, FileChangesMessage, encode_event


class WatchRoutes:
    def __init__(self, executor: ExecutorOf, holds: Holds) -> None:
        self._executor = executor
        self._holds = holds

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/watch",
                self.watch,
                summary="Changes of files below a directory from now on.",
                query=DirectoryQuery,
                answer=Raw(about="Server-sent events, as docs/sidecar.md says.", media_types=(MEDIA_TYPE,)),
            )
        ]

    async def watch(self, request: Request) -> "WatchStream":
        return WatchStream(self._executor(request).watch(read_query(request, DirectoryQuery).path), self._holds)


class WatchStream:
    """The first event is awaited before anything is sent: until then an error has its status."""

    def __init__(self, events: AsyncIterator[WatchEvent], holds: Holds, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._events = events
        self._holds = holds
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holds.admission.stream():
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        async with closing(self._events) as events:
            first = await anext(events, None)
            headers = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                async with self._holds.hold(receive):
                    if first is not None:
                        await self._send(send, _encode(first))
                        await self._pump(events, send)
                last = encode_event("end", b"{}")
            except ShadowError as error:
                last = encode_event("error", encode_error(error))
            except Stopping:
                last = b""  # the reader sees no end and comes again
            except ClientDisconnect:
                return
        await send({"type": "http.response.body", "body": last})

    async def _pump(self, events: AsyncIterator[WatchEvent], send: Send) -> None:
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
                await self._send(send, _encode(event))
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


async def _following(events: AsyncIterator[WatchEvent]) -> WatchEvent | None:
    return await anext(events, None)


def _encode(event: WatchEvent) -> bytes:
    match event:
        case Watching():
            return encode_event("watching", b"{}")
        case FileChanges():
            return encode_event("changes", FileChangesMessage.of(event).json_bytes())
        case ChangesMissed():
            return encode_event("missed", ChangesMissedMessage.of(event).json_bytes())
        case _:
            assert_never(event)
