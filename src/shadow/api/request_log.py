"""One log event for each request, and ids that everything logged below it has: never a body, a token or a value of a query."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from starlette.types import Message, Scope, Send
from structlog.contextvars import bind_contextvars, bound_contextvars

from shadow.api.access import PRINCIPAL, PUBLIC, TASK
from shadow.core.accounts import Principal
from shadow.core.ids import make_id
from shadow.core.tasks import Task
from shadow.http.admission import Clock
from shadow.http.requests import Entropy
from shadow.http.routes import ROUTE, ApiRoute, ApiSocket

HEADER = b"x-request-id"
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_BEGINS = ("http.response.start", "websocket.accept", "websocket.http.response.start")

log = structlog.get_logger("shadow.server")


class _Told:
    """Passes an answer on with the request's id, and keeps its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._header = (HEADER, request_id.encode())
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if self.status is None and message["type"] in _BEGINS:
            self.status = message.get("status", 101)
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        await self._send(message)


@asynccontextmanager
async def logged(scope: Scope, send: Send, *, clock: Clock, entropy: Entropy) -> AsyncGenerator[Send]:
    """Around one request, which has a context of its own; its answers go by what this gives."""
    began_at = clock()
    request_id = _request_id(scope) or make_id("req", entropy=entropy(12))
    told = _Told(send, request_id)
    with bound_contextvars(request_id=request_id):
        is_cut = True
        try:
            yield told.send
            is_cut = False
        finally:
            _tell(scope, told.status, ms=round((clock() - began_at) * 1000, 1), cut=is_cut)


def knows_user(who: Principal) -> None:
    bind_contextvars(user_id=who.user.id)


def knows_task(task: Task) -> None:
    bind_contextvars(task_id=task.id)


def _request_id(scope: Scope) -> str | None:
    """What the client, or a proxy, calls it, if that is harmless."""
    given = [value for name, value in scope["headers"] if name == HEADER]
    return given[0].decode() if len(given) == 1 and _GIVEN.fullmatch(given[0]) else None


def _tell(scope: Scope, status: int | None, *, ms: float, cut: bool) -> None:
    route: ApiRoute | ApiSocket | None = scope.get(ROUTE)
    who: Principal | None = scope.get(PRINCIPAL)
    task: Task | None = scope.get(TASK)
    event = {
        "method": "GET" if scope["type"] == "websocket" else scope["method"],
        "route": "" if route is None else route.path,
        "status": status,
        "ms": ms,
        "user_id": None if who is None else who.user.id,
        "task_id": None if task is None else task.id,
    }
    if cut:
        event["cut"] = True
    is_probe = route is not None and route.about.access == PUBLIC and route.method == "GET"
    (log.debug if is_probe else log.info)("request", **event)
