"""The server's application in this process, listening, with users in it and a workspace that is one for real."""

import asyncio
import os
import socket
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from shadow.accounts.keys import Keys
from shadow.accounts.sealing import SealingKeys
from shadow.accounts.service import Accounts
from shadow.agent.providers import making
from shadow.api.access import Origins
from shadow.api.app import ServerApp, Services
from shadow.api.tasks import CheckModel
from shadow.bootstrap import make_repositories, open_artifacts
from shadow.core.accounts import CredentialKind, Principal, Project, ProjectId, ProjectRole, Role, User, UserId
from shadow.core.addresses import Address
from shadow.core.ids import WorkspaceId
from shadow.core.keys import Payer
from shadow.core.models import ModelKeyRefused
from shadow.core.tasks import TaskId, TaskState
from shadow.db import projects
from shadow.db import tasks as rows
from shadow.db.database import Database
from shadow.execution.interface import ToolExecutor
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.sidecar_client.endpoint import Endpoint, UnixEndpoint
from shadow.http.server import HttpServer
from shadow.scm.owners import check_reach
from shadow.settings import Settings
from shadow.tasks.service import Tasks
from tests.support.implementations import host
from tests.support.rows import make_task
from tests.support.sidecars import client, listen, serving


class Workspaces(MockWorkspaceManager):
    """Mocked ones, and those that are behind ``endpoints``."""

    def __init__(self, endpoints: dict[WorkspaceId, Endpoint] | None = None) -> None:
        super().__init__()
        self._endpoints = endpoints or {}

    async def attach(self, workspace_id: WorkspaceId, *, take_over: bool = False) -> ToolExecutor:
        endpoint = self._endpoints.get(workspace_id)
        return await super().attach(workspace_id, take_over=take_over) if endpoint is None else client(endpoint)


@dataclass(frozen=True, kw_only=True)
class Api:
    url: str
    app: ServerApp
    accounts: Accounts
    keys: Keys
    database: Database
    services: Services

    def is_known_at(self, url: str) -> None:
        """Of what stands in front of it."""
        origins = self.services.origins
        self.services.origins = replace(origins, allowed=origins.allowed | {url})

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    async def user(self, name: str, role: Role = Role.MEMBER) -> tuple[User, str]:
        """A user, and a token that is good for all that they may."""
        user, code = await self.accounts.invite(name, role)
        return user, (await self.accounts.log_in(code.secret, CredentialKind.TOKEN, name="test")).secret

    async def principal(self, token: str) -> Principal:
        return await self.accounts.authenticate(token, CredentialKind.TOKEN)

    async def add_task(
        self, id_: str, *, owner: UserId, workspace_id: str | None = None, project_id: ProjectId | None = None
    ) -> TaskId:
        task = replace(
            make_task(id_),
            owner=owner,
            project_id=project_id,
            state=TaskState.IDLE,
            workspace_id=None if workspace_id is None else WorkspaceId(workspace_id),
        )
        async with self.database.write() as transaction:
            await rows.add(transaction, task)
        return task.id

    async def add_project(self, id_: str, *members: tuple[UserId, ProjectRole]) -> ProjectId:
        project = Project(id=ProjectId(id_), name=id_, created_at=1.0)
        async with self.database.write() as transaction:
            await projects.add(transaction, project)
            for user_id, role in members:
                await projects.set_member(transaction, project.id, user_id, role)
        return project.id


async def any_model(name: str | None, payer: Payer) -> str:
    return name or "scripted:nothing"


async def resolves_outside(host: str) -> Sequence[Address]:
    return [ip_address("93.184.216.34")]


SEALING_KEY = urlsafe_b64encode(bytes(range(32))).decode()
BAD_KEY = "refused-by-its-provider"


async def any_key(provider: making.Provider, endpoint: making.Endpoint) -> None:
    if endpoint.key == BAD_KEY:
        raise ModelKeyRefused(f"{provider.title} refuses the key (401).")


@asynccontextmanager
async def serving_api(
    database: Database,
    manager: MockWorkspaceManager | None = None,
    *,
    check_model: CheckModel = any_model,
    settings: Settings | None = None,
) -> AsyncGenerator[Api]:
    settings = settings or Settings(data_dir=Path("/nonexistent"))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    accounts = Accounts(database=database, entropy=os.urandom)
    tasks = Tasks(database=database, shown=str, entropy=os.urandom)
    sealing = SealingKeys(file=Path("/nowhere"), given=SEALING_KEY)
    keys = Keys(database=database, sealing=sealing, attempt=any_key, resolver=resolves_outside)
    services = Services(
        tasks=tasks,
        accounts=accounts,
        keys=keys,
        manager=manager or Workspaces(),
        check_model=check_model,
        repositories=make_repositories(settings),
        artifacts=open_artifacts(settings),
        settings=settings,
        check_repository=lambda repository, owner: check_reach(owner, repository, ()),
        user_requests_per_s=1_000_000,
        logins_per_min=1_000_000,
        origins=Origins(allowed=frozenset({url}), secure=False),
    )
    app = ServerApp(services)
    server = HttpServer(app)
    serving_task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield Api(url=url, app=app, accounts=accounts, keys=keys, database=database, services=services)
    finally:
        server.stop()
        await serving_task
        await app.aclose()


@asynccontextmanager
async def workspaces(directory: Path, *ids: str) -> AsyncGenerator[Workspaces]:
    """A sidecar for each, over a directory of this host."""
    async with AsyncExitStack() as stack:
        endpoints: dict[WorkspaceId, Endpoint] = {}
        for id_ in ids:
            (own := directory / id_).mkdir(parents=True)
            executor = await stack.enter_async_context(host(own))
            listener = stack.enter_context(listen(own / "sidecar.sock"))
            await stack.enter_async_context(serving(executor, listener))
            endpoints[WorkspaceId(id_)] = UnixEndpoint(own / "sidecar.sock")
        yield Workspaces(endpoints)
