"""Routes of searches: parse, one call, answer."""

from starlette.requests import Request
from starlette.routing import Route

from shadow.core.search import GrepQuery
from shadow.execution.interface import ToolExecutor
from shadow.sidecar.holds import Holds
from shadow.sidecar.requests import Query, read_message
from shadow.sidecar.responses import Answer, message_answer
from shadow.wire.message import to_core
from shadow.wire.search import FileSearchResultMessage, GrepQueryMessage, GrepResultMessage

MAX_FILE_MATCHES = 10_000


class SearchRoutes:
    def __init__(self, executor: ToolExecutor, holds: Holds) -> None:
        self._executor = executor
        self._holds = holds

    def routes(self) -> list[Route]:
        return [
            Route("/v1/search/grep", self.grep, methods=["POST"]),
            Route("/v1/search/files", self.files, methods=["GET"]),
        ]

    async def grep(self, request: Request) -> Answer:
        asked = to_core(await read_message(request, GrepQueryMessage), GrepQuery)
        async with self._holds.waiting(request.receive, mutates=False):
            return message_answer(GrepResultMessage.of(await self._executor.grep(asked)))

    async def files(self, request: Request) -> Answer:
        query = Query(request)
        limit = min(query.integer("limit", 50), MAX_FILE_MATCHES)
        async with self._holds.waiting(request.receive, mutates=False):
            found = await self._executor.search_files(query.text("query"), path=query.text("path", "."), limit=limit)
        return message_answer(FileSearchResultMessage.of(found))
