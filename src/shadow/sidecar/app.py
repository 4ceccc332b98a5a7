"""The sidecar as an ASGI application over any ``ToolExecutor``."""

import os
import time

from starlette.types import Scope

from shadow.core.errors import KeyReused
from shadow.execution.interface import ToolExecutor
from shadow.http.admission import Clock, HttpLimits
from shadow.http.app import HttpApp
from shadow.http.holds import Holds
from shadow.http.requests import Entropy
from shadow.http.routes import ApiRoutes
from shadow.sidecar.auth import TokenCheck
from shadow.sidecar.commands import CommandRoutes
from shadow.sidecar.files import FileRoutes
from shadow.sidecar.git import GitRoutes
from shadow.sidecar.operations import ExecutorOf, OperationOf, Operations
from shadow.sidecar.search import SearchRoutes
from shadow.sidecar.terminals import TerminalRoutes
from shadow.sidecar.trees import TreeRoutes
from shadow.sidecar.watching import WatchRoutes
from shadow.sidecar.workspace import WorkspaceRoutes

ABOUT = """The HTTP API of one workspace; docs/sidecar.md of Shadow says how to use it. Every request needs the workspace's bearer
token. What a newer sidecar adds to an answer is to be ignored. Every error has the same body; its code is stable."""


def executor_routes(executor: ExecutorOf, operation: OperationOf, holds: Holds) -> ApiRoutes:
    """Everything that can be done in a workspace."""
    return [
        *CommandRoutes(executor, operation, holds).routes(),
        *FileRoutes(executor, operation, holds).routes(),
        *GitRoutes(executor, operation, holds).routes(),
        *SearchRoutes(executor, holds).routes(),
        *TerminalRoutes(executor, operation, holds).routes(),
        *TreeRoutes(executor, operation, holds).routes(),
        *WatchRoutes(executor, holds).routes(),
    ]


class SidecarApp(HttpApp):
    noun = "sidecar"

    def __init__(
        self,
        executor: ToolExecutor,
        *,
        token: str,
        limits: HttpLimits | None = None,
        clock: Clock = time.monotonic,
        entropy: Entropy = os.urandom,
    ) -> None:
        super().__init__(limits=limits or HttpLimits(), clock=clock)
        self._token = TokenCheck(token)
        own = WorkspaceRoutes(executor, self.admission, self.metrics, clock=clock, describe=self.description)
        operations = Operations(executor.epoch, entropy=entropy)
        self.serve([*executor_routes(lambda _request: executor, operations, self.holds), *own.routes()])

    def description(self) -> bytes:
        """The API as an OpenAPI document."""
        from shadow.http.openapi import describe  # most workspaces are never asked for it

        return describe(self.routes, title="Shadow sidecar", about=ABOUT, never=(KeyReused,))

    async def admit(self, scope: Scope) -> None:
        self._token.check(scope)
