"""A client of a Shadow server::

    async with Shadow("https://shadow.example", token=token) as shadow:
        task = await shadow.tasks.create("https://git.example/project.git", "Mend the parser")
        async for recorded in shadow.events(task.id, until_rest=True):
            print(recorded.seq, recorded.event)
        done = await shadow.tasks.get(task.id)
        async with shadow.workspace(done.workspace_id) as workspace:
            print(await workspace.read_file("README.md"))

Values are those of ``shadow.core``, errors its one tree (``shadow.core.errors``). Calls are repeated where that is safe, and
what was sent but never answered is ``OutcomeUnknown``.
"""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from typing import Self
from urllib.parse import urlsplit

from shadow.client.accounts import AccountsClient
from shadow.client.addresses import is_loopback, server_url
from shadow.client.calling import Caller
from shadow.client.catalogue import ModelsClient, RepositoriesClient
from shadow.client.events import follow
from shadow.client.keys import KeysClient
from shadow.client.projects import ProjectsClient
from shadow.client.tasks import TasksClient
from shadow.client.workspaces import ServerWorkspaces
from shadow.core.errors import Broken, NotFound, Rejected
from shadow.core.events import Recorded
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import TaskId
from shadow.execution.interface import ToolExecutor
from shadow.execution.sidecar_client.breaker import BreakerPolicy
from shadow.execution.sidecar_client.endpoint import UrlEndpoint
from shadow.execution.sidecar_client.retries import Resilience, RetryPolicy
from shadow.execution.sidecar_client.transport import Sleep, Transport
from shadow.wire.server import HealthMessage

RESTARTS_WITHIN_S = 120.0
"""How long streams of output and terminals wait for a server that restarts."""
RESILIENCE = Resilience(
    retries=RetryPolicy(waits_s=(0.5, 1.0, 2.0), jitter=0.5),
    breaker=BreakerPolicy(failures=20, open_s=5.0),
    no_progress_s=RESTARTS_WITHIN_S,
)


class Shadow:
    """Use it on one event loop, as a context manager or with ``aclose``. It connects with its first call."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        insecure: bool = False,
        tls: ssl.SSLContext | None = None,
        resilience: Resilience = RESILIENCE,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``token``: as ``shadow token create`` or a login gives it; nothing but a login goes without. ``insecure``: it may
        travel in clear, by http to another host. ``tls``: whom to trust for https; else this host's authorities, or those of
        SSL_CERT_FILE. Raises: Rejected.
        """
        self.url = server_url(url)
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not insecure and not is_loopback(parts.hostname or ""):
            raise Rejected(
                f"{self.url} is not encrypted: whoever is on the way there could read your token, and use it.",
                mend="Use https://…; in a network that you trust: --insecure, or SHADOW_SERVER_INSECURE=true.",
            )
        self._sleep = sleep
        self._clock = clock
        self._transport = Transport(
            UrlEndpoint(f"{self.url}/v1", tls), token=token, sleep=sleep, clock=clock, resilience=resilience
        )
        self._caller = Caller(self._transport, entropy=entropy)
        self.tasks = TasksClient(self._caller)
        self.accounts = AccountsClient(self._caller)
        self.projects = ProjectsClient(self._caller)
        self.keys = KeysClient(self._caller)
        self.repositories = RepositoriesClient(self._caller)
        self.models = ModelsClient(self._caller)
        self.workspaces = ServerWorkspaces(self.url, token=token, resilience=resilience, tls=tls)

    async def version(self) -> str:
        """The server's; no token is needed. Raises: Rejected: nothing of Shadow's is there; Untrusted, Denied, Unavailable."""
        try:
            return (await self._caller.ask(HealthMessage, "/v1/health/live")).version
        except (NotFound, Broken) as error:
            raise Rejected(
                f"There is no server of Shadow's at {self.url}: {error.message}",
                mend="See that the address is right, its port and path too.",
            ) from error

    def events(
        self, task_id: TaskId, *, after: int = 0, until_rest: bool = False, patience_s: float | None = None
    ) -> AsyncGenerator[Recorded]:
        """The log of a task behind the event ``after``, and then what comes: each once, in order, whatever happens to the
        connection or the server meanwhile.

        ``until_rest`` ends it when nothing goes on with the task any more. ``patience_s``: how long the server may be away;
        ``None``: it is waited for without end. Raises: NotFound: the task is gone; Unauthenticated, Denied: the token is;
        Unavailable: ``patience_s`` is over, and ``details["after"]`` is how far it came; with ``until_rest`` what the last
        thing that was asked of the task failed with.
        """
        return follow(
            self._transport,
            task_id,
            after=after,
            until_rest=until_rest,
            patience_s=patience_s,
            sleep=self._sleep,
            clock=self._clock,
        )

    def workspace(self, workspace_id: WorkspaceId) -> ToolExecutor:
        """What can be done in the workspace of a task: files, search, commands, terminals, git. Use it as a context manager."""
        return self.workspaces.executor(workspace_id)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
