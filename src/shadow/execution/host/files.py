"""The files of a workspace, by descriptor, below its root: the asynchronous face of the modules beside this one.

Paths in results are relative to the root with every link on the way resolved.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from shadow.core.files import (
    DEFAULT_LISTING_LIMIT,
    DEFAULT_READ_LIMIT_BYTES,
    FileContent,
    FileLines,
    FileStat,
    Listing,
    Replacement,
)
from shadow.execution.host import deleting, listing, moving, reading, replacing, stats, writing
from shadow.execution.host.failures import error_from_os
from shadow.execution.host.paths import WorkspacePaths
from shadow.execution.host.threads import Stop, in_thread

P = ParamSpec("P")
T = TypeVar("T")


class HostFiles:
    """The file methods of ``ToolExecutor``, without operations: whoever journals calls them once."""

    def __init__(self, root: Path, *, shown_root: str | None = None) -> None:
        self.paths = WorkspacePaths(root, shown_root=shown_root)
        self.locks = writing.PathLocks()

    async def stat(self, path: str, *, follow: bool = True) -> FileStat:
        return await run_on(path, None, stats.read_stat, self.paths, path, follow=follow)

    async def read_file(
        self, path: str, *, offset: int = 0, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileContent:
        return await run_on(path, None, reading.read_content, self.paths, path, offset=offset, limit_bytes=limit_bytes)

    async def read_lines(
        self, path: str, *, first: int = 1, last: int | None = None, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileLines:
        stop = Stop()
        return await run_on(
            path,
            stop,
            reading.read_file_lines,
            self.paths,
            path,
            stop,
            first=first,
            last=last,
            limit_bytes=limit_bytes,
        )

    async def stream_file(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> AsyncIterator[bytes]:
        reading.check_range(offset=offset, limit_bytes=limit_bytes)
        file = reading.OpenFile(self.paths, path)
        try:
            await run_on(path, None, file.open)
            end = file.size_bytes if limit_bytes is None else min(file.size_bytes, offset + limit_bytes)
            while offset < end:
                piece = await run_on(path, None, file.read, offset, min(reading.PIECE_BYTES, end - offset))
                if not piece:
                    return  # cut short meanwhile by a command
                offset += len(piece)
                yield piece
        finally:
            file.close()

    async def write_file(
        self,
        path: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        create_parents: bool = True,
        exclusive: bool = False,
        expected: str | None = None,
    ) -> FileStat:
        draft = writing.Draft(
            self.paths,
            self.locks,
            path,
            mode=mode,
            create_parents=create_parents,
            exclusive=exclusive,
            expected=expected,
        )
        if isinstance(content, (bytes, bytearray, memoryview)):
            return await run_on(path, None, writing.write_whole, draft, content)
        try:
            await run_on(path, None, draft.open)
            async for data in gathered(content):
                await run_on(path, None, draft.write, data)
            return await run_on(path, None, draft.commit)
        finally:
            await in_thread(None, draft.close)

    async def search_replace(self, path: str, *, old: str, new: str, expected: str | None = None) -> Replacement:
        return await run_on(
            path, None, replacing.search_replace, self.paths, self.locks, path, old=old, new=new, seen=expected
        )

    async def make_directory(self, path: str, *, create_parents: bool = True) -> FileStat:
        return await run_on(path, None, moving.make_directory, self.paths, path, create_parents=create_parents)

    async def move(self, source: str, target: str, *, overwrite: bool = False, expected: str | None = None) -> FileStat:
        return await run_on(
            source, None, moving.move, self.paths, self.locks, source, target, overwrite=overwrite, expected=expected
        )

    async def delete(self, path: str, *, recursive: bool = False, expected: str | None = None) -> None:
        stop = Stop()
        await run_on(
            path, stop, deleting.delete, self.paths, self.locks, path, stop, recursive=recursive, expected=expected
        )

    async def list_directory(
        self,
        path: str = ".",
        *,
        recursive: bool = False,
        after: str | None = None,
        limit: int = DEFAULT_LISTING_LIMIT,
    ) -> Listing:
        stop = Stop()
        return await run_on(
            path, stop, listing.list_entries, self.paths, path, stop, recursive=recursive, after=after, limit=limit
        )


async def run_on(path: str, stop: Stop | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``call`` in a thread; what the operating system refuses becomes one of Shadow's errors."""
    try:
        return await in_thread(stop, call, *args, **kwargs)
    except OSError as error:
        raise error_from_os(error, path) from error


async def gathered(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Small pieces put together, so that each is worth a trip to a thread."""
    waiting: list[bytes] = []
    size = 0
    async for piece in content:
        waiting.append(piece)
        size += len(piece)
        if size >= reading.PIECE_BYTES:
            yield waiting[0] if len(waiting) == 1 else b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
