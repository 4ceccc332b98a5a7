"""Workspaces of a server's tasks: who works in one does so with the executor that a workspace on this host has too."""

import asyncio
import os
import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

from shadow.client.calling import Caller
from shadow.core.egress import EgressPolicy
from shadow.core.egress_status import EgressStatus
from shadow.core.errors import NotFound, Unsupported
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import Capabilities, CpuTime, Isolation, WorkspaceSpec, WorkspaceStatus
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.execution.sidecar_client.client import SidecarClient
from shadow.execution.sidecar_client.endpoint import UrlEndpoint
from shadow.execution.sidecar_client.retries import Resilience
from shadow.execution.sidecar_client.transport import Transport
from shadow.wire.workspaces import WorkspaceListMessage


class ServerWorkspaces(WorkspaceManager):
    """They come and go with their tasks, which the server looks after: what would do the same by hand is Unsupported."""

    is_at_server = True

    def __init__(self, url: str, *, token: str, resilience: Resilience, tls: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._tls = tls
        self._token = token
        self._resilience = resilience

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            isolation=Isolation.SANDBOX,
            survives_sidecar=True,
            network=False,
            egress=True,
            outlives_starter=True,
            limits=True,
            terminals=True,
            git=True,
            trees=True,
            watching=True,
        )

    def executor(self, workspace_id: WorkspaceId) -> ToolExecutor:
        """Connects with its first call; close it with ``aclose``, or use it as a context manager."""
        return SidecarClient(
            UrlEndpoint(f"{self._url}/v1/workspaces/{quote(workspace_id, safe='')}", self._tls),
            token=self._token,
            capabilities=self.capabilities,
            epoch=0,  # the server fences its own executors and takes no epoch from clients
            resilience=self._resilience,
        )

    async def attach(self, workspace_id: WorkspaceId, *, take_over: bool = False) -> ToolExecutor:
        if take_over:
            raise _unsupported("taken over")
        return self.executor(workspace_id)

    async def list(self) -> Sequence[WorkspaceStatus]:
        endpoint = UrlEndpoint(f"{self._url}/v1", self._tls)
        async with Transport(
            endpoint, token=self._token, sleep=asyncio.sleep, resilience=self._resilience
        ) as transport:  # of its own: a manager is not closed
            found = await Caller(transport, entropy=os.urandom).ask(WorkspaceListMessage, "/v1/workspaces")
        return [message.status() for message in found.workspaces]

    async def status(self, workspace_id: WorkspaceId, *, measure: bool = False) -> WorkspaceStatus:
        for status in await self.list():
            if status.id == workspace_id:
                return status
        raise NotFound(f"There is no workspace {workspace_id!r}.", mend="`shadow workspace list` shows all.")

    async def cpu_time(self, workspace_id: WorkspaceId) -> CpuTime | None:
        await self.status(workspace_id)
        return None

    async def create(self, spec: WorkspaceSpec) -> WorkspaceStatus:
        raise _unsupported("made")

    async def renew(self, workspace_id: WorkspaceId, *, lease_s: float) -> None:
        raise _unsupported("renewed")

    async def set_egress(self, workspace_id: WorkspaceId, policy: EgressPolicy) -> None:
        raise _unsupported("given other rules")

    async def egress(self, workspace_id: WorkspaceId) -> EgressStatus:
        raise _unsupported("asked for its rules")

    async def hibernate(self, workspace_id: WorkspaceId, *, keep_s: float) -> None:
        raise _unsupported("hibernated")

    async def destroy(self, workspace_id: WorkspaceId) -> None:
        raise _unsupported("removed")

    async def list_orphans(self) -> Sequence[WorkspaceId]:
        raise _unsupported("reaped")

    async def reap(self) -> Sequence[WorkspaceId]:
        raise _unsupported("reaped")

    def open(self, spec: WorkspaceSpec) -> AbstractAsyncContextManager[ToolExecutor]:
        raise _unsupported("made")


def _unsupported(done: str) -> Unsupported:
    return Unsupported(
        f"A workspace of a server cannot be {done} from here: it comes and goes with its task.",
        mend="`shadow task create`, `hibernate`, `archive` and `delete` do it; for a workspace of this host: --server none.",
        details={"capability": "workspaces"},
    )
