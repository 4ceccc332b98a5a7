"""Executors that stay attached for a while: a request that follows another one finds its workspace's connections open."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from shadow.core.ids import WorkspaceId
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.http.admission import Clock

IDLE_S = 15.0
"""How long one that nobody uses stays attached."""
AGE_S = 60.0
"""After so long another one is attached, which also looks after what belongs to the workspace beside its sidecar."""
MOST = 128
"""Workspaces whose executors are kept; the one that was used least lately makes room."""


@dataclass(eq=False, slots=True, kw_only=True)
class _Kept:
    """It is closed when it is neither kept nor used."""

    executor: ToolExecutor
    attached_at: float
    used_at: float
    users: int = 0
    is_kept: bool = False


class Attachments:
    """Use it on one event loop. Who may use a workspace is for the caller to say, each time."""

    def __init__(
        self, manager: WorkspaceManager, *, clock: Clock, idle_s: float = IDLE_S, age_s: float = AGE_S, most: int = MOST
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._idle_s = idle_s
        self._age_s = age_s
        self._most = most
        self._kept: dict[WorkspaceId, _Kept] = {}
        """The first one was used least lately."""
        self._sweeping: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    @asynccontextmanager
    async def attached(self, workspace_id: WorkspaceId) -> AsyncGenerator[ToolExecutor]:
        """As ``attach`` gives it: of the workspace as it is now, woken where it slept. Raises: as ``attach``."""
        kept = self._kept.get(workspace_id)
        if kept is not None:
            async with self._in_use(kept):  # first, so that nobody closes it meanwhile
                if await self._is_good(workspace_id, kept):
                    yield kept.executor
                    return
        await self._drop(workspace_id)
        executor = await self._manager.attach(workspace_id)
        kept = _Kept(executor=executor, attached_at=self._clock(), used_at=self._clock())
        async with self._in_use(kept):
            await self._keep(workspace_id, kept)
            yield executor

    async def aclose(self) -> None:
        for workspace_id in list(self._kept):
            await self._drop(workspace_id)
        self._closed.set()
        if self._sweeping is not None:
            await self._sweeping

    async def _is_good(self, workspace_id: WorkspaceId, kept: _Kept) -> bool:
        if self._clock() - kept.attached_at >= self._age_s:
            return False
        if not await self._manager.is_attached(workspace_id, kept.executor):
            return False
        if kept.is_kept:
            self._kept[workspace_id] = self._kept.pop(workspace_id)
        return True

    async def _keep(self, workspace_id: WorkspaceId, kept: _Kept) -> None:
        while workspace_id in self._kept or len(self._kept) >= self._most:  # somebody may be as fast
            await self._drop(workspace_id if workspace_id in self._kept else next(iter(self._kept)))
        self._kept[workspace_id] = kept
        kept.is_kept = True
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())

    @asynccontextmanager
    async def _in_use(self, kept: _Kept) -> AsyncGenerator[None]:
        kept.users += 1
        try:
            yield
        finally:
            kept.users -= 1
            kept.used_at = self._clock()
            await self._close_unused(kept)

    async def _drop(self, workspace_id: WorkspaceId) -> None:
        kept = self._kept.pop(workspace_id, None)
        if kept is not None:
            kept.is_kept = False
            await self._close_unused(kept)

    @staticmethod
    async def _close_unused(kept: _Kept) -> None:
        if not kept.users and not kept.is_kept:
            await kept.executor.aclose()

    async def _sweep(self) -> None:
        while self._kept:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._idle_s / 3):
                    await self._closed.wait()
            long_ago = self._clock() - self._idle_s
            for workspace_id, kept in list(self._kept.items()):
                if not kept.users and kept.used_at <= long_ago:
                    await self._drop(workspace_id)
