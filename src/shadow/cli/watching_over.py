"""While something of a workspace is followed: its end is noticed, and no lease ends meanwhile."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from shadow.core.errors import OutcomeUnknown, Unavailable
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import WorkspaceState, WorkspaceStatus
from shadow.execution.interface import WorkspaceManager

KEEP_ALIVE_S = 60.0
LOOK_EVERY_S = 1.0
ENDS_LOOK_S = 0.05
ENDS_WITHIN_LOOKS = 40


@asynccontextmanager
async def telling_of_its_end(check: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
    """An error of a workspace that has ended is that of ``check``, which says more than a connection that was refused.

    ``check`` is asked for a while: the sidecar may tell of a dead holder before the kernel has taken everything down.
    """
    try:
        yield
    except (Unavailable, OutcomeUnknown):
        for _ in range(ENDS_WITHIN_LOOKS):
            await check()
            await asyncio.sleep(ENDS_LOOK_S)
        raise


async def check_alive(manager: WorkspaceManager, workspace_id: WorkspaceId) -> WorkspaceStatus:
    """Raises: OutcomeUnknown, NotFound: the workspace ended, or was removed."""
    status = await manager.status(workspace_id)
    if status.state is WorkspaceState.STOPPED:
        raise OutcomeUnknown(
            "The workspace ended: nobody can know how the command did.",
            mend="Its files and logs are kept; the next command starts it again.",
        )
    return status


async def watch_over(manager: WorkspaceManager, workspace_id: WorkspaceId, *, renew: bool = True) -> None:
    """A workspace that ended is noticed at once; with ``renew`` its lease lasts as long as we do, and not much longer.

    A server looks after its workspaces itself, and its answers say when one has ended.
    """
    if manager.is_at_server:
        return
    while True:
        status = await check_alive(manager, workspace_id)
        left_s = None if status.lease_expires_at is None else status.lease_expires_at - time.time()
        if renew and left_s is not None and left_s < KEEP_ALIVE_S:
            try:
                await manager.renew(workspace_id, lease_s=2 * KEEP_ALIVE_S)
            except (Unavailable, OutcomeUnknown) as error:
                structlog.get_logger().warning("lease.renewal_failed", workspace_id=workspace_id, code=error.code)
        await asyncio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def watching_over(manager: WorkspaceManager, workspace_id: WorkspaceId, *, renew: bool) -> AsyncGenerator[None]:
    """``watch_over`` for the length of a block, which an error of it ends; a workspace that ended is told as that."""
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(watch_over(manager, workspace_id, renew=renew))
        try:
            async with telling_of_its_end(lambda: check_alive(manager, workspace_id)):
                yield
        finally:
            watch.cancel()
