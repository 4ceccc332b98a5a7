"""A workspace for the length of a block, whichever manager makes it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from shadow.core.errors import NotFound, ShadowError
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.interface import ToolExecutor, WorkspaceManager

log = logging.getLogger(__name__)


@asynccontextmanager
async def opened(
    manager: WorkspaceManager,
    spec: WorkspaceSpec,
    *,
    lease_s: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[ToolExecutor]:
    """Made, kept alive by renewals of ``lease_s`` each, destroyed."""
    status = await manager.create(spec)
    try:
        renewals = asyncio.create_task(_keep_alive(manager, status.id, lease_s, sleep))
        try:
            async with await manager.attach(status.id) as executor:
                yield executor
        finally:
            renewals.cancel()
            with suppress(asyncio.CancelledError):
                await renewals
    finally:
        await asyncio.shield(manager.destroy(status.id))


async def _keep_alive(
    manager: WorkspaceManager, workspace_id: WorkspaceId, lease_s: float, sleep: Callable[[float], Awaitable[None]]
) -> None:
    while True:
        await sleep(lease_s / 3)
        try:
            await manager.renew(workspace_id, lease_s=lease_s)
        except NotFound:
            return
        except ShadowError as error:  # two more chances before the lease ends
            log.warning("workspace.renewal_failed", extra={"workspace_id": workspace_id, "reason": str(error)})
