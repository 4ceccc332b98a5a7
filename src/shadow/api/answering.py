"""The beginning of a request's answer: what is done before it is out, and what every one of them tells.

To browsers it says: this is data, for our own pages alone, and not to be kept. Much of it was written by code in a workspace: a
browser that is led to it must neither render nor run it under our origin.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Message, Send

HEADERS: Mapping[bytes, bytes] = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; sandbox",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
"""What an answer says of these itself is left as it is."""
REQUEST_ID_HEADER = b"x-request-id"
SWITCHED = 101
REFUSED = 403
"""What a WebSocket's client gets that is closed before it was accepted."""
_STATUSES = {
    "http.response.start": None,
    "websocket.http.response.start": None,
    "websocket.accept": SWITCHED,
    "websocket.close": REFUSED,
}
"""Messages that an answer begins with, and their status where they do not say one."""


class Beginning:
    """``send`` in the place of the connection's. ``before`` is told the status before anybody else is."""

    def __init__(self, send: Send, *, request_id: str, before: Callable[[int], Awaitable[None]]) -> None:
        self.status: int | None = None
        """``None``: there is no answer yet."""
        self._send = send
        self._request_id = (REQUEST_ID_HEADER, request_id.encode())
        self._before = before

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self.status is None and kind in _STATUSES:
            status: int = message.get("status", _STATUSES[kind])
            await self._before(status)
            self.status = status
            if kind != "websocket.close":
                message = {**message, "headers": [*self._headers(message), self._request_id]}
        await self._send(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        given = list(message.get("headers", ()))
        if message["type"] == "websocket.accept":
            return given
        own = {name.lower() for name, _ in given}
        return [*given, *(pair for pair in HEADERS.items() if pair[0] not in own)]
