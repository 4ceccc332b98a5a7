"""Routes of files: parse, one call, answer. Contents travel as raw bodies."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from urllib.parse import quote

from starlette.requests import Request

from shadow.core.errors import AlreadyExists, Rejected, ShadowError
from shadow.core.files import ANY_VERSION, check_version
from shadow.execution.path_text import show_path
from shadow.execution.streams import closing
from shadow.http.holds import Holds
from shadow.http.requests import content_length, read_body, read_message, read_query, stream_body
from shadow.http.responses import (
    PRECONDITION_FAILED,
    Answer,
    ByteStream,
    NotModified,
    error_answer,
    message_answer,
)
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
from shadow.wire.versions import etag, expected_of, matches

MAX_WHOLE_READ_BYTES = 512 * 1024
"""A read of at most so many bytes is answered at once; a longer one is streamed."""
MAX_WHOLE_WRITE_BYTES = 512 * 1024
MAX_LISTING_ENTRIES = 100_000

ETAG = {"ETag": "The file's version, where it can be told."}
IF_MATCH = {
    "If-Match": "`*`, or the `ETag` that was seen: with another version there, nothing is done (412, `changed`)."
}
UNLESS = {
    "If-None-Match": "`ETag`s that the caller has: with one of them there, the answer is 304 without a body.",
    **IF_MATCH,
}


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
                        **ETAG,
                    },
                ),
                headers=UNLESS,
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
                headers={**IF_MATCH, "If-None-Match": "`*`: nothing may be there (412, `already_exists`)."},
            ),
            ApiRoute(
                "DELETE",
                "/v1/files",
                self.delete,
                summary="Remove a file, a symlink or an empty directory; with `recursive` a whole tree.",
                query=DeleteQuery,
                operation=True,
                headers=IF_MATCH,
            ),
            ApiRoute(
                "GET",
                "/v1/files/stat",
                self.stat,
                summary="What a path names.",
                query=StatQuery,
                answer=FileStatMessage,
                headers=UNLESS,
            ),
            ApiRoute(
                "GET",
                "/v1/files/lines",
                self.lines,
                summary="Lines of a file, by number.",
                query=LinesQuery,
                answer=FileLinesMessage,
                headers=UNLESS,
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
                headers=IF_MATCH,
            ),
            ApiRoute(
                "POST",
                "/v1/files/move",
                self.move,
                summary="Rename.",
                body=MoveMessage,
                answer=FileStatMessage,
                operation=True,
                headers={"If-Match": f"Of the source: {IF_MATCH['If-Match']}"},
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

    async def read(self, request: Request) -> Answer | ByteStream | NotModified:
        query = read_query(request, ReadQuery)
        path, offset, limit = query.path, query.offset, query.limit_bytes
        executor = self._executor(request)
        if limit is not None and limit <= MAX_WHOLE_READ_BYTES:
            content = await executor.read_file(path, offset=offset, limit_bytes=limit)
            headers = _about(content.path, content.offset, content.size_bytes, content.version)
            return _unless(request, path, content.version) or Answer(
                content.content, media_type=b"application/octet-stream", headers=headers
            )
        before = await executor.stat(path)
        if has_it := _unless(request, path, before.version):
            return has_it
        async with AsyncExitStack() as stack:
            pieces = await stack.enter_async_context(
                closing(executor.stream_file(path, offset=offset, limit_bytes=limit))
            )
            first = await anext(pieces, b"")
            version = ""
            with suppress(ShadowError):  # whoever cannot be told which version it is just cannot resume
                version = (await executor.stat(path)).version
            if version != before.version:  # what was opened may be either
                version = ""
            check_version(version, _expected(request), show_path(path))
            headers = _about(before.path, offset, before.size_bytes, version)
            return ByteStream(_all(first, pieces, stack.pop_all()), self._holds, headers=headers)

    async def write(self, request: Request) -> Answer:
        query = read_query(request, WriteQuery)
        expected, absent = _expected(request), _must_be_absent(request)
        length = content_length(request)
        content: bytes | AsyncIterator[bytes]
        if length is not None and length <= MAX_WHOLE_WRITE_BYTES:
            content = await read_body(request, limit_bytes=MAX_WHOLE_WRITE_BYTES)
        else:
            content = stream_body(request)
        try:
            stat = await self._executor(request).write_file(
                query.path,
                content,
                mode=int(query.mode, 8) if query.mode is not None else None,
                create_parents=query.create_parents,
                exclusive=query.exclusive or absent,
                expected=expected,
                operation=self._operation(request),
            )
        except AlreadyExists as error:
            if not absent:
                raise
            return error_answer(error, status=PRECONDITION_FAILED)
        return message_answer(FileStatMessage.of(stat), headers=_tagged(stat.version))

    async def delete(self, request: Request) -> Answer:
        query = read_query(request, DeleteQuery)
        await self._executor(request).delete(
            query.path,
            recursive=query.recursive,
            expected=_expected(request),
            operation=self._operation(request),
        )
        return Answer(b"{}")

    async def stat(self, request: Request) -> Answer | NotModified:
        query = read_query(request, StatQuery)
        stat = await self._executor(request).stat(query.path, follow=query.follow)
        return _unless(request, query.path, stat.version) or message_answer(
            FileStatMessage.of(stat), headers=_tagged(stat.version)
        )

    async def lines(self, request: Request) -> Answer | NotModified:
        query = read_query(request, LinesQuery)
        lines = await self._executor(request).read_lines(
            query.path, first=query.first, last=query.last, limit_bytes=query.limit_bytes
        )
        return _unless(request, query.path, lines.version) or message_answer(
            FileLinesMessage.of(lines), headers=_tagged(lines.version)
        )

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
            asked.path,
            old=asked.old,
            new=asked.new,
            expected=_expected(request),
            operation=self._operation(request),
        )
        return message_answer(ReplacementMessage.of(replacement), headers=_tagged(replacement.version))

    async def move(self, request: Request) -> Answer:
        asked = await read_message(request, MoveMessage)
        stat = await self._executor(request).move(
            asked.source,
            asked.target,
            overwrite=asked.overwrite,
            expected=_expected(request),
            operation=self._operation(request),
        )
        return message_answer(FileStatMessage.of(stat))

    async def make_directory(self, request: Request) -> Answer:
        asked = await read_message(request, MakeDirectoryMessage)
        stat = await self._executor(request).make_directory(
            asked.path, create_parents=asked.create_parents, operation=self._operation(request)
        )
        return message_answer(FileStatMessage.of(stat))


async def _all(first: bytes, rest: AsyncIterator[bytes], opened: AsyncExitStack) -> AsyncGenerator[bytes]:
    async with opened:
        if first:
            yield first
        async for piece in rest:
            yield piece


def _expected(request: Request) -> str | None:
    """Raises: Rejected."""
    given = request.headers.getlist("if-match")
    return expected_of(", ".join(given) if given else None)


def _must_be_absent(request: Request) -> bool:
    """Raises: Rejected."""
    given = request.headers.getlist("if-none-match")
    if given and [one.strip() for one in given] != [ANY_VERSION]:
        raise Rejected("Of what is written, If-None-Match can only be `*`.", mend="Use If-Match for a certain version.")
    return bool(given)


def _unless(request: Request, path: str, version: str) -> NotModified | None:
    """The answer for a caller who has this version already. Raises: Changed: it is not the one that they go on with."""
    check_version(version, _expected(request), show_path(path))
    given = request.headers.getlist("if-none-match")
    return NotModified(_tagged(version)) if matches(", ".join(given) or None, version) else None


def _tagged(version: str) -> Mapping[bytes, bytes]:
    return {b"etag": etag(version)} if version else {}


def _about(path: str, offset: int, size_bytes: int, version: str) -> dict[bytes, bytes]:
    """``Shadow-Size-Bytes`` is the file's size when it was opened, or just before: a stream's own end is what counts."""
    return {
        b"shadow-path": quote(path, errors="surrogateescape").encode(),
        b"shadow-offset": b"%d" % offset,
        b"shadow-size-bytes": b"%d" % size_bytes,
        **_tagged(version),
    }
