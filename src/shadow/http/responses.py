"""Answers: messages, errors, and bytes in slices so that a large one never waits in a buffer as a whole."""

from collections.abc import AsyncIterator, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from shadow.core.errors import ShadowError, Unauthenticated
from shadow.execution.streams import closing
from shadow.http.admission import Busy
from shadow.http.holds import Holds, Stopping
from shadow.wire.errors import PROBLEM, encode_error, status_of
from shadow.wire.message import Message

SLICE_BYTES = 256 * 1024
PARTIAL_CONTENT = 206
NOT_MODIFIED = 304
REQUEST_TIMEOUT = 408
PRECONDITION_FAILED = 412
TOO_MANY_REQUESTS = 429


class Answer:
    """A whole answer: JSON unless told otherwise."""

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        media_type: bytes = b"application/json",
        headers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self._body = body
        self.status = status
        self._headers = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(body)),
            *(headers or {}).items(),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self._headers})
        if len(self._body) <= SLICE_BYTES:
            await send({"type": "http.response.body", "body": self._body})
            return
        view = memoryview(self._body)
        for start in range(0, len(view), SLICE_BYTES):
            more = start + SLICE_BYTES < len(view)
            await send({"type": "http.response.body", "body": view[start : start + SLICE_BYTES], "more_body": more})


class NotModified:
    """The caller has what there is."""

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        self._headers = list(headers.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": NOT_MODIFIED, "headers": self._headers})
        await send({"type": "http.response.body", "body": b""})


class ByteStream:
    """Bytes of unknown length, unless ``headers`` say it. The first piece is awaited before anything is sent: until then an
    error has its status."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        holds: Holds,
        *,
        status: int = 200,
        media_type: bytes = b"application/octet-stream",
        headers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self._status = status
        self._pieces = pieces
        self._headers = [(b"content-type", media_type), *(headers or {}).items()]
        self._holds = holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holds.admission.stream():
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        async with closing(self._pieces) as pieces:
            piece = await anext(pieces, None)
            await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
            try:
                async with self._holds.hold(receive):
                    while piece is not None:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                        piece = await anext(pieces, None)
            except (ClientDisconnect, Stopping):
                return  # without the end of the body: the other side must not take this for the whole
        await send({"type": "http.response.body", "body": b""})


def message_answer(message: Message, *, headers: Mapping[bytes, bytes] | None = None) -> Answer:
    return Answer(message.json_bytes(), headers=headers)


def error_answer(
    error: ShadowError,
    *,
    status: int | None = None,
    headers: Mapping[bytes, bytes] | None = None,
    request_id: str | None = None,
) -> Answer:
    """``status``: where the error's own says less."""
    if isinstance(error, Unauthenticated):
        headers = {b"www-authenticate": b"Bearer", **(headers or {})}
    status = status or status_of(error)
    return Answer(
        encode_error(error, status=status, request_id=request_id), status=status, media_type=PROBLEM, headers=headers
    )


def busy_answer(busy: Busy, *, request_id: str | None = None) -> Answer:
    wait = {b"retry-after": b"%d" % busy.retry_after_s}
    return error_answer(busy.error, status=TOO_MANY_REQUESTS, headers=wait, request_id=request_id)
