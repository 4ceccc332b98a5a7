"""WebSocket clients that make the sidecar keep things: it cuts them off before they fill its memory."""

import asyncio
import socket
from pathlib import Path

import pytest

from shadow.core.ids import TerminalId
from shadow.core.terminals import TerminalSpec
from shadow.execution.host.executor import open_host
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
from shadow.wire.terminal_frames import SUBPROTOCOL, TerminalFrame, decode, encode
from tests.support.sidecars import TOKEN, client, listen, serving

pytestmark = pytest.mark.anyio

PING = b"\x89\xfd" + bytes(4) + bytes(125)
BEGIN, EMPTY_FRAGMENT = b"\x02\x80" + bytes(4), b"\x00\x80" + bytes(4)


@pytest.mark.parametrize(
    ("begin", "repeated"),
    [pytest.param(b"", PING, id="pings"), pytest.param(BEGIN, EMPTY_FRAGMENT, id="empty fragments")],
)
async def test_a_flood_that_asks_for_nothing_is_cut_off(tmp_path: Path, begin: bytes, repeated: bytes) -> None:
    (tmp_path / "root").mkdir()
    with listen(tmp_path / "sidecar.sock") as listener:
        async with open_host(tmp_path / "root", tmp_path / "state") as host, serving(host, listener):
            terminal = await host.create_terminal(TerminalSpec(argv=("sleep", "1000")))
            with socket.socket(socket.AF_UNIX) as peer:
                peer.setblocking(False)
                await _attach(peer, str(tmp_path / "sidecar.sock"), terminal.id)
                await asyncio.get_running_loop().sock_sendall(peer, begin)
                with pytest.raises((BrokenPipeError, ConnectionResetError)):
                    await _flood(peer, repeated * 1000)


async def _attach(peer: socket.socket, path: str, terminal_id: TerminalId) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(peer, path)
    head = (
        f"GET /v1/terminals/{terminal_id}/attach HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    await loop.sock_sendall(peer, head.encode())
    assert b" 101 " in await loop.sock_recv(peer, 64)


async def _flood(peer: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(20):
        for _ in range(500):
            await asyncio.get_running_loop().sock_sendall(peer, data)


async def test_input_without_bytes_is_refused(tmp_path: Path) -> None:
    """It would count for nothing while it waits for a program that does not read."""
    path = tmp_path / "sidecar.sock"
    (tmp_path / "root").mkdir()
    with listen(path) as listener:
        async with (
            open_host(tmp_path / "root", tmp_path / "state") as host,
            serving(host, listener),
            client(UnixEndpoint(path)) as executor,
        ):
            terminal = await executor.create_terminal(TerminalSpec(argv=("sleep", "1000")))
            where, query = f"/v1/terminals/{terminal.id}/attach", {"after": 0, "writer": "w"}
            async with (
                asyncio.timeout(10),
                executor.transport.websocket(where, query, protocol=SUBPROTOCOL, limit_bytes=1 << 20) as socket_,
            ):
                await socket_.send(encode(TerminalFrame.INPUT, 0))
                while (frame := decode(await socket_.receive())).kind is not TerminalFrame.ERROR:
                    pass
            assert b"input without bytes" in frame.payload.tobytes()
