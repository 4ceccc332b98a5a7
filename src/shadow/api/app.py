"""The server as an ASGI application: its routes, and what each request passes before one of them sees it."""

import hashlib
import math
import os
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from shadow.accounts.projects import Projects
from shadow.accounts.service import Accounts
from shadow.api.access import (
    ACCESS,
    PRINCIPAL,
    PUBLIC,
    TASK,
    WRITING,
    Origins,
    changes,
    check_access,
    needed,
    principal_of,
    sees_only,
)
from shadow.api.accounts import LOG_IN, AccountRoutes
from shadow.api.audit import AuditRoutes
from shadow.api.auditing import Auditing
from shadow.api.events import EventRoutes
from shadow.api.headers import with_headers
from shadow.api.metrics import ServerMetrics
from shadow.api.projects import ProjectRoutes
from shadow.api.rates import Rates
from shadow.api.rechecking import Rechecking
from shadow.api.request_log import knows_task, knows_user, logged
from shadow.api.sources import Network, neighbourhood, source_of
from shadow.api.system import SystemRoutes
from shadow.api.tasks import CheckModel, CheckRepository, TaskRoutes
from shadow.api.usage import UsageRoutes
from shadow.api.workspaces import WorkspaceListRoutes
from shadow.core.accounts import Principal, ProjectId
from shadow.core.errors import Unauthenticated, Unavailable
from shadow.core.ids import Operation, OperationId, WorkspaceId, make_id
from shadow.core.tasks import Task, TaskState
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.http.admission import Clock, HttpLimits
from shadow.http.app import HttpApp
from shadow.http.metrics import Family
from shadow.http.requests import Entropy
from shadow.http.routes import ApiRoute, ApiRoutes, ApiSocket, Raw
from shadow.sidecar.app import executor_routes
from shadow.sidecar.operations import operation_id
from shadow.tasks.service import Tasks

