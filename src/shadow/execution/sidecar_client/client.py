"""A workspace's ``ToolExecutor`` from outside: speaks to its sidecar over a unix socket or TCP.

Calls that can be repeated safely are, as ``Resilience`` says. What cannot be known is ``OutcomeUnknown``. Where call after
call goes unanswered, the breaker opens: calls then fail at once, for a while.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable

from shadow.core.workspaces import Capabilities, Health
from shadow.execution.sidecar_client.breaker import Breaker, BreakerStatus
from shadow.execution.sidecar_client.commands import CommandsClient
from shadow.execution.sidecar_client.endpoint import Endpoint
from shadow.execution.sidecar_client.files import FilesClient
from shadow.execution.sidecar_client.git import GitClient
from shadow.execution.sidecar_client.retries import Randomness, Resilience
from shadow.execution.sidecar_client.terminals import TerminalsClient
from shadow.execution.sidecar_client.transport import Sleep, Transport
from shadow.execution.sidecar_client.trees import TreesClient
from shadow.execution.sidecar_client.watching import WatchClient
from shadow.wire.message import outgoing, parse_answer, to_core
from shadow.wire.workspaces import HealthMessage, LeaseMessage


class SidecarClient(CommandsClient, FilesClient, GitClient, TerminalsClient, TreesClient, WatchClient):
    """Use it on one event loop. It connects with its first call."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        token: str,
        capabilities: Capabilities,
        epoch: int,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = os.urandom,
        resilience: Resilience | None = None,
        breaker: Breaker | None = None,
        randomness: Randomness = random.random,
    ) -> None:
        """``breaker``: one that other clients of the same sidecar, with the same clock, share; ``None``: one of its own."""
        transport = Transport(
            endpoint,
            token=token,
            sleep=sleep,
            clock=clock,
            resilience=resilience,
            breaker=breaker,
            randomness=randomness,
        )
        super().__init__(transport, clock=clock, sleep=sleep, entropy=entropy)
        self._capabilities = capabilities
        self._epoch = epoch

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def breaker(self) -> BreakerStatus:
        """For metrics: whether calls go through to this sidecar."""
        return self.transport.breaker

    async def health(self) -> Health:
        reply = await self.send("GET", "/v1/health")
        return to_core(parse_answer(HealthMessage, reply.body), Health)

    async def renew_lease(self, lease_s: float) -> None:
        await self.send("PUT", "/v1/lease", message=outgoing(LeaseMessage, {"lease_s": lease_s}), mutates=True)

    async def aclose(self) -> None:
        await self.transport.aclose()
