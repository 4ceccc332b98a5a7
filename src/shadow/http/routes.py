"""Routes that say what they take and give: the router, the metrics and the description of the API read the same."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from shadow.wire.message import Message

OCTETS = "application/octet-stream"
ROUTE = "shadow.route"
"""Where a request's scope has its route, once there is one."""

Handler = Callable[[Request], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A body that is not a message."""

    about: str
    media_types: tuple[str, ...] = (OCTETS,)
    """Which of them an answer has, ``Accept`` says; the first is the default."""
    max_bytes: int | None = None
    """Of a request; ``None``: as much as the disk takes."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers of an answer, and what they say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a route does, for whoever writes a client."""

    summary: str
    query: type[Message] | None = None
    body: type[Message] | Raw | None = None
    answer: type[Message] | tuple[type[Message], ...] | Raw | None = None
    """``None``: an empty object. One of several where there are several."""
    status: int = 200
    """Of a good answer."""
    operation: bool = False
    """Whether it takes an operation id and an epoch."""
    access: str | None = None
    """What a caller needs, in the words of the application; ``None``: what the application says of such routes."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further headers that it takes, and what they do."""


class ApiRoute(Route):
    """``about`` takes the fields of ``About``."""

    def __init__(self, method: str, path: str, handler: Handler, **about: Any) -> None:
        super().__init__(path, handler, methods=[method])
        self.methods = {method}  # no HEAD, which Starlette would add: nobody asks for the headers of a stream
        self.method = method
        self.handler = handler
        self.about = About(**about)

    def beneath(self, prefix: str) -> "ApiRoute":
        """The same below ``prefix`` instead of ``/v1``."""
        return ApiRoute(self.method, prefix + self.path.removeprefix("/v1"), self.handler, **_fields(self.about))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != self.method:  # the path alone matches: nothing is entered for that
            raise HTTPException(405)
        scope[ROUTE] = self
        async with scope["app"].entered(self, scope):
            await super().handle(scope, receive, send)


class ApiSocket(WebSocketRoute):
    """A WebSocket; ``about`` takes the fields of ``About``."""

    method = "GET"

    def __init__(self, path: str, endpoint: ASGIApp, **about: Any) -> None:
        super().__init__(path, endpoint)
        self.about = About(**about)

    def beneath(self, prefix: str) -> "ApiSocket":
        """The same below ``prefix`` instead of ``/v1``."""
        return ApiSocket(prefix + self.path.removeprefix("/v1"), self.endpoint, **_fields(self.about))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE] = self
        async with scope["app"].entered(self, scope):
            await super().handle(scope, receive, send)


def _fields(about: About) -> dict[str, Any]:
    return {field.name: getattr(about, field.name) for field in fields(about)}


ApiRoutes = list[ApiRoute | ApiSocket]
