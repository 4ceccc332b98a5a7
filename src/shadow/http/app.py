"""An ASGI application of routes: who asks, where to, and what a failure is called. The sidecar is one, the server another."""

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import ClassVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Router
from starlette.types import Message, Receive, Scope, Send

from shadow.core.errors import Broken, NotFound, Rejected, ShadowError, Unavailable
from shadow.http.admission import Admission, Busy, Clock, HttpLimits
from shadow.http.holds import Holds
from shadow.http.metrics import Exchange, RequestMetrics
from shadow.http.requests import REQUEST_ID, SLOW_BODY
from shadow.http.responses import REQUEST_TIMEOUT, Answer, busy_answer, error_answer
from shadow.http.routes import ApiRoute, ApiRoutes, ApiSocket

POLICY = 1008
"""With which a WebSocket is closed whose user may no longer."""


class HttpApp(ABC):
    noun: ClassVar[str]
    """What it is called in logs, metrics and errors."""

    def __init__(self, *, limits: HttpLimits, clock: Clock) -> None:
        self.limits = limits
        self.log = logging.getLogger(f"shadow.{self.noun}")
        self.routes: ApiRoutes = []
        self._clock = clock
        self._router = Router(redirect_slashes=False)
        self.metrics = RequestMetrics(self.noun)
        self.admission = Admission(limits, clock=clock)
        self.holds = Holds(self.admission, noun=self.noun)

    def serve(self, routes: ApiRoutes) -> None:
        """Once, before the first request."""
        self.routes = routes
        self._router = Router(routes, redirect_slashes=False)

    @abstractmethod
    async def admit(self, scope: Scope) -> None:
        """Before anything of a request is looked at. Raises: Denied, and what else there is to refuse."""

    @asynccontextmanager
    async def entered(self, route: ApiRoute | ApiSocket, scope: Scope) -> AsyncGenerator[None]:
        """Around the handler of a route, its answer included. Raises: what there is to refuse now that the route is known."""
        yield

    def stop(self) -> None:
        """End everything that waits, and refuse what would: the process is about to end."""
        self.holds.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # Refusals before the handshake are plain answers; ASGI has other names for those.
            send = _renamed(send)
        scope["app"] = self  # Starlette's sign to raise for unknown routes and methods
        exchange = Exchange(scope, receive, send, metrics=self.metrics, clock=self._clock)
        try:
            await self.admit(scope)
            with self.admission.request():
                await self._router(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return
        except Exception as error:  # the edge: whatever failed gets a typed answer
            answer = self._answer_for(error, scope)
            if answer.status >= 500 or exchange.status is not None:
                self._log_failure(exchange, error, answer.status)
            if exchange.status is not None:
                if scope["type"] == "websocket" and isinstance(error, ShadowError):
                    with suppress(RuntimeError):  # it was closed meanwhile
                        await exchange.send({"type": "websocket.close", "code": POLICY, "reason": error.code})
                        return
                raise CutOff from error
            await answer(scope, receive, exchange.send)

    def _answer_for(self, error: Exception, scope: Scope) -> Answer:
        request_id: str | None = scope.get(REQUEST_ID)
        told_as = partial(error_answer, request_id=request_id)
        match error:
            case Unavailable() if error.details.get("reason") == SLOW_BODY:
                return told_as(error, status=REQUEST_TIMEOUT, headers={b"connection": b"close"})
            case ShadowError():
                return told_as(error)
            case Busy():
                return busy_answer(error, request_id=request_id)
            case HTTPException(status_code=405):
                allowed = ", ".join(self._allowed(scope)).encode()
                told = Rejected(f"{scope['method']} is not possible here.")
                return told_as(told, status=405, headers={b"allow": allowed})
            case HTTPException():
                return told_as(NotFound("There is no such address."))
            case _:
                mend = None if request_id is None else f"It is {request_id} there."
                return told_as(Broken(f"The {self.noun} failed on this request; its log says more.", mend=mend))

    def _allowed(self, scope: Scope) -> list[str]:
        return sorted({route.method for route in self.routes if route.matches(scope)[0] is not Match.NONE})

    def _log_failure(self, exchange: Exchange, error: Exception, status: int) -> None:
        method, route = exchange.route
        self.log.log(
            logging.WARNING if isinstance(error, ShadowError) else logging.ERROR,
            f"{self.noun}.request_failed",
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
