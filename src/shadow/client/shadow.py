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
import time
from collections.abc import AsyncGenerator, Callable
from typing import Self
from urllib.parse import urlsplit

from shadow.client.accounts import AccountsClient
from shadow.client.calling import Caller
from shadow.client.catalogue import ModelsClient, RepositoriesClient
from shadow.client.events import follow
from shadow.client.keys import KeysClient
from shadow.client.tasks import TasksClient
from shadow.client.workspaces import ServerWorkspaces
from shadow.core.errors import Rejected
from shadow.core.events import Recorded
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import TaskId
from shadow.execution.interface import ToolExecutor
from shadow.execution.sidecar_client.breaker import BreakerPolicy
from shadow.execution.sidecar_client.endpoint import UrlEndpoint
from shadow.execution.sidecar_client.retries import Resilience, RetryPolicy
from shadow.execution.sidecar_client.transport import Sleep, Transport

RESTARTS_WITHIN_S = 120.0
"""How long streams of output and terminals wait for a server that restarts."""
RESILIENCE = Resilience(
    retries=RetryPolicy(waits_s=(0.5, 1.0, 2.0), jitter=0.5),
    breaker=BreakerPolicy(failures=20, open_s=5.0),
    no_progress_s=RESTARTS_WITHIN_S,
)


def server_url(text: str) -> str:
    """The address of a server, written one way. Raises: Rejected."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Rejected(f"{text!r} is not the address of a server: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise Rejected(f"{text!r} is not the address of a server.", mend="Write it as https://shadow.example")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


class Shadow:
    """Use it on one event loop, as a context manager or with ``aclose``. It connects with its first call."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        resilience: Resilience = RESILIENCE,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``token``: as ``shadow token create`` or a login gives it; nothing but a login goes without. Raises: Rejected."""
        self.url = server_url(url)
        self._sleep = sleep
        self._clock = clock
        self._transport = Transport(
            UrlEndpoint(f"{self.url}/v1"), token=token, sleep=sleep, clock=clock, resilience=resilience
        )
        caller = Caller(self._transport)
        self.tasks = TasksClient(caller)
        self.accounts = AccountsClient(caller)
        self.keys = KeysClient(caller)
        self.repositories = RepositoriesClient(caller)
        self.models = ModelsClient(caller)
        self.workspaces = ServerWorkspaces(self.url, token=token, resilience=resilience)

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
