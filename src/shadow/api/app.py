"""The server as an ASGI application: its routes, and the way of each request to one of them.

``__call__`` gives it an id, logs it, traces it and puts its end on record; ``admit`` looks at the name that it calls us by.
Once its route is known, ``entered`` asks who it is from, looks up what it names and puts its beginning on record; then its
handler runs.
"""

import os
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from shadow.accounts.keys import Keys
from shadow.accounts.projects import Projects
from shadow.accounts.service import Accounts
from shadow.api.access import (
    ACCESS,
    PRINCIPAL,
    TASK,
    WRITING,
    Origins,
    check_access,
    needed,
)
from shadow.api.accounts import AccountRoutes
from shadow.api.answering import Beginning
from shadow.api.attachments import Attachments
from shadow.api.audit import AuditRoutes
from shadow.api.auditing import Auditing
from shadow.api.callers import Callers
from shadow.api.events import EventRoutes
from shadow.api.keys import KeyRoutes
from shadow.api.metrics import ServerMetrics
from shadow.api.models import ModelRoutes
from shadow.api.named import Named
from shadow.api.observing import knows_task, observed
from shadow.api.projects import ProjectRoutes
from shadow.api.rechecking import Rechecking
from shadow.api.repositories import RepositoryRoutes
from shadow.api.results import ResultRoutes
from shadow.api.settings import SettingRoutes
from shadow.api.sources import Network
from shadow.api.system import SystemRoutes
from shadow.api.tasks import CheckModel, CheckRepository, TaskRoutes
from shadow.api.usage import UsageRoutes
from shadow.api.workspaces import EXECUTOR, UsersOperations, WorkspaceListRoutes, executor_of
from shadow.core.accounts import Principal
from shadow.core.errors import Unauthenticated, Unavailable
from shadow.core.ids import WorkspaceId, make_id
from shadow.core.quota import CPU_S
from shadow.core.tasks import Task, TaskState
from shadow.core.tracing import UNTRACED, Tracer
from shadow.execution.interface import WorkspaceManager
from shadow.http.admission import Clock, HttpLimits
from shadow.http.app import HttpApp
from shadow.http.metrics import Family
from shadow.http.requests import REQUEST_ID, Entropy
from shadow.http.routes import ApiRoute, ApiRoutes, ApiSocket, Raw
from shadow.scm.repositories import Repositories
from shadow.settings import Origin, Settings
from shadow.sidecar.app import executor_routes
from shadow.storage.artifacts import ArtifactStore
from shadow.tasks.service import Tasks

