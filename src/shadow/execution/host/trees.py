"""Directory trees as tar streams: the asynchronous face of ``packing`` and ``unpacking``.

Those are loaded with the first tree: most workspaces never see one.
"""

from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path

from shadow.core.trees import TreeReceipt
from shadow.execution.host.files import gathered, run_on
from shadow.execution.host.moving import make_directory
from shadow.execution.host.paths import LinklessPaths, WorkspacePaths
from shadow.execution.host.threads import Stop, in_thread
from shadow.execution.host.writing import PathLocks


class HostTrees:
    """The tree methods of ``ToolExecutor``, without operations. ``locks`` are those of whoever else writes files."""

    def __init__(self, root: Path, *, locks: PathLocks) -> None:
        self._paths = WorkspacePaths(root)
        self._linkless = LinklessPaths(root)
        self._locks = locks

    async def download(self, path: str) -> AsyncGenerator[bytes]:
        from shadow.execution.host.packing import Packing

        packing = Packing(self._paths, path)
        stop = Stop()
        try:
            await run_on(path, None, packing.open)
            while piece := await run_on(path, stop, packing.next_piece, stop):
                yield piece
        finally:
            await in_thread(None, packing.close)

    async def upload(self, path: str, tar: AsyncIterable[bytes]) -> TreeReceipt:
        from shadow.execution.host.unpacking import Unpacking

        made = await run_on(path, None, make_directory, self._paths, path, create_parents=True)
        unpacking = Unpacking(self._linkless, self._locks, made.path)
        stop = Stop()
        try:
            async for data in gathered(tar):
                await run_on(path, stop, unpacking.feed, data, stop)
            return await run_on(path, None, unpacking.finish)
        finally:
            await in_thread(None, unpacking.close)
