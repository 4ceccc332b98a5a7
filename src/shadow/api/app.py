"""The server as an ASGI application: its routes, and what each request passes before one of them sees it."""

import hashlib
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection, Request
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from shadow.accounts.projects import Projects
from shadow.accounts.service import Accounts
from shadow.api.access import PRINCIPAL, PUBLIC, TASK, WRITING, Origins, check_access, needed, principal_of, sees_only
from shadow.api.accounts import AccountRoutes
from shadow.api.events import EventRoutes
from shadow.api.headers import with_headers
from shadow.api.projects import ProjectRoutes
from shadow.api.rechecking import Rechecking
from shadow.api.system import Gather, SystemRoutes
from shadow.api.tasks import CheckModel, TaskRoutes
from shadow.core.accounts import Principal, ProjectId
from shadow.core.errors import Unauthenticated, Unavailable
from shadow.core.ids import Operation, OperationId, WorkspaceId, make_id
from shadow.core.tasks import Task
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.http.admission import Clock, HttpLimits
from shadow.http.app import HttpApp
from shadow.http.requests import Entropy
from shadow.http.routes import ApiRoute, ApiRoutes, ApiSocket
from shadow.sidecar.app import executor_routes
from shadow.sidecar.operations import operation_id
from shadow.tasks.service import Tasks

EXECUTOR = "shadow.executor"
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
        self._rechecking = Rechecking(services.tasks.database)
        self._projects = projects = Projects(database=services.tasks.database, entropy=entropy)
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
                *TaskRoutes(services.tasks, services.check_model, projects).routes(),
                *ProjectRoutes(projects).routes(),
                *EventRoutes(services.tasks, self.holds).routes(),
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

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, with_headers(send))

    async def admit(self, scope: AsgiScope) -> None:
        self._services.origins.check_host(scope)
        scope[PRINCIPAL] = None

    @asynccontextmanager
    async def entered(self, route: ApiRoute | ApiSocket, scope: AsgiScope) -> AsyncGenerator[None]:
        access = needed(route, scope)
        if access == PUBLIC:  # an old cookie must not stand in the way of a new login
            yield
            return
        scope[PRINCIPAL] = await principal_of(scope, self._services.accounts, self._services.origins)
        who = check_access(access, scope)
        async with AsyncExitStack() as stack:
            if "project_id" in scope["path_params"]:
                project_id = ProjectId(scope["path_params"]["project_id"])
                await self._projects.check(who, project_id, writing=access in WRITING)
            task = await self._named_task(scope["path_params"], who, writing=access in WRITING)
            scope[TASK] = task
            if "workspace_id" in scope["path_params"]:
                assert task is not None
                assert task.workspace_id is not None
                scope[EXECUTOR] = await stack.enter_async_context(
                    await self._services.manager.attach(task.workspace_id)
                )
            if _stays_open(route):
                task_id = None if task is None else task.id
                await stack.enter_async_context(self._rechecking.while_good(who, access, task_id))
            try:
                yield
            except Unauthenticated as error:
                # A workspace said so, of our credential there: it must not make clients throw theirs away.
                raise Unavailable("The workspace does not let the server in.") from error

    async def _named_task(self, named: Mapping[str, str], who: Principal, *, writing: bool) -> Task | None:
        """The one that the path names, itself or by its workspace.

        Raises: NotFound: there is none, or not for them; Denied: they only see it.
        """
        tasks = self._services.tasks
        if "task_id" in named:
            task = await tasks.find(named["task_id"], seen_by=sees_only(who))
        elif "workspace_id" in named:
            task = await tasks.of_workspace(WorkspaceId(named["workspace_id"]), seen_by=sees_only(who))
        else:
            return None
        if writing:
            await tasks.check_writable(task.id, sees_only(who))
        return task

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
