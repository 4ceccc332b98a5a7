"""The sidecar as an ASGI application over any ``ToolExecutor``: who asks, where to, and what a failure is called."""

import logging
import os
import time

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Router
from starlette.types import Message, Receive, Scope, Send

from shadow.core.errors import Broken, Denied, NotFound, Rejected, ShadowError, Unavailable
from shadow.execution.interface import ToolExecutor
from shadow.sidecar.admission import Admission, Busy, Clock, SidecarLimits
from shadow.sidecar.auth import TokenCheck
from shadow.sidecar.commands import CommandRoutes
from shadow.sidecar.files import FileRoutes
from shadow.sidecar.git import GitRoutes
from shadow.sidecar.holds import Holds
from shadow.sidecar.metrics import Exchange, RequestMetrics
from shadow.sidecar.requests import SLOW_BODY, Entropy, Operations
from shadow.sidecar.responses import REQUEST_TIMEOUT, Answer, busy_answer, error_answer, unauthorized_answer
from shadow.sidecar.routes import ApiRoutes
from shadow.sidecar.search import SearchRoutes
from shadow.sidecar.terminals import TerminalRoutes
from shadow.sidecar.trees import TreeRoutes
from shadow.sidecar.watching import WatchRoutes
from shadow.sidecar.workspace import WorkspaceRoutes

log = logging.getLogger("shadow.sidecar")


class SidecarApp:
    def __init__(
        self,
        executor: ToolExecutor,
        *,
        token: str,
        limits: SidecarLimits | None = None,
        clock: Clock = time.monotonic,
        entropy: Entropy = os.urandom,
    ) -> None:
        self.limits = limits or SidecarLimits()
        self._token = TokenCheck(token)
        self._clock = clock
        self._metrics = RequestMetrics()
        self._admission = Admission(self.limits, clock=clock)
        self._holds = Holds(self._admission)
        operations = Operations(executor.epoch, entropy=entropy)
        self.routes: ApiRoutes = [
            *CommandRoutes(executor, operations, self._holds).routes(),
            *FileRoutes(executor, operations, self._holds).routes(),
            *GitRoutes(executor, operations, self._holds).routes(),
            *SearchRoutes(executor, self._holds).routes(),
            *TerminalRoutes(executor, operations, self._holds).routes(),
            *TreeRoutes(executor, operations, self._holds).routes(),
            *WatchRoutes(executor, self._holds).routes(),
            *WorkspaceRoutes(executor, self._admission, self._metrics, clock=clock, describe=self.description).routes(),
        ]
        self._router = Router(self.routes, redirect_slashes=False)

    def description(self) -> bytes:
        """The API as an OpenAPI document."""
        from shadow.sidecar.openapi import describe  # most workspaces are never asked for it

        return describe(self.routes)

    def stop(self) -> None:
        """End everything that waits, and refuse what would: the process is about to end."""
        self._holds.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # Refusals before the handshake are plain answers; ASGI has other names for those.
            send = _renamed(send)
        scope["app"] = self  # Starlette's sign to raise for unknown routes and methods
        exchange = Exchange(scope, receive, send, metrics=self._metrics, clock=self._clock)
        try:
            self._token.check(scope)
        except Denied as error:
            await unauthorized_answer(error)(scope, receive, exchange.send)
            return
        try:
            with self._admission.request():
                await self._router(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return
        except Exception as error:  # the edge: whatever failed gets a typed answer
            answer = self._answer_for(error, scope)
            if answer.status >= 500 or exchange.status is not None:
                _log_failure(exchange, error, answer.status)
            if exchange.status is not None:
                raise CutOff from error
            await answer(scope, receive, exchange.send)

    def _answer_for(self, error: Exception, scope: Scope) -> Answer:
        match error:
            case Unavailable() if error.details.get("reason") == SLOW_BODY:
                return error_answer(error, status=REQUEST_TIMEOUT, headers={b"connection": b"close"})
            case ShadowError():
                return error_answer(error)
            case Busy():
                return busy_answer(error)
            case HTTPException(status_code=405):
                allowed = ", ".join(self._allowed(scope)).encode()
                told = Rejected(f"{scope['method']} is not possible here.")
                return error_answer(told, status=405, headers={b"allow": allowed})
            case HTTPException():
                return error_answer(NotFound("There is no such address."))
            case _:
                return error_answer(Broken("The sidecar failed on this request; its log says more."))

    def _allowed(self, scope: Scope) -> list[str]:
        return sorted({route.method for route in self.routes if route.matches(scope)[0] is not Match.NONE})


def _log_failure(exchange: Exchange, error: Exception, status: int) -> None:
    method, route = exchange.route
    log.log(
        logging.WARNING if isinstance(error, ShadowError) else logging.ERROR,
        "sidecar.request_failed",
        exc_info=None if isinstance(error, ShadowError) else error,
        extra={
            "method": method,
            "route": route,
            "status": status,
            "took_ms": round(exchange.took_s * 1000, 1),
            "cut": exchange.status is not None,
        },
    )


class CutOff(Exception):
    """The answer had begun: the connection is cut, so that nobody takes it for whole."""


def _renamed(send: Send) -> Send:
    async def renamed(message: Message) -> None:
        if message["type"].startswith("http."):
            message = {**message, "type": f"websocket.{message['type']}"}
        await send(message)

    return renamed


def make_app(
    executor: ToolExecutor,
    *,
    token: str,
    limits: SidecarLimits | None = None,
    clock: Clock = time.monotonic,
    entropy: Entropy = os.urandom,
) -> SidecarApp:
    return SidecarApp(executor, token=token, limits=limits, clock=clock, entropy=entropy)
