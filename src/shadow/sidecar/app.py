"""The sidecar as an ASGI application over any ``ToolExecutor``: who asks, where to, and what a failure is called."""

import logging
import os

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from shadow.core.errors import Broken, Denied, NotFound, Rejected, ShadowError
from shadow.execution.interface import ToolExecutor
from shadow.sidecar.auth import TokenCheck
from shadow.sidecar.commands import CommandRoutes
from shadow.sidecar.files import FileRoutes
from shadow.sidecar.git import GitRoutes
from shadow.sidecar.holds import Holds
from shadow.sidecar.requests import Entropy, Operations
from shadow.sidecar.responses import Answer, error_answer, unauthorized_answer
from shadow.sidecar.search import SearchRoutes
from shadow.sidecar.terminals import TerminalRoutes
from shadow.sidecar.trees import TreeRoutes
from shadow.sidecar.watching import WatchRoutes
from shadow.sidecar.workspace import WorkspaceRoutes

log = logging.getLogger("shadow.sidecar")


class SidecarApp:
    def __init__(self, executor: ToolExecutor, *, token: str, entropy: Entropy = os.urandom) -> None:
        self._token = TokenCheck(token)
        self._holds = Holds()
        operations = Operations(executor.epoch, entropy=entropy)
        self._router = Router(
            [
                *CommandRoutes(executor, operations, self._holds).routes(),
                *FileRoutes(executor, operations, self._holds).routes(),
                *GitRoutes(executor, operations, self._holds).routes(),
                *SearchRoutes(executor, self._holds).routes(),
                *TerminalRoutes(executor, operations, self._holds).routes(),
                *TreeRoutes(executor, operations, self._holds).routes(),
                *WatchRoutes(executor, self._holds).routes(),
                *WorkspaceRoutes(executor).routes(),
            ],
            redirect_slashes=False,
        )

    def stop(self) -> None:
        """End everything that waits, and refuse what would: the process is about to end."""
        self._holds.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # Refusals before the handshake are plain answers; ASGI has other names for those.
            send = _renamed(send)
        scope["app"] = self  # Starlette's sign to raise for unknown routes and methods
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._token.check(scope)
        except Denied as error:
            await unauthorized_answer(error)(scope, receive, send)
            return
        try:
            await self._router(scope, receive, watched_send)
        except ClientDisconnect:
            return
        except Exception as error:  # the edge: whatever failed gets a typed answer
            answer = _answer_for(error, scope)
            if started:
                raise _CutOff from error
            await answer(scope, receive, send)


def _renamed(send: Send) -> Send:
    async def renamed(message: Message) -> None:
        if message["type"].startswith("http."):
            message = {**message, "type": f"websocket.{message['type']}"}
        await send(message)

    return renamed


class _CutOff(Exception):
    """The answer had begun: the connection is cut, so that nobody takes it for whole."""


def _answer_for(error: Exception, scope: Scope) -> Answer:
    if isinstance(error, ShadowError):
        return error_answer(error)
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            return error_answer(Rejected(f"{scope['method']} is not possible here."))
        return error_answer(NotFound("There is no such address."))
    log.exception("sidecar.request_failed", exc_info=error)
    return error_answer(Broken("The sidecar failed on this request; its log says more."))


def make_app(executor: ToolExecutor, *, token: str, entropy: Entropy = os.urandom) -> SidecarApp:
    return SidecarApp(executor, token=token, entropy=entropy)
