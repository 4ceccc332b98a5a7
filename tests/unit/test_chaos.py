"""The chaos proxy does what it is told, byte by byte, and nothing else."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shadow.testing.chaos import (
    BLACKHOLE,
    CLEAR,
    SINGLE_BYTES,
    Address,
    ChaosProxy,
    Fault,
    Plan,
    Then,
    chaos_proxy,
)
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

TEXT = bytes(range(256)) * 40


@asynccontextmanager
async def opened(kind: str, directory: Path, plan: Plan | Fault) -> AsyncGenerator[ChaosProxy]:
    """A proxy before a server that sends back what it gets."""

    echoing: set[asyncio.StreamWriter] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoing.add(writer)
        try:
            while data := await reader.read(1000):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            echoing.discard(writer)

    target: Address = directory / "server.sock"
    listen: Address = directory / "proxy.sock"
    if kind == "tcp":
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        target, listen = server.sockets[0].getsockname()[:2], ("127.0.0.1", 0)
    else:
        server = await asyncio.start_unix_server(echo, target)
    async with server, chaos_proxy(target=target, listen=listen, plan=plan) as proxy:
        yield proxy
        proxy.cut()
        await until(lambda: not echoing)


async def connect(proxy: ChaosProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(proxy.address, Path):
        return await asyncio.open_unix_connection(proxy.address)
    return await asyncio.open_connection(*proxy.address)


async def talk(proxy: ChaosProxy, data: bytes) -> bytes:
    """What comes back, to the end of the connection."""
    reader, writer = await connect(proxy)
    try:
        async with asyncio.timeout(20):
            writer.write(data)
            writer.write_eof()
            return await reader.read()
    finally:
        writer.close()


both = pytest.mark.parametrize("kind", ["unix", "tcp"])


@both
@pytest.mark.parametrize("fault", [CLEAR, SINGLE_BYTES, Fault(piece_bytes=7), Fault(bytes_per_s=1e6)])
async def test_every_byte_passes_unless_told(kind: str, fault: Fault, tmp_path: Path) -> None:
    async with opened(kind, tmp_path, fault) as proxy:
        assert await talk(proxy, TEXT) == TEXT
        assert (proxy.connections, proxy.bytes_to_server, proxy.bytes_to_client) == (1, len(TEXT), len(TEXT))
        await until(lambda: proxy.open_connections == 0)


@both
@pytest.mark.parametrize("count", [0, 1, 5000, len(TEXT) - 1])
async def test_a_cut_comes_at_its_byte(kind: str, count: int, tmp_path: Path) -> None:
    async with opened(kind, tmp_path, Fault(to_client_bytes=count)) as proxy:
        assert await talk(proxy, TEXT) == TEXT[:count]
        proxy.switch(Fault(to_server_bytes=count, to_client_bytes=None))
        before = proxy.bytes_to_server
        assert TEXT.startswith(await talk(proxy, TEXT))
        assert proxy.bytes_to_server - before == count


@both
async def test_a_reset_is_no_orderly_end(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path, Fault(to_client_bytes=10, then=Then.RESET)) as proxy:
        if kind == "tcp":
            with pytest.raises(ConnectionResetError):
                await talk(proxy, TEXT)
        else:
            reader, writer = await connect(proxy)
            writer.write(TEXT)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(len(TEXT)), 20)
            writer.close()


@both
async def test_a_stall_heals_with_the_next_fault(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path, BLACKHOLE) as proxy:
        talking = asyncio.create_task(talk(proxy, TEXT))
        await until(lambda: proxy.connections == 1)
        assert not (await asyncio.wait({talking}, timeout=0.1))[0]
        assert (proxy.bytes_to_server, proxy.bytes_to_client) == (0, 0)
        proxy.switch(replace(BLACKHOLE, to_server_bytes=None, to_client_bytes=300))
        await until(lambda: proxy.bytes_to_client == 300)
        proxy.switch(CLEAR)
        assert await talking == TEXT


@both
async def test_it_answers_in_the_servers_place(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path, Fault(status=503, retry_after_s=7)) as proxy:
        answer = await talk(proxy, b"GET / HTTP/1.1\r\n\r\n" + bytes(200_000))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 7\r\n" in answer
        assert (proxy.answers, proxy.bytes_to_server) == (1, 0)


async def test_each_connection_has_its_fault(tmp_path: Path) -> None:
    async with opened("unix", tmp_path, lambda number: Fault(to_client_bytes=number)) as proxy:
        assert [len(await talk(proxy, TEXT)) for _ in range(4)] == [0, 1, 2, 3]


async def test_open_connections_can_be_cut(tmp_path: Path) -> None:
    async with opened("unix", tmp_path, CLEAR) as proxy:
        reader, writer = await connect(proxy)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.cut()
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_a_server_that_is_not_there_ends_the_connection(tmp_path: Path) -> None:
    async with chaos_proxy(target=tmp_path / "none.sock", listen=tmp_path / "proxy.sock") as proxy:
        assert await talk(proxy, b"x") == b""
