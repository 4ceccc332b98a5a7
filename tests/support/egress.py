"""An egress proxy in this process, servers for it to reach, and raw bytes to speak to it."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from shadow.core.addresses import Address
from shadow.core.egress import EgressLimits, EgressPolicy, parse_rules
from shadow.egress.book import Book
from shadow.egress.carrying import BUFFER_BYTES
from shadow.egress.proxy import Proxy

LIMITS = EgressLimits(header_s=2.0, connect_s=2.0, idle_s=5.0)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def policy(*rules: str, **limits: Any) -> EgressPolicy:
    return EgressPolicy(rules=parse_rules(rules), limits=replace(LIMITS, **limits))


def pretending(**hosts: Sequence[str]) -> "Resolver":
    return Resolver({name.replace("_", "."): list(addresses) for name, addresses in hosts.items()})


class Resolver:
    """Answers from a list for each name, one answer (addresses parted by blanks) after the other; the last one stays."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        answers = self._answers.get(host)
        if not answers:
            raise OSError("no such name")
        return [ip_address(text) for text in (answers.pop(0) if len(answers) > 1 else answers[0]).split()]


@dataclass
class RunningProxy:
    proxy: Proxy
    path: str
    events_fd: int

    def events(self) -> list[bytes]:
        return os.pread(self.events_fd, 1 << 20, 0).splitlines()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def say(self, data: bytes, *, end: bool = False, within_s: float = 10.0) -> bytes:
        """All that the proxy answers to ``data`` until it ends the connection."""
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(within_s):
                writer.write(data)
                if end:
                    writer.write_eof()
                return await reader.read()
        finally:
            writer.transport.abort()


@asynccontextmanager
async def running_proxy(allowed: EgressPolicy, resolver: Any = None) -> AsyncGenerator[RunningProxy]:
    with tempfile.TemporaryDirectory() as directory:
        events_fd = os.open(f"{directory}/events", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        book = Book(clock=lambda: 1000.0, events_fd=events_fd)
        proxy = Proxy(policy=allowed, book=book, how_to_allow=lambda rule: f"allow {rule}")
        if resolver is not None:
            proxy.resolver = resolver
        server = await asyncio.start_unix_server(proxy.serve, f"{directory}/proxy.sock", limit=BUFFER_BYTES)
        try:
            yield RunningProxy(proxy, f"{directory}/proxy.sock", events_fd)
        finally:
            server.close()
            await proxy.end()
            await server.wait_closed()
            os.close(events_fd)


@dataclass
class Upstream:
    port: int
    received: bytearray
    connections: int = 0


@asynccontextmanager
async def upstream(answer: bytes | Serve, host: str = "127.0.0.1") -> AsyncGenerator[Upstream]:
    """A server that keeps what it gets; it answers with bytes after the first empty line, or as the function does."""
    seen = Upstream(0, bytearray())
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        seen.connections += 1
        try:
            if not isinstance(answer, bytes):
                await answer(reader, writer)
                return
            while b"\r\n\r\n" not in seen.received and (data := await reader.read(65536)):
                seen.received += data
            writer.write(answer)
            await writer.drain()
            writer.write_eof()
            while data := await reader.read(65536):
                seen.received += data
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the proxy had enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()
