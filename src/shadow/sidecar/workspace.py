"""Routes of the workspace itself: how it is, how long it lives."""

from starlette.requests import Request
from starlette.routing import Route

from shadow.execution.interface import ToolExecutor
from shadow.sidecar.requests import read_message
from shadow.sidecar.responses import Answer, message_answer
from shadow.wire.workspaces import HealthMessage, LeaseMessage


class WorkspaceRoutes:
    def __init__(self, executor: ToolExecutor) -> None:
        self._executor = executor

    def routes(self) -> list[Route]:
        return [
            Route("/v1/health", self.health, methods=["GET"]),
            Route("/v1/lease", self.renew_lease, methods=["PUT"]),
        ]

    async def health(self, request: Request) -> Answer:
        return message_answer(HealthMessage.of(await self._executor.health()))

    async def renew_lease(self, request: Request) -> Answer:
        asked = await read_message(request, LeaseMessage)
        await self._executor.renew_lease(asked.lease_s)
        return Answer(b"{}")
