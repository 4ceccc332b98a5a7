"""Telling changes of files to any number of watchers: batched, each at its own pace, silent while git of ours works."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shadow.core.errors import LimitExceeded
from shadow.core.watching import ChangesMissed, FileChanges, Watching
from shadow.execution.host.files import run_on
from shadow.execution.host.paths import WorkspacePaths
from shadow.execution.host.threads import Stop, in_thread
from shadow.execution.interface import WatchEvent

if TYPE_CHECKING:
    from shadow.execution.host.change_batch import Batch
    from shadow.execution.host.watched_tree import WatchedTree

MAX_WATCHERS = 32
QUIET_S = 0.05
"""A batch ends when so long nothing has happened,"""
LONGEST_S = 0.25
"""or so long after it began."""


class HostWatches:
    """The ``watch`` of ``ToolExecutor``. Who does not ask for the next event costs nothing: the kernel keeps 16384 for it."""

    def __init__(self, root: Path) -> None:
        self._paths = WorkspacePaths(root)
        self._wakes: set[asyncio.Event] = set()
        self._pauses = 0
        """How many there were."""
        self._pausing = 0
        self._none_pauses = asyncio.Event()
        self._none_pauses.set()

    @contextmanager
    def paused(self) -> Generator[None]:
        """What changes in the block is told by one ``ChangesMissed`` after it."""
        self._pauses += 1
        self._pausing += 1
        self._none_pauses.clear()
        try:
            yield
        finally:
            self._pausing -= 1
            if not self._pausing:
                self._none_pauses.set()
                for wake in self._wakes:
                    wake.set()

    async def watch(self, path: str) -> AsyncGenerator[WatchEvent]:
        # Loaded with the first watch: most workspaces never see one.
        from shadow.execution.host.change_batch import Batch
        from shadow.execution.host.watched_tree import WatchedTree

        if len(self._wakes) >= MAX_WATCHERS:
            raise LimitExceeded(f"There are {MAX_WATCHERS} watches already.", mend="End one of them.")
        tree, stop, wake = WatchedTree(self._paths, path), Stop(), asyncio.Event()
        self._wakes.add(wake)
        try:
            pauses = self._pauses - (self._pausing > 0)
            await run_on(path, stop, tree.open, stop)
            yield Watching()
            while not tree.gone:
                batch = Batch()
                if pauses == self._pauses:
                    await self._gather(path, tree, batch, stop, wake)
                if pauses != self._pauses:
                    await self._none_pauses.wait()
                    pauses = self._pauses
                    await run_on(path, stop, tree.start_over, stop)
                    batch.miss("a git operation")
                if batch.missed:
                    yield ChangesMissed(reason=batch.missed)
                elif changes := tuple(batch):
                    yield FileChanges(changes=changes)
        finally:
            self._wakes.discard(wake)
            await in_thread(None, tree.close)

    async def _gather(self, path: str, tree: "WatchedTree", batch: "Batch", stop: Stop, wake: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        pauses = self._pauses
        await _readable(tree.fd, wake, None)
        deadline = loop.time() + LONGEST_S
        while pauses == self._pauses:
            await run_on(path, stop, tree.collect, batch, stop)
            left_s = min(QUIET_S, deadline - loop.time())
            if tree.gone or left_s <= 0 or not await _readable(tree.fd, wake, left_s):
                return


async def _readable(fd: int, wake: asyncio.Event, timeout_s: float | None) -> bool:
    """Whether there is something to read before the time is over, or ``wake`` was set."""
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, wake.set)
    try:
        async with asyncio.timeout(timeout_s):
            await wake.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    wake.clear()
    return True
