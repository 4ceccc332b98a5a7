"""Serves an application on an inherited listening socket, until it is told to stop."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from typing import Any

from uvicorn import Config, Server

from shadow.sidecar.app import SidecarApp

GRACE_S = 3
"""How long answers that were begun may take once the sidecar is told to stop. What waits is ended at once."""
KEEP_ALIVE_S = 75
MAX_CONNECTIONS = 1024
MAX_MESSAGE_BYTES = 128 * 1024
"""Of a WebSocket, from a client."""
PING_S = 15.0
"""Between two pings on a WebSocket, and how long the answer may take."""


def websocket_protocol(**given: Any) -> asyncio.Protocol:
    """Loaded with the first terminal: most workspaces never see one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**given)


class SidecarServer(Server):
    """uvicorn, except that signals are ours and that whatever waits is told to stop first."""

    def __init__(self, app: SidecarApp) -> None:
        super().__init__(
            Config(
                app,
                http="httptools",
                ws=websocket_protocol,  # pyright: ignore[reportArgumentType] - uvicorn wants a class and only calls it
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_ping_interval=PING_S,
                ws_ping_timeout=PING_S,
                ws_per_message_deflate=False,
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._app = app

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.stop()
        await super().shutdown(sockets)


async def serve(app: SidecarApp, listener: socket.socket, *, until: Awaitable[None]) -> None:
    """Serves until SIGTERM, SIGINT or the end of ``until``; returns once the last answer is out, or the grace is over."""
    server = SidecarServer(app)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)

    async def stop_at_end() -> None:
        await until
        server.stop()

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(stop_at_end())
        await server.serve(sockets=[listener])
        waiting.cancel()
