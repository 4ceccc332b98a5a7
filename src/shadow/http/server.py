"""Serves an application on an inherited listening socket, until it is told to stop."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from shadow.http.app import HttpApp
from shadow.http.bare_uvicorn import Config, Server
from shadow.http.connections import Connection

MAX_MESSAGE_BYTES = 128 * 1024
"""Of a WebSocket, from a client."""
PING_S = 15.0
"""Between two pings on a WebSocket, and how long the answer may take."""
EXIT_S = 2
"""After the grace, for the process to end: threads that hang in a system call are not waited for."""


def websocket_protocol(**given: Any) -> asyncio.Protocol:
    """Loaded with the first terminal: most workspaces never see one."""
    from shadow.http.websockets import WebSocketConnection

    return WebSocketConnection(**given)


class HttpServer(Server):
    """uvicorn, except that signals are ours, that nothing ticks, and that whatever waits is told to stop first."""

    def __init__(self, app: HttpApp) -> None:
        super().__init__(
            Config(
                app,
                # uvicorn wants classes and only calls them.
                http=partial(Connection, limits=app.limits),  # pyright: ignore[reportArgumentType]
                ws=websocket_protocol,  # pyright: ignore[reportArgumentType]
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
                timeout_keep_alive=app.limits.keep_alive_s,  # pyright: ignore[reportArgumentType] - only ever slept
            )
        )
        self._app = app
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def main_loop(self) -> None:
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers that were begun have the grace; then their connections are cut, so that nobody takes them for whole."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self._app.stop()
        self._app.log.info(f"{self._app.noun}.stopping", extra={"connections": len(self.server_state.connections)})
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if await self._ended(within_s=self._app.limits.grace_s):
            return
        self._app.log.warning(f"{self._app.noun}.cut", extra={"connections": len(self.server_state.connections)})
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        await self._ended(within_s=1)

    async def _ended(self, *, within_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while self.server_state.connections or self.server_state.tasks:
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True


async def serve(app: HttpApp, listener: socket.socket, *, until: Awaitable[None]) -> None:
    """Serves until SIGTERM, SIGINT or the end of ``until``; returns once the last answer is out, or the grace is over.

    The process ends soon after that in any case: the kernel sees to it.
    """
    server = HttpServer(app)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # By default this signal ends the process.
        signal.setitimer(signal.ITIMER_REAL, app.limits.grace_s + EXIT_S)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    async def stop_at_end() -> None:
        await until
        stop()

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(stop_at_end())
        await server.serve(sockets=[listener])
        waiting.cancel()
