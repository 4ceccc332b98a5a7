"""Routes of whole trees: tar streams as raw bodies, as fast as the slower side takes them."""

from starlette.requests import Request

from shadow.http.holds import Holds
from shadow.http.requests import read_query, stream_body
from shadow.http.responses import Answer, ByteStream, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes, Raw
from shadow.sidecar.operations import ExecutorOf, OperationOf
from shadow.wire.files import DirectoryQuery
from shadow.wire.trees import MEDIA_TYPE, TreeReceiptMessage


class TreeRoutes:
    def __init__(self, executor: ExecutorOf, operation: OperationOf, holds: Holds) -> None:
        self._executor = executor
        self._operation = operation
        self._holds = holds

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/tree",
                self.download,
                summary="A directory as a tar stream; links are not followed.",
                query=DirectoryQuery,
                answer=Raw(about="An uncompressed pax archive.", media_types=(MEDIA_TYPE,)),
            ),
            ApiRoute(
                "PUT",
                "/v1/tree",
                self.upload,
                summary="Lay a tar stream down in a directory, which is made where it is not there.",
                query=DirectoryQuery,
                body=Raw(about="An uncompressed archive.", media_types=(MEDIA_TYPE,)),
                answer=TreeReceiptMessage,
                operation=True,
            ),
        ]

    async def download(self, request: Request) -> ByteStream:
        pieces = self._executor(request).download_tree(read_query(request, DirectoryQuery).path)
        return ByteStream(pieces, self._holds, media_type=MEDIA_TYPE.encode())

    async def upload(self, request: Request) -> Answer:
        receipt = await self._executor(request).upload_tree(
            read_query(request, DirectoryQuery).path, stream_body(request), operation=self._operation(request)
        )
        return message_answer(TreeReceiptMessage.of(receipt))