EXECUTOR = "shadow.executor"
USED_EVERY_S = 60.0
"""When somebody looked into a workspace last is put on record no more often."""
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
    check_repository: CheckRepository
    origins: Origins
    metrics: ServerMetrics | None = None
    proxies: Sequence[Network] = ()
    """Whose word counts for where a request comes from."""
    user_requests_per_s: float = 500
    logins_per_min: float = 30


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
        self.is_draining = False
        """About to end: readiness says so, everything else is still answered."""
        self._entropy = entropy
        self._rechecking = Rechecking(services.tasks.database)
        self._auditing = Auditing(services.tasks.database, source_of=self._source_of, entropy=entropy, log=self.log)
        self._of_users = Rates(
            "user_rate",
            rate_per_s=services.user_requests_per_s,
            burst=math.ceil(2 * services.user_requests_per_s),
            clock=clock,
        )
        self._logins = Rates(
            "login_rate",
            rate_per_s=services.logins_per_min / 60,
            burst=math.ceil(services.logins_per_min),
            clock=clock,
        )
        self._projects = projects = Projects(database=services.tasks.database, entropy=entropy)
        system = SystemRoutes(
            services.tasks.database,
            gather=self._gather,
            describe=self.description,
            is_draining=lambda: self.is_draining,
        )
        self.serve(
            [
                *system.routes(),
                *AccountRoutes(services.accounts, services.origins).routes(),
                *TaskRoutes(services.tasks, services.check_model, services.check_repository, projects).routes(),
                *ProjectRoutes(projects).routes(),
                *EventRoutes(services.tasks, self.holds).routes(),
                *AuditRoutes(services.tasks.database).routes(),
                *UsageRoutes(services.tasks, services.accounts).routes(),
                *WorkspaceListRoutes(services.tasks, services.manager).routes(),
                *self._workspace_routes(),
            ]
        )

    def _workspace_routes(self) -> ApiRoutes:
        """What can be done in a workspace, as its own sidecar serves it."""
        of_executor = executor_routes(_executor, self._operation, self.holds)
        return [route.beneath(WORKSPACE) for route in of_executor]

    def stop(self) -> None:
        self.is_draining = True
        super().stop()

    async def _gather(self) -> Sequence[Family]:
        own = self._services.metrics
        return [*self.metrics.families(), *(await own.families(self.admission) if own is not None else ())]

    def description(self) -> bytes:
        """The API as an OpenAPI document."""
        from shadow.http.openapi import describe

        return describe(self.routes, title="Shadow", about=ABOUT, takes_epoch=False)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        async with logged(scope, with_headers(send), clock=self._clock, entropy=self._entropy) as sending:
            try:
                await super().__call__(scope, receive, self._auditing.telling(scope, sending))
            finally:
                await self._auditing.end(scope, None)

    async def admit(self, scope: AsgiScope) -> None:
        self._services.origins.check_host(scope)
        scope[PRINCIPAL] = None

    async def _who_asks(self, scope: AsgiScope) -> Principal | None:
        """Raises: Unauthenticated, Denied; Busy: too often, or too many that show nobody."""
        try:
            who = await principal_of(scope, self._services.accounts, self._services.origins)
        except Unauthenticated:
            self._logins.take(neighbourhood(self._source_of(scope)))
            raise
        if who is not None:
            self._of_users.take(who.user.id)
            knows_user(who)
        return who

    def _source_of(self, scope: AsgiScope) -> str:
        return source_of(scope, self._services.proxies)

    @asynccontextmanager
    async def entered(self, route: ApiRoute | ApiSocket, scope: AsgiScope) -> AsyncGenerator[None]:
        access = needed(route, scope)
        if route.path == LOG_IN:
            self._logins.take(neighbourhood(self._source_of(scope)))
        if access != PUBLIC:  # an old cookie must not stand in the way of a new login
            scope[PRINCIPAL] = await self._who_asks(scope)
        who: Principal | None = scope[PRINCIPAL]
        audited = changes(route, scope) and (who is not None or access == PUBLIC)
        watching = self._auditing.watching(route, scope, who) if audited else nullcontext()
        async with AsyncExitStack() as stack:
            operation = stack.enter_context(watching)
            if access != PUBLIC:
                await self._enter(route, scope, access, stack)
            if operation is not None:
                await self._auditing.begin(operation)
            yield

    async def _enter(self, route: ApiRoute | ApiSocket, scope: AsgiScope, access: str, stack: AsyncExitStack) -> None:
        """What is there for whoever asks, until the answer is out."""
        who = check_access(access, scope)
        scope[ACCESS] = access
        if "project_id" in scope["path_params"]:
            project_id = ProjectId(scope["path_params"]["project_id"])
            await self._projects.check(who, project_id, writing=access in WRITING)
        task = await self._named_task(scope["path_params"], who, writing=access in WRITING)
        if task is not None:
            scope[TASK] = task
            knows_task(task)
        if _stays_open(route):
            await stack.enter_async_context(self._rechecking.while_good(who, access, None if task is None else task.id))
        if "workspace_id" in scope["path_params"]:
            assert task is not None
            assert task.workspace_id is not None
            stack.enter_context(_away_where_unauthenticated())
            await self._wake(task, task.workspace_id)
            scope[EXECUTOR] = await stack.enter_async_context(await self._services.manager.attach(task.workspace_id))

    async def _wake(self, task: Task, workspace_id: WorkspaceId) -> None:
        """Whoever looks into a workspace uses its task, which is put on record now and then."""
        tasks = self._services.tasks
        async with tasks.database.read() as connection:
            now = await tasks.database.now(connection)
        if task.state is TaskState.HIBERNATED or now - task.updated_at > USED_EVERY_S:
            await tasks.wake(workspace_id)

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


@contextmanager
def _away_where_unauthenticated() -> Generator[None]:
    """A workspace said so, of our credential there: it must not make clients throw theirs away."""
    try:
        yield
    except Unauthenticated as error:
        raise Unavailable("The workspace does not let the server in.") from error


def _stays_open(route: ApiRoute | ApiSocket) -> bool:
    """Uploads do, as long as their sender takes."""
    body = route.about.body
    is_upload = isinstance(body, Raw) and body.max_bytes is None
    return is_upload or isinstance(route, ApiSocket) or route.path.endswith(("/stream", "/output", "/watch"))


def _executor(request: HTTPConnection) -> ToolExecutor:
    return request.scope[EXECUTOR]
