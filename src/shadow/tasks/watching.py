"""What a workspace's network did, told in the task's log while a run goes on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from shadow.agent.task_log import TaskLog
from shadow.core.egress_status import EgressEvent, EgressEventKind
from shadow.core.errors import ShadowError
from shadow.core.events import EgressSeen
from shadow.core.ids import WorkspaceId
from shadow.execution.interface import WorkspaceManager

LOOK_EVERY_S = 1.0


async def start_egress(manager: WorkspaceManager, workspace_id: WorkspaceId) -> None:
    """Also where nothing is allowed: then what is refused is told. Raises: as ``set_egress``."""
    if not manager.capabilities.egress:
        return
    status = await manager.egress(workspace_id)
    if not status.running:
        await manager.set_egress(workspace_id, status.policy)


@asynccontextmanager
async def egress_told(manager: WorkspaceManager, workspace_id: WorkspaceId, log: TaskLog) -> AsyncGenerator[None]:
    """First uses and refusals become events of the log, within about a second and at the end of the block."""
    if not manager.capabilities.egress:
        yield
        return
    told: set[EgressEvent] = set((await manager.egress(workspace_id)).events)

    async def look() -> None:
        with suppress(ShadowError):  # the next look, or the end of the run, says what is wrong
            for event in (await manager.egress(workspace_id)).events:
                if event not in told:
                    told.add(event)
                    log.tell(_seen(event))

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await look()

    looking = asyncio.create_task(keep_looking())
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        await look()


def _seen(event: EgressEvent) -> EgressSeen:
    allowed = event.kind is EgressEventKind.FIRST_USE
    rule = event.rule or event.reason if allowed else event.reason or "no rule"
    return EgressSeen(allowed=allowed, host=event.host, port=event.port, rule=rule)
