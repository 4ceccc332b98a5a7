"""The server as an ASGI application: its routes, and what each request passes before one of them sees it."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection, Request
from starlette.types import Scope as AsgiScope

from shadow.accounts.service import Accounts, topic_of
from shadow.api.access import PRINCIPAL, TASK, Origins, check_access, needed, principal_of
from shadow.api.accounts import AccountRoutes
from shadow.api.events import EventRoutes
from shadow.api.system import Gather, SystemRoutes
from shadow.api.tasks import CheckModel, TaskRoutes
from shadow.api.workspaces import WorkspaceListRoutes
from shadow.core.accounts import Principal, Role
from shadow.core.errors import Unauthenticated
from shadow.core.ids import Operation, OperationId, WorkspaceId, make_id
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.http.admission import Clock, HttpLimits
from shadow.http.app import HttpApp
from shadow.http.requests import Entropy
from shadow.http.routes import ApiRoute, ApiRoutes, ApiSocket
from shadow.sidecar.app import executor_routes
from shadow.sidecar.operations import operation_id
from shadow.tasks.service import Tasks

EXECUTOR = "shadow.executor"
RECHECK_S = 30.0
"""What nobody told us of (an expiry, a notice that was lost) is noticed after so long."""
WORKSPACE = "/v1/workspaces/{workspace_id}"
ABOUT = """Shadow's API; docs/api.md says how to use it. Every request but those of health and login needs a token
(`Authorization: Bearer …`) or the cookie of a session. What belongs to others is answered as if it were not there. What a newer
server adds to an answer is to be ignored. Every error has the same body; its code is stable."""


@dataclass(slots=True, kw_only=True)
class Services:
    """What the routes call."""

    tasks: Tasks
    accounts: Accounts
    manager: WorkspaceManager
    check_model: CheckModel
    origins: Origins
    gather: Gather = field(default=lambda: ())
    """Metrics of what is not the API's own."""


class ServerApp(HttpApp):
    noun = "server"

    def __init__(
        self,
        services: Services,
        *,
        limits: HttpLimits | None = None,
        clock: Clock = time.monotonic,
        entropy: Entropy = os.urandom,
    ) -> None:
        super().__init__(limits=limits or HttpLimits(), clock=clock)
        self._services = services
        self._entropy = entropy
        system = SystemRoutes(
            services.tasks.database,
            gather=lambda: [*self.metrics.families(), *services.gather()],
            describe=self.description,
            is_draining=lambda: self.holds.stopping,
        )
        self.serve(
            [
                *system.routes(),
                *AccountRoutes(services.accounts, services.origins).routes(),
                *TaskRoutes(services.tasks, services.check_model).routes(),
                *EventRoutes(services.tasks, self.holds).routes(),
                *WorkspaceListRoutes(services.tasks, services.manager).routes(),
                *self._workspace_routes(),
            ]
        )

    def _workspace_routes(self) -> ApiRoutes:
        """What can be done in a workspace, as its own sidecar serves it."""
        of_executor = executor_routes(_executor, self._operation, self.holds)
        return [route.beneath(WORKSPACE) for route in of_executor]

    def description(self) -> bytes:
        """The API as an OpenAPI document."""
        from shadow.http.openapi import describe

        return describe(self.routes, title="Shadow", about=ABOUT)

    async def admit(self, scope: AsgiScope) -> None:
        self._services.origins.check_host(scope)
        scope[PRINCIPAL] = await principal_of(scope, self._services.accounts, self._services.origins)

    @asynccontextmanager
    async def entered(self, route: ApiRoute | ApiSocket, scope: AsgiScope) -> AsyncGenerator[None]:
        check_access(route, scope)
        named = scope["path_params"]
        who: Principal | None = scope[PRINCIPAL]
        async with AsyncExitStack() as stack:
            if who is not None and "task_id" in named:
                scope[TASK] = await self._services.tasks.find(named["task_id"], owner=_owner(who))
            if who is not None and "workspace_id" in named:
                workspace_id = WorkspaceId(named["workspace_id"])
                scope[TASK] = await self._services.tasks.of_workspace(workspace_id, owner=_owner(who))
                scope[EXECUTOR] = await stack.enter_async_context(await self._services.manager.attach(workspace_id))
            if who is not None and _stays_open(route):
                await stack.enter_async_context(self._while_good(who, needed(route, scope)))
            yield

    @asynccontextmanager
    async def _while_good(self, who: Principal, access: str) -> AsyncGenerator[None]:
        """Ends the block when the credential is revoked, expires, or is no longer good for this.

        Raises: Unauthenticated.
        """
        scope = asyncio.timeout(None)

        async def watch() -> None:
            with self._services.tasks.database.feed.subscribe(topic_of(who.credential.id)) as news:
                while await self._services.accounts.is_good(who.credential.id, access):
                    await news.wait(timeout_s=RECHECK_S)
            scope.reschedule(asyncio.get_running_loop().time())

        try:
            async with scope:
                watching = asyncio.create_task(watch())
                try:
                    yield
                finally:
                    watching.cancel()
        except TimeoutError:
            if not scope.expired():
                raise
            raise Unauthenticated("The credential was revoked, or has expired.") from None

    def _operation(self, request: Request) -> Operation:
        """Of users: what they call an operation is told apart from what others, and the agent, call theirs."""
        given = operation_id(request)
        who: Principal = request.scope[PRINCIPAL]
        if given is None:
            id_ = make_id("op", entropy=self._entropy(16))
        else:
            id_ = "op_u" + hashlib.sha256(f"{who.user.id} {given}".encode()).hexdigest()[:40]
        return Operation(id=OperationId(id_), epoch=_executor(request).epoch)


def _stays_open(route: ApiRoute | ApiSocket) -> bool:
    return isinstance(route, ApiSocket) or route.path.endswith(("/stream", "/output", "/watch"))


def _executor(request: HTTPConnection) -> ToolExecutor:
    return request.scope[EXECUTOR]


def _owner(who: Principal) -> str | None:
    """Whose tasks are there for them; ``None``: everybody's."""
    return None if who.user.role is Role.ADMIN else who.user.id
