"""WebSocket connections: uvicorn's, with a bound on what a client makes us keep without asking the application."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

MAX_UNSENT_BYTES = 4 * 1024 * 1024
"""Far more than the application ever has on its way: it waits when a client does not read."""
MAX_FRAGMENTS = 1024
"""Of one message: empty ones count for nothing in its size."""


class WebSocketConnection(WebSocketsSansIOProtocol):
    def handle_ping(self) -> None:
        """Cut off who pings and does not read the answers: nobody waits for room before those are sent."""
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.transport.abort()
            return
        super().handle_ping()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MAX_FRAGMENTS:
            self.transport.abort()
            return
        super().handle_cont(event)

    def shutdown(self) -> None:
        """The application, which is told of it too, says goodbye by itself; what it does not end is cut off in the end."""
        if self.handshake_complete and not self.close_sent:
            self.stop_keepalive()
            return
        super().shutdown()
