"""Routes of whole trees: tar streams as raw bodies, as fast as the slower side takes them."""

from starlette.requests import Request
from starlette.routing import Route

from shadow.execution.interface import ToolExecutor
from shadow.sidecar.holds import Holds
from shadow.sidecar.requests import Operations, Query, stream_body
from shadow.sidecar.responses import Answer, ByteStream, message_answer
from shadow.wire.trees import MEDIA_TYPE, TreeReceiptMessage


class TreeRoutes:
    def __init__(self, executor: ToolExecutor, operations: Operations, holds: Holds) -> None:
        self._executor = executor
        self._operations = operations
        self._holds = holds

    def routes(self) -> list[Route]:
        return [
            Route("/v1/tree", self.download, methods=["GET"]),
            Route("/v1/tree", self.upload, methods=["PUT"]),
        ]

    async def download(self, request: Request) -> ByteStream:
        pieces = self._executor.download_tree(Query(request).text("path", "."))
        return ByteStream(pieces, self._holds, media_type=MEDIA_TYPE.encode())

    async def upload(self, request: Request) -> Answer:
        receipt = await self._executor.upload_tree(
            Query(request).text("path", "."), stream_body(request), operation=self._operations.of(request)
        )
        return message_answer(TreeReceiptMessage.of(receipt))
