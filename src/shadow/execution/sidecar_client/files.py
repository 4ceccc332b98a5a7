"""Files and searches through a sidecar: one call each. Paths that come back are checked: others may build on them."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from urllib.parse import unquote

from shadow.core.errors import Broken, Rejected
from shadow.core.files import (
    DEFAULT_LISTING_LIMIT,
    DEFAULT_READ_LIMIT_BYTES,
    FileContent,
    FileLines,
    FileStat,
    Listing,
    Replacement,
)
from shadow.core.ids import Operation
from shadow.core.search import FileSearchResult, GrepQuery, GrepResult
from shadow.execution.sidecar_client.bodies import BytesBody, StreamBody
from shadow.execution.sidecar_client.contents import stream_file
from shadow.execution.sidecar_client.sender import Sender
from shadow.execution.sidecar_client.transport import (
    ANSWER_S,
    MAX_ANSWER_BYTES,
    Reply,
    check_text,
)
from shadow.wire.files import (
    FileLinesMessage,
    FileStatMessage,
    ListingMessage,
    MakeDirectoryMessage,
    MoveMessage,
    ReplacementMessage,
    ReplaceMessage,
)
from shadow.wire.message import outgoing, parse_answer, to_core
from shadow.wire.search import FileSearchResultMessage, GrepQueryMessage, GrepResultMessage
from shadow.wire.versions import version_of

SLOWEST_BYTES_PER_S = 1024 * 1024
MAX_TIMED_BYTES = 4096 * SLOWEST_BYTES_PER_S
BYTES_PER_JSON_BYTE = 6
"""A control character's ``\\u0000``."""


