"""Routes of searches: parse, one call, answer."""

from starlette.requests import Request

from shadow.core.search import GrepQuery
from shadow.http.holds import Holds
from shadow.http.requests import read_message, read_query
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.sidecar.operations import ExecutorOf
from shadow.wire.message import to_core
from shadow.wire.search import FileSearchResultMessage, GrepQueryMessage, GrepResultMessage, SearchFilesQuery

MAX_FILE_MATCHES = 10_000


class SearchRoutes:
    def __init__(self, executor: ExecutorOf, holds: Holds) -> None:
        self._executor = executor
        self._holds = holds

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "POST",
                "/v1/search/grep",
                self.grep,
                summary="Lines that match a pattern; none is no error.",
                body=GrepQueryMessage,
                answer=GrepResultMessage,
            ),
            ApiRoute(
                "GET",
                "/v1/search/files",
                self.files,
                summary="Paths that hold the characters of a query in order, best first.",
                query=SearchFilesQuery,
                answer=FileSearchResultMessage,
            ),
        ]

    async def grep(self, request: Request) -> Answer:
        asked = to_core(await read_message(request, GrepQueryMessage), GrepQuery)
        async with self._holds.waiting(request.receive, mutates=False):
            return message_answer(GrepResultMessage.of(await self._executor(request).grep(asked)))

    async def files(self, request: Request) -> Answer:
        query = read_query(request, SearchFilesQuery)
        limit = min(query.limit, MAX_FILE_MATCHES)
        async with self._holds.waiting(request.receive, mutates=False):
            found = await self._executor(request).search_files(query.query, path=query.path, limit=limit)
        return message_answer(FileSearchResultMessage.of(found))
