"""The route of changes, as server-sent events."""

from typing import assert_never

from starlette.requests import Request

from shadow.core.watching import ChangesMissed, FileChanges, Watching
from shadow.execution.interface import WatchEvent
from shadow.http.events import EventStream
from shadow.http.holds import Holds
from shadow.http.requests import read_query
from shadow.http.routes import ApiRoute, ApiRoutes, Raw
from shadow.sidecar.operations import ExecutorOf
from shadow.wire.files import DirectoryQuery
from shadow.wire.server_sent import EVENTS, encode_event
from shadow.wire.watching import ChangesMissedMessage, FileChangesMessage


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
                answer=Raw(about="Server-sent events, as docs/sidecar.md says.", media_types=(EVENTS,)),
            )
        ]

    async def watch(self, request: Request) -> EventStream[WatchEvent]:
        events = self._executor(request).watch(read_query(request, DirectoryQuery).path)
        return EventStream(events, encode, self._holds)


def encode(event: WatchEvent) -> bytes:
    match event:
        case Watching():
            return encode_event("watching", b"{}")
        case FileChanges():
            return encode_event("changes", FileChangesMessage.of(event).json_bytes())
        case ChangesMissed():
            return encode_event("missed", ChangesMissedMessage.of(event).json_bytes())
        case _:
            assert_never(event)
