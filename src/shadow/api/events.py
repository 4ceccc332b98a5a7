"""A task's log: a page of it, or what is there and then what comes, as server-sent events or over a WebSocket."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from shadow.api.access import task
from shadow.core import accounts
from shadow.core.errors import Rejected, ShadowError
from shadow.core.events import Recorded
from shadow.core.tasks import TaskId
from shadow.db import events
from shadow.execution.streams import closing
from shadow.http.events import BEATS_BEFORE_STALLED, HEARTBEAT_S, EventStream
from shadow.http.holds import Holds, Stopping
from shadow.http.requests import integer, read_query
from shadow.http.responses import Answer
from shadow.http.routes import ApiRoute, ApiRoutes, ApiSocket, Raw
from shadow.tasks.service import Tasks
from shadow.wire.errors import encode_error
from shadow.wire.events import encode_page, encode_recorded
from shadow.wire.server_sent import EVENTS, encode_event
from shadow.wire.tasks import EventListMessage, EventsQuery

GOING_AWAY = 1001
DONE = 1000
STALLED_S = HEARTBEAT_S * BEATS_BEFORE_STALLED
PIECE_BYTES = 64 * 1024
MAX_KEPT = 1024
"""Encoded entries, none larger than"""
MAX_KEPT_BYTES = 16 * 1024


class Encoded:
    """Entries as JSON, encoded once for all who read them at about the same time: readers of one log get the same objects."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Recorded, bytes]] = {}
        """By identity, which nobody else has while the entry is kept here; the first one is the oldest."""

    def __call__(self, recorded: Recorded) -> bytes:
        kept = self._kept.get(id(recorded))
        if kept is not None:
            return kept[1]
        data = encode_recorded(recorded)
        if len(data) <= MAX_KEPT_BYTES:
            if len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[id(recorded)] = (recorded, data)
        return data


class EventRoutes:
    def __init__(self, tasks: Tasks, holds: Holds) -> None:
        self._tasks = tasks
        self._holds = holds
        self._encoded = Encoded()

    def routes(self) -> ApiRoutes:
        read: dict[str, Any] = {"access": accounts.Scope.TASKS_READ, "query": EventsQuery}
        return [
            ApiRoute(
                "GET",
                "/v1/tasks/{task_id}/events",
                self.page,
                summary="A page of the log.",
                answer=EventListMessage,
                **read,
            ),
            ApiRoute(
                "GET",
                "/v1/tasks/{task_id}/events/stream",
                self.stream,
                summary="The log behind `after`, and then what comes, without end.",
                answer=Raw(about="Server-sent events; `data` is one entry of the log.", media_types=(EVENTS,)),
                headers={"Last-Event-ID": "The number of the last event that was received; it outranks `after`."},
                **read,
            ),
            ApiSocket(
                "/v1/tasks/{task_id}/events/attach",
                EventSocket(self._tasks, self._holds, self._encoded),
                summary="A WebSocket: the log behind `after`, and then what comes, one entry a message.",
                **read,
            ),
        ]

    async def page(self, request: Request) -> Answer:
        query, one = read_query(request, EventsQuery), task(request)
        async with self._tasks.database.read() as connection:
            found = await events.page(connection, one.id, after=query.after, limit=query.limit)
        return Answer(encode_page(found, last=max(one.events, found[-1].seq if found else 0)))

    async def stream(self, request: Request) -> ASGIApp:
        query = read_query(request, EventsQuery)
        after = query.after
        seen = request.headers.get("last-event-id")
        if seen:
            after = integer(seen, what="Last-Event-ID")
            if not 0 <= after < 2**31:
                raise Rejected("Last-Event-ID must be the number of an event.")
        followed = _followed(self._tasks, task(request).id, query, after=after)
        return EventStream(_in_pieces(followed, self._encoded), bytes, self._holds)


async def _followed(
    tasks: Tasks, task_id: TaskId, query: EventsQuery, *, after: int
) -> AsyncGenerator[Sequence[Recorded]]:
    if not query.until_rest:
        async with closing(events.follow_together(tasks.database, task_id, after=after)) as together:
            async for some in together:
                yield some
        return
    async with closing(tasks.follow(task_id, after=after)) as followed:
        async for recorded in followed:
            yield (recorded,)
    await tasks.check_last_asked(task_id)


async def _in_pieces(followed: AsyncGenerator[Sequence[Recorded]], encoded: Encoded) -> AsyncGenerator[bytes]:
    """Server-sent events, those that are there at a time in as few pieces as their size allows."""
    async with closing(followed) as together:
        async for some in together:
            piece = bytearray()
            for recorded in some:
                piece += encode_event("event", encoded(recorded), place=recorded.seq)
                if len(piece) >= PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
            if piece:
                yield bytes(piece)


class EventSocket:
    """The ASGI endpoint. A reader that takes nothing for a minute is cut off, and comes again with ``after``."""

    def __init__(self, tasks: Tasks, holds: Holds, encoded: Encoded) -> None:
        self._tasks = tasks
        self._holds = holds
        self._encoded = encoded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        query = read_query(HTTPConnection(scope), EventsQuery)
        with self._holds.admission.stream():
            await socket.accept()
            with suppress(WebSocketDisconnect):  # also where it has gone while we say goodbye
                await self._serve_or_say_why(socket, query)

    async def _serve_or_say_why(self, socket: WebSocket, query: EventsQuery) -> None:
        try:
            async with self._holds.stoppable():
                await self._serve(socket, task(socket).id, query)
        except Stopping:
            await socket.close(GOING_AWAY, "restarting")
        except ShadowError as error:
            await socket.send_text(encode_error(error).decode())
            await socket.close(DONE)

    async def _serve(self, socket: WebSocket, task_id: TaskId, query: EventsQuery) -> None:
        """Until the client leaves, or the task is deleted, or at rest where that was asked for."""
        leaving = asyncio.create_task(_left(socket))
        sending = asyncio.create_task(self._send_all(socket, task_id, query))
        try:
            await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                await socket.close(DONE)
                return
        finally:
            for one in (leaving, sending):
                one.cancel()
            await asyncio.wait((leaving, sending))
        raise WebSocketDisconnect

    async def _send_all(self, socket: WebSocket, task_id: TaskId, query: EventsQuery) -> None:
        loop = asyncio.get_running_loop()
        stalled = asyncio.timeout(None)
        try:
            async with stalled, closing(_followed(self._tasks, task_id, query, after=query.after)) as followed:
                async for some in followed:
                    for recorded in some:
                        stalled.reschedule(loop.time() + STALLED_S)
                        await socket.send_text(self._encoded(recorded).decode())
                    stalled.reschedule(None)
        except TimeoutError:
            if not stalled.expired():
                raise
            raise WebSocketDisconnect from None


async def _left(socket: WebSocket) -> None:
    """Whatever the client says means nothing here."""
    with suppress(WebSocketDisconnect):
        while True:
            if (await socket.receive())["type"] == "websocket.disconnect":
                return
