"""Routes of files: parse, one call, answer. Contents travel as raw bodies."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from urllib.parse import quote

from starlette.requests import Request

from shadow.core.errors import ShadowError
from shadow.execution.interface import ToolExecutor
from shadow.execution.streams import closing
from shadow.http.holds import Holds
from shadow.http.requests import content_length, read_body, read_message, read_query, stream_body
from shadow.http.responses import Answer, ByteStream, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes, Raw
from shadow.sidecar.operations import ExecutorOf, OperationOf
from shadow.wire.files import (
    DeleteQuery,
    FileLinesMessage,
    FileStatMessage,
    LinesQuery,
    ListingMessage,
    ListQuery,
    MakeDirectoryMessage,
    MoveMessage,
    ReadQuery,
    ReplacementMessage,
    ReplaceMessage,
    StatQuery,
    WriteQuery,
)

MAX_WHOLE_READ_BYTES = 512 * 1024
"""A read of at most so many bytes is answered at once; a longer one is streamed."""
MAX_WHOLE_WRITE_BYTES = 512 * 1024
MAX_LISTING_ENTRIES = 100_000


class FileRoutes:
    def __init__(self, executor: ExecutorOf, operation: OperationOf, holds: Holds) -> None:
        self._executor = executor
        self._operation = operation
        self._holds = holds

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/files",
                self.read,
                summary="The bytes of a file, of one version of it.",
                query=ReadQuery,
                answer=Raw(
                    about="The bytes.",
                    headers={
                        "Shadow-Path": "The file's path in the workspace, percent-encoded.",
                        "Shadow-Offset": "Where the bytes begin.",
                        "Shadow-Size-Bytes": "The file's size when it was opened, or just before.",
                        "Shadow-Version": "Of the file, where it was asked for and is known.",
                    },
                ),
            ),
            ApiRoute(
                "PUT",
                "/v1/files",
                self.write,
                summary="Replace a file's content as a whole, or not at all.",
                query=WriteQuery,
                body=Raw(about="The whole content."),
                answer=FileStatMessage,
                operation=True,
            ),
            ApiRoute(
                "DELETE",
                "/v1/files",
                self.delete,
                summary="Remove a file, a symlink or an empty directory; with `recursive` a whole tree.",
                query=DeleteQuery,
                operation=True,
            ),
            ApiRoute(
                "GET",
                "/v1/files/stat",
                self.stat,
                summary="What a path names.",
                query=StatQuery,
                answer=FileStatMessage,
            ),
            ApiRoute(
                "GET",
                "/v1/files/lines",
                self.lines,
                summary="Lines of a file, by number.",
                query=LinesQuery,
                answer=FileLinesMessage,
            ),
            ApiRoute(
                "GET",
                "/v1/files/list",
                self.list,
                summary="What is in a directory, in pages.",
                query=ListQuery,
                answer=ListingMessage,
            ),
            ApiRoute(
                "POST",
                "/v1/files/replace",
                self.replace,
                summary="Replace the one occurrence of a text, literally.",
                body=ReplaceMessage,
                answer=ReplacementMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                "/v1/files/move",
                self.move,
                summary="Rename.",
                body=MoveMessage,
                answer=FileStatMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                "/v1/files/directory",
                self.make_directory,
                summary="Make a directory; one that is there already is fine.",
                body=MakeDirectoryMessage,
                answer=FileStatMessage,
                operation=True,
            ),
        ]

    async def read(self, request: Request) -> Answer | ByteStream:
        query = read_query(request, ReadQuery)
        path, offset, limit = query.path, query.offset, query.limit_bytes
        if query.versioned:
            return await self._versioned(self._executor(request), path, offset, limit)
        if limit is not None and limit <= MAX_WHOLE_READ_BYTES:
            content = await self._executor(request).read_file(path, offset=offset, limit_bytes=limit)
            headers = _about(content.path, content.offset, content.size_bytes)
            return Answer(content.content, media_type=b"application/octet-stream", headers=headers)
        stat = await self._executor(request).stat(path)
        pieces = self._executor(request).stream_file(path, offset=offset, limit_bytes=limit)
        return ByteStream(pieces, self._holds, headers=_about(stat.path, offset, stat.size_bytes))

    async def _versioned(self, executor: ToolExecutor, path: str, offset: int, limit: int | None) -> ByteStream:
        """``Shadow-Version`` is what was opened: there only where the file was the same before and after."""
        before = await executor.stat(path)
        pieces = executor.stream_file(path, offset=offset, limit_bytes=limit)
        first = await anext(pieces, b"")
        headers = _about(before.path, offset, before.size_bytes)
        with suppress(ShadowError):  # whoever cannot be told which version it is just cannot resume
            if before.version and (await executor.stat(path)).version == before.version:
                headers[b"shadow-version"] = before.version.encode()
        return ByteStream(_all(first, pieces), self._holds, headers=headers)

    async def write(self, request: Request) -> Answer:
        query = read_query(request, WriteQuery)
        length = content_length(request)
        content: bytes | AsyncIterator[bytes]
        if length is not None and length <= MAX_WHOLE_WRITE_BYTES:
            content = await read_body(request, limit_bytes=MAX_WHOLE_WRITE_BYTES)
        else:
            content = stream_body(request)
        stat = await self._executor(request).write_file(
            query.path,
            content,
            mode=int(query.mode, 8) if query.mode is not None else None,
            create_parents=query.create_parents,
            exclusive=query.exclusive,
            operation=self._operation(request),
        )
        return message_answer(FileStatMessage.of(stat))

    async def delete(self, request: Request) -> Answer:
        query = read_query(request, DeleteQuery)
        await self._executor(request).delete(query.path, recursive=query.recursive, operation=self._operation(request))
        return Answer(b"{}")

    async def stat(self, request: Request) -> Answer:
        query = read_query(request, StatQuery)
        stat = await self._executor(request).stat(query.path, follow=query.follow)
        return message_answer(FileStatMessage.of(stat))

    async def lines(self, request: Request) -> Answer:
        query = read_query(request, LinesQuery)
        lines = await self._executor(request).read_lines(
            query.path, first=query.first, last=query.last, limit_bytes=query.limit_bytes
        )
        return message_answer(FileLinesMessage.of(lines))

    async def list(self, request: Request) -> Answer:
        query = read_query(request, ListQuery)
        listing = await self._executor(request).list_directory(
            query.path,
            recursive=query.recursive,
            after=query.after,
            limit=min(query.limit, MAX_LISTING_ENTRIES),
        )
        return message_answer(ListingMessage.of(listing))

    async def replace(self, request: Request) -> Answer:
        asked = await read_message(request, ReplaceMessage)
        replacement = await self._executor(request).search_replace(
            asked.path, old=asked.old, new=asked.new, operation=self._operation(request)
        )
        return message_answer(ReplacementMessage.of(replacement))

    async def move(self, request: Request) -> Answer:
        asked = await read_message(request, MoveMessage)
        stat = await self._executor(request).move(
            asked.source, asked.target, overwrite=asked.overwrite, operation=self._operation(request)
        )
        return message_answer(FileStatMessage.of(stat))

    async def make_directory(self, request: Request) -> Answer:
        asked = await read_message(request, MakeDirectoryMessage)
        stat = await self._executor(request).make_directory(
            asked.path, create_parents=asked.create_parents, operation=self._operation(request)
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
