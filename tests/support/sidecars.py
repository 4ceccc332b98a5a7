"""A sidecar in this process over any executor, and clients of it."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from shadow.core.workspaces import Capabilities, Isolation
from shadow.execution.interface import ToolExecutor
from shadow.execution.sidecar_client.client import SidecarClient
from shadow.execution.sidecar_client.endpoint import Endpoint, TcpEndpoint, UnixEndpoint
from shadow.execution.sidecar_client.retries import Resilience
from shadow.http.admission import HttpLimits
from shadow.http.server import HttpServer
from shadow.sidecar.app import SidecarApp

TOKEN = "a-token-for-tests-only"
CAPABILITIES = Capabilities(
    isolation=Isolation.NONE, survives_sidecar=True, network=True, git=True, terminals=True, trees=True, watching=True
)


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(128)
    return listener


def listen_tcp() -> tuple[socket.socket, TcpEndpoint]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, TcpEndpoint("127.0.0.1", listener.getsockname()[1])


@asynccontextmanager
async def serving(
    executor: ToolExecutor, listener: socket.socket, *, limits: HttpLimits | None = None
) -> AsyncGenerator[HttpServer]:
    """Serves on a duplicate of ``listener``, which stays open: what connects meanwhile queues, as with a holder."""
    server = HttpServer(SidecarApp(executor, token=TOKEN, limits=limits))
    task = asyncio.create_task(server.serve(sockets=[listener.dup()]))
    try:
        yield server
    finally:
        server.stop()
        await task


class Waits:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def clock(self) -> float:
        return self.now


def client(
    endpoint: Endpoint,
    *,
    waits: Waits | None = None,
    token: str = TOKEN,
    epoch: int = 1,
    resilience: Resilience | None = None,
) -> SidecarClient:
    if waits is None:
        return SidecarClient(endpoint, token=token, capabilities=CAPABILITIES, epoch=epoch, resilience=resilience)
    return SidecarClient(
        endpoint,
        token=token,
        capabilities=CAPABILITIES,
        epoch=epoch,
        sleep=waits.sleep,
        clock=waits.clock,
        resilience=resilience,
    )


@asynccontextmanager
async def forged(
    path: Path, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]
) -> AsyncGenerator[UnixEndpoint]:
    """A server that speaks bytes of the test's choice: ``answer`` is a coroutine function called for each connection."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)  # type: ignore[misc]
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client had enough
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield UnixEndpoint(path)
    finally:
        server.close()
        for writer in writers:
            if writer.transport.get_write_buffer_size() or not writer.transport.is_closing():
                writer.transport.abort()
