"""The server's listening socket."""

import asyncio
import socket
from pathlib import Path

import pytest

from shadow.api.main import listen
from shadow.settings import Address, Settings

pytestmark = pytest.mark.anyio


async def test_no_answer_waits_for_an_acknowledgement(tmp_path: Path) -> None:
    """What asyncio accepts from it has Nagle's algorithm off."""
    settings = Settings(data_dir=tmp_path, server_listen=Address(host="127.0.0.1", port=0))
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        accepted.set_result(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = listen(settings)
    async with await asyncio.start_server(serve, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        async with asyncio.timeout(30):
            assert await accepted == 1
        writer.close()
        await writer.wait_closed()