class FilesClient(Sender):
    """The file and search methods of ``ToolExecutor``."""

    async def stat(self, path: str, *, follow: bool = True) -> FileStat:
        reply = await self.send("GET", "/v1/files/stat", query={"path": path, "follow": follow})
        return _stat(reply)

    async def read_file(
        self, path: str, *, offset: int = 0, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileContent:
        reply = await self.send(
            "GET",
            "/v1/files",
            query={"path": path, "offset": offset, "limit_bytes": limit_bytes},
            answer_s=ANSWER_S + min(limit_bytes, MAX_TIMED_BYTES) / SLOWEST_BYTES_PER_S,
            limit_bytes=max(limit_bytes, 0),
        )
        size = _size(reply, "Shadow-Size-Bytes")
        end = offset + len(reply.body)
        if reply.body:  # what was read outdoes what was measured: the file may have been replaced between
            size = end if len(reply.body) < limit_bytes else max(size, end)
        at = _size(reply, "Shadow-Offset")
        if at != offset:
            raise Broken(f"The sidecar sent the file from offset {at} instead of {offset}.")
        shown = unquote(reply.headers.get("Shadow-Path", ""), errors="surrogateescape")
        version = version_of(reply.headers.get("ETag"))
        return FileContent(path=shown, content=reply.body, offset=at, size_bytes=size, version=version)

    async def read_lines(
        self, path: str, *, first: int = 1, last: int | None = None, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileLines:
        if limit_bytes > DEFAULT_READ_LIMIT_BYTES:
            raise Rejected(f"At most {DEFAULT_READ_LIMIT_BYTES} bytes of lines are read at once, not {limit_bytes}.")
        query = {"path": path, "first": first, "last": last, "limit_bytes": limit_bytes}
        bound = MAX_ANSWER_BYTES + BYTES_PER_JSON_BYTE * limit_bytes
        reply = await self.send("GET", "/v1/files/lines", query=query, limit_bytes=bound)
        lines = to_core(parse_answer(FileLinesMessage, reply.body), FileLines)
        if len(lines.content) > limit_bytes:
            raise Broken("The sidecar sent more of the file than was asked for.")
        return lines

    def stream_file(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> AsyncGenerator[bytes]:
        return stream_file(self.transport, path, offset=offset, limit_bytes=limit_bytes, sleep=self.sleep)

    async def write_file(
        self,
        path: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        create_parents: bool = True,
        exclusive: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> FileStat:
        whole = isinstance(content, bytes | bytearray | memoryview)
        reply = await self.send(
            "PUT",
            "/v1/files",
            query={
                "path": path,
                "mode": None if mode is None else f"{mode:o}",
                "create_parents": create_parents,
                "exclusive": exclusive,
            },
            body=BytesBody(bytes(content)) if whole else StreamBody(content),
            operation=self.operation(operation),
            expected=expected,
        )
        return _stat(reply)

    async def search_replace(
        self, path: str, *, old: str, new: str, expected: str | None = None, operation: Operation | None = None
    ) -> Replacement:
        check_text(path)
        reply = await self.send(
            "POST",
            "/v1/files/replace",
            message=outgoing(ReplaceMessage, {"path": path, "old": old, "new": new}),
            operation=self.operation(operation),
            expected=expected,
        )
        return to_core(parse_answer(ReplacementMessage, reply.body), Replacement)

    async def make_directory(
        self, path: str, *, create_parents: bool = True, operation: Operation | None = None
    ) -> FileStat:
        check_text(path)
        reply = await self.send(
            "POST",
            "/v1/files/directory",
            message=outgoing(MakeDirectoryMessage, {"path": path, "create_parents": create_parents}),
            operation=self.operation(operation),
        )
        return _stat(reply)

    async def move(
        self,
        source: str,
        target: str,
        *,
        overwrite: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> FileStat:
        check_text(source)
        check_text(target)
        reply = await self.send(
            "POST",
            "/v1/files/move",
            message=outgoing(MoveMessage, {"source": source, "target": target, "overwrite": overwrite}),
            operation=self.operation(operation),
            expected=expected,
        )
        return _stat(reply)

    async def delete(
        self,
        path: str,
        *,
        recursive: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> None:
        query = {"path": path, "recursive": recursive}
        await self.send("DELETE", "/v1/files", query=query, operation=self.operation(operation), expected=expected)

    async def list_directory(
        self,
        path: str = ".",
        *,
        recursive: bool = False,
        after: str | None = None,
        limit: int = DEFAULT_LISTING_LIMIT,
    ) -> Listing:
        query = {"path": path, "recursive": recursive, "after": after, "limit": limit}
        reply = await self.send("GET", "/v1/files/list", query=query, limit_bytes=MAX_ANSWER_BYTES)
        listing = to_core(parse_answer(ListingMessage, reply.body), Listing)
        if len(listing.entries) > limit:
            raise Broken("The sidecar listed more entries than were asked for.")
        check_paths(entry.path for entry in listing.entries)
        return listing

    async def grep(self, query: GrepQuery) -> GrepResult:
        check_text(query.path)
        reply = await self.send(
            "POST",
            "/v1/search/grep",
            message=outgoing(GrepQueryMessage, query),
            answer_s=ANSWER_S + max(0.0, query.timeout_s),
            limit_bytes=MAX_ANSWER_BYTES + BYTES_PER_JSON_BYTE * max(0, query.max_bytes),
        )
        result = to_core(parse_answer(GrepResultMessage, reply.body), GrepResult)
        if sum(line.is_match for line in result.lines) > query.max_matches:
            raise Broken("The sidecar found more matches than were asked for.")
        check_paths(line.path for line in result.lines)
        return result

    async def search_files(self, query: str, *, path: str = ".", limit: int = 50) -> FileSearchResult:
        asked = {"query": query, "path": path, "limit": limit}
        reply = await self.send("GET", "/v1/search/files", query=asked, limit_bytes=MAX_ANSWER_BYTES)
        result = to_core(parse_answer(FileSearchResultMessage, reply.body), FileSearchResult)
        if len(result.matches) > limit:
            raise Broken("The sidecar found more files than were asked for.")
        check_paths(match.path for match in result.matches)
        return result


def _stat(reply: Reply) -> FileStat:
    return to_core(parse_answer(FileStatMessage, reply.body), FileStat)


def _size(reply: Reply, name: str) -> int:
    text = reply.headers.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Broken(f"The sidecar's answer lacks {name}.")
    return int(text)


def check_paths(paths: Iterable[str]) -> None:
    for path in paths:
        if path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise Broken("The sidecar named a path that leads out of the workspace.")
