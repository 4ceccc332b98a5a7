"""Routes of files: parse, one call, answer. Contents travel as raw bodies."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from urllib.parse import quote

from starlette.requests import Request
from starlette.routing import Route

from shadow.core.errors import ShadowError
from shadow.core.files import DEFAULT_LISTING_LIMIT, DEFAULT_READ_LIMIT_BYTES
from shadow.execution.interface import ToolExecutor
from shadow.execution.streams import closing
from shadow.sidecar.holds import Holds
from shadow.sidecar.requests import Operations, Query, content_length, integer, read_body, read_message, stream_body
from shadow.sidecar.responses import Answer, ByteStream, message_answer
from shadow.wire.files import (
    FileLinesMessage,
    FileStatMessage,
    ListingMessage,
    MakeDirectoryMessage,
    MoveMessage,
    ReplacementMessage,
    ReplaceMessage,
)

MAX_WHOLE_READ_BYTES = 512 * 1024
"""A read of at most so many bytes is answered at once; a longer one is streamed."""
MAX_WHOLE_WRITE_BYTES = 512 * 1024
MAX_LISTING_ENTRIES = 100_000


class FileRoutes:
    def __init__(self, executor: ToolExecutor, operations: Operations, holds: Holds) -> None:
        self._executor = executor
        self._operations = operations
        self._holds = holds

    def routes(self) -> list[Route]:
        return [
            Route("/v1/files", self.read, methods=["GET"]),
            Route("/v1/files", self.write, methods=["PUT"]),
            Route("/v1/files", self.delete, methods=["DELETE"]),
            Route("/v1/files/stat", self.stat, methods=["GET"]),
            Route("/v1/files/lines", self.lines, methods=["GET"]),
            Route("/v1/files/list", self.list, methods=["GET"]),
            Route("/v1/files/replace", self.replace, methods=["POST"]),
            Route("/v1/files/move", self.move, methods=["POST"]),
            Route("/v1/files/directory", self.make_directory, methods=["POST"]),
        ]

    async def read(self, request: Request) -> Answer | ByteStream:
        query = Query(request)
        path = query.text("path")
        offset = query.integer("offset", 0)
        limit = query.optional_integer("limit_bytes")
        if query.flag("versioned", default=False):
            return await self._versioned(path, offset, limit)
        if limit is not None and limit <= MAX_WHOLE_READ_BYTES:
            content = await self._executor.read_file(path, offset=offset, limit_bytes=limit)
            headers = _about(content.path, content.offset, content.size_bytes)
            return Answer(content.content, media_type=b"application/octet-stream", headers=headers)
        stat = await self._executor.stat(path)
        pieces = self._executor.stream_file(path, offset=offset, limit_bytes=limit)
        return ByteStream(pieces, self._holds, headers=_about(stat.path, offset, stat.size_bytes))

    async def _versioned(self, path: str, offset: int, limit: int | None) -> ByteStream:
        """``Shadow-Version`` is what was opened: there only where the file was the same before and after."""
        before = await self._executor.stat(path)
        pieces = self._executor.stream_file(path, offset=offset, limit_bytes=limit)
        first = await anext(pieces, b"")
        headers = _about(before.path, offset, before.size_bytes)
        with suppress(ShadowError):  # whoever cannot be told which version it is just cannot resume
            if before.version and (await self._executor.stat(path)).version == before.version:
                headers[b"shadow-version"] = before.version.encode()
        return ByteStream(_all(first, pieces), self._holds, headers=headers)

    async def write(self, request: Request) -> Answer:
        query = Query(request)
        mode = query.optional("mode")
        length = content_length(request)
        content: bytes | AsyncIterator[bytes]
        if length is not None and length <= MAX_WHOLE_WRITE_BYTES:
            content = await read_body(request, limit_bytes=MAX_WHOLE_WRITE_BYTES)
        else:
            content = stream_body(request)
        stat = await self._executor.write_file(
            query.text("path"),
            content,
            mode=integer(mode, what="The query parameter 'mode'", base=8) if mode is not None else None,
            create_parents=query.flag("create_parents", default=True),
            exclusive=query.flag("exclusive", default=False),
            operation=self._operations.of(request),
        )
        return message_answer(FileStatMessage.of(stat))

    async def delete(self, request: Request) -> Answer:
        query = Query(request)
        recursive = query.flag("recursive", default=False)
        await self._executor.delete(query.text("path"), recursive=recursive, operation=self._operations.of(request))
        return Answer(b"{}")

    async def stat(self, request: Request) -> Answer:
        query = Query(request)
        stat = await self._executor.stat(query.text("path"), follow=query.flag("follow", default=True))
        return message_answer(FileStatMessage.of(stat))

    async def lines(self, request: Request) -> Answer:
        query = Query(request)
        lines = await self._executor.read_lines(
            query.text("path"),
            first=query.integer("first", 1, minimum=-(2**63)),
            last=query.optional_integer("last", minimum=-(2**63)),
            limit_bytes=query.integer("limit_bytes", DEFAULT_READ_LIMIT_BYTES, maximum=DEFAULT_READ_LIMIT_BYTES),
        )
        return message_answer(FileLinesMessage.of(lines))

    async def list(self, request: Request) -> Answer:
        query = Query(request)
        listing = await self._executor.list_directory(
            query.text("path", "."),
            recursive=query.flag("recursive", default=False),
            after=query.optional("after"),
            limit=min(query.integer("limit", DEFAULT_LISTING_LIMIT), MAX_LISTING_ENTRIES),
        )
        return message_answer(ListingMessage.of(listing))

    async def replace(self, request: Request) -> Answer:
        asked = await read_message(request, ReplaceMessage)
        replacement = await self._executor.search_replace(
            asked.path, old=asked.old, new=asked.new, operation=self._operations.of(request)
        )
        return message_answer(ReplacementMessage.of(replacement))

    async def move(self, request: Request) -> Answer:
        asked = await read_message(request, MoveMessage)
        stat = await self._executor.move(
            asked.source, asked.target, overwrite=asked.overwrite, operation=self._operations.of(request)
        )
        return message_answer(FileStatMessage.of(stat))

    async def make_directory(self, request: Request) -> Answer:
        asked = await read_message(request, MakeDirectoryMessage)
        stat = await self._executor.make_directory(
            asked.path, create_parents=asked.create_parents, operation=self._operations.of(request)
        )
        return message_answer(FileStatMessage.of(stat))


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    async with closing(rest) as pieces:
        if first:
            yield first
        async for piece in pieces:
            yield piece


def _about(path: str, offset: int, size_bytes: int) -> dict[bytes, bytes]:
    """``Shadow-Size-Bytes`` is the file's size when it was opened, or just before: a stream's own end is what counts."""
    return {
        b"shadow-path": quote(path, errors="surrogateescape").encode(),
        b"shadow-offset": b"%d" % offset,
        b"shadow-size-bytes": b"%d" % size_bytes,
    }
