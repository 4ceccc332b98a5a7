"""HTTP connections: uvicorn's, with bounds on headers, on their time and on how many there are, and typed refusals."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from shadow.core.errors import LimitExceeded, Rejected, ShadowError, Unavailable
from shadow.http.admission import HttpLimits
from shadow.wire.errors import PROBLEM, encode_error

BAD_REQUEST = 400
REQUEST_TIMEOUT = 408
HEADERS_TOO_LARGE = 431
UNAVAILABLE = 503


class Connection(HttpToolsProtocol):
    def __init__(self, *, limits: HttpLimits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        """Runs while the headers of a request are awaited."""
        self._in_head = False
        self._head_bytes = 0
        """Of a request whose headers are not whole, without the piece that it began in."""
        self._too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(UNAVAILABLE, Unavailable(f"More than {self._limits.connections} connections are open."))
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if was_in_head and self._in_head:
            # Headers that are not whole lie in the parser, which has no bound of its own.
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.header_bytes:
                self._refuse_headers()
                return
        # What comes between requests (blank lines, the rest of a refused body) may not keep a connection for ever either.
        if self._head_timer is None and (self._in_head or self._rests):
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._head_done()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.header_bytes or len(self.headers) > self._limits.headers:
            self._too_large = True
            raise ValueError("headers too large")  # ends the parsing
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._too_large:
            self._refuse_headers()
        else:
            self._refuse(BAD_REQUEST, Rejected("This is no HTTP request."))

    @property
    def _rests(self) -> bool:
        """Whether no answer is under way."""
        return self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.head_time_s, self._head_too_slow)

    def _head_done(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        self._refuse(REQUEST_TIMEOUT, Unavailable("The request's headers came too slowly."))

    def _refuse_headers(self) -> None:
        limits = self._limits
        told = f"More than {limits.headers} headers, or more than {limits.header_bytes} bytes of them."
        self._refuse(HEADERS_TOO_LARGE, LimitExceeded(told))

    def _refuse(self, status: int, error: ShadowError) -> None:
        """Where no answer is under way; the connection is closed in any case."""
        if self.transport.is_closing():
            return
        if self._rests:
            body = encode_error(error, status=status)
            about = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (PROBLEM, len(body))
            self.transport.write(b"".join((STATUS_LINE[status], about, body)))
        self.transport.close()