SPENDING = frozenset({("POST", "/commands"), ("POST", "/terminals"), ("PUT", "/files"), ("PUT", "/tree")})
"""What begins to take CPU time of a workspace, or storage."""
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
    keys: Keys
    manager: WorkspaceManager
    check_model: CheckModel
    check_repository: CheckRepository
    origins: Origins
    repositories: Repositories
    artifacts: ArtifactStore
    settings: Settings
    setting_origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin])
    metrics: ServerMetrics | None = None
    proxies: Sequence[Network] = ()
    """Whose word counts for where a request comes from."""
    user_requests_per_s: float = 500
    logins_per_min: float = 30
    tracer: Tracer = UNTRACED


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
        self._callers = Callers(services, clock=clock)
        self._auditing = Auditing(services.tasks.database, source_of=self._callers.source, log=self.log)
        projects = Projects(database=services.tasks.database, entropy=entropy)
        self._named = Named(services.tasks, projects)
        self._attachments = Attachments(services.manager, clock=clock)
        self._rechecking = Rechecking(services.tasks.database)
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
                *KeyRoutes(services.keys).routes(),
                *EventRoutes(services.tasks, self.holds).routes(),
                *AuditRoutes(services.tasks.database).routes(),
                *UsageRoutes(services.tasks, services.accounts).routes(),
                *ResultRoutes(services.tasks, services.artifacts, self.holds).routes(),
                *RepositoryRoutes(services.tasks.database, services.repositories).routes(),
                *ModelRoutes(services.settings).routes(),
                *SettingRoutes(services.settings, services.setting_origins, services.tasks.limits).routes(),
                *WorkspaceListRoutes(services.tasks, services.manager).routes(),
                *self._workspace_routes(),
            ]
        )

    def _workspace_routes(self) -> ApiRoutes:
        """What can be done in a workspace, as its own sidecar serves it."""
        of_executor = executor_routes(executor_of, UsersOperations(self._entropy), self.holds)
        return [route.beneath(WORKSPACE) for route in of_executor]

    def stop(self) -> None:
        self.is_draining = True
        super().stop()

    async def aclose(self) -> None:
        """When nothing is served any more."""
        await self._attachments.aclose()

    async def _gather(self) -> Sequence[Family]:
        own = self._services.metrics
        return [*self.metrics.families(), *(await own.families(self.admission) if own is not None else ())]

    def description(self) -> bytes:
        """The API as an OpenAPI document."""
        from shadow.http.openapi import describe

        return describe(self.routes, title="Shadow", about=ABOUT, takes_epoch=False)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        scope[REQUEST_ID] = make_id("req", entropy=self._entropy(12))

        async def record_end(status: int | None) -> None:
            await self._auditing.end(scope, status)

        answer = Beginning(send, request_id=scope[REQUEST_ID], before=record_end)
        with observed(scope, answer, tracer=self._services.tracer, clock=self._clock):
            try:
                await super().__call__(scope, receive, answer.send)
            finally:
                await record_end(None)

    async def admit(self, scope: AsgiScope) -> None:
        self._services.origins.check_host(scope)

    @asynccontextmanager
    async def entered(self, route: ApiRoute | ApiSocket, scope: AsgiScope) -> AsyncGenerator[None]:
        access = needed(route, scope)
        who = scope[PRINCIPAL] = await self._callers.identify(route, scope, access)
        with self._auditing.watching(route, scope, who):
            async with AsyncExitStack() as stack:
                if who is not None:
                    await self._enter(route, scope, who, access, stack)
                await self._auditing.begin(scope)
                yield

    async def _enter(
        self, route: ApiRoute | ApiSocket, scope: AsgiScope, who: Principal, access: str, stack: AsyncExitStack
    ) -> None:
        """What is there for whoever asks, until the answer is out."""
        check_access(who, access)
        scope[ACCESS] = access
        task = await self._named.find(scope["path_params"], who, writing=access in WRITING)
        if task is not None:
            scope[TASK] = task
            knows_task(task)
        if _stays_open(route):
            await stack.enter_async_context(self._rechecking.while_good(who, access, None if task is None else task.id))
        if "workspace_id" in scope["path_params"]:
            assert task is not None
            assert task.workspace_id is not None
            stack.enter_context(_away_where_unauthenticated())
            if (route.method, route.path.removeprefix(WORKSPACE)) in SPENDING:
                await self._services.tasks.spenders.check(task.owner, units=(CPU_S,), storage=route.method == "PUT")
            await self._wake(task, task.workspace_id)
            scope[EXECUTOR] = await stack.enter_async_context(self._attachments.attached(task.workspace_id))

    async def _wake(self, task: Task, workspace_id: WorkspaceId) -> None:
        """Whoever looks into a workspace uses its task, which is put on record now and then."""
        tasks = self._services.tasks
        now = await tasks.database.time()
        if task.state is TaskState.HIBERNATED or now - task.updated_at > USED_EVERY_S:
            await tasks.wake(workspace_id)


@contextmanager
def _away_where_unauthenticated() -> Generator[None]:
    """A workspace said so, of our credential there: it must not make clients throw theirs away."""
    try:
        yield
    except Unauthenticated as error:
        raise Unavailable("The workspace does not let the server in.") from error


def _stays_open(route: ApiRoute | ApiSocket) -> bool:
    """Uploads and downloads do, as long as the other side takes."""
    body = route.about.body
    is_upload = isinstance(body, Raw) and body.max_bytes is None
    return (
        is_upload
        or isinstance(route.about.answer, Raw)
        or isinstance(route, ApiSocket)
        or route.path.endswith("/watch")
    )
