"""A proxy that misbehaves on purpose, in front of a sidecar or of any other server on a unix socket or a TCP port.

What it does to a connection is a ``Fault``: decided when the connection comes, by its number, and anew for all of them with
``switch``. It holds nothing back but what the fault says, in either direction, and it never makes up a byte, except for the
answers that it is told to give. Nothing is random: a test draws its own faults. ::

    async with chaos_proxy(target=Path("sidecar.sock"), listen=Path("proxy.sock")) as proxy:
        proxy.switch(Fault(to_client_bytes=100))        # each connection breaks in its 101st byte
        proxy.switch(lambda number: CLEAR if number else BLACKHOLE)
"""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from shadow.core.concurrency import task_group

READ_BYTES = 64 * 1024
SLOW_PIECE_S = 0.05
"""Of a slow connection so much passes at once."""

Address = Path | tuple[str, int]
"""A unix socket, or a host and a port (0, to listen: a free one)."""


class Then(StrEnum):
    """What becomes of a connection that has passed as many bytes as it may, when the next one comes."""

    CLOSE = "close"
    """It is closed as one that is done."""
    RESET = "reset"
    """It is torn down: RST on TCP; on a unix socket closed at once, without what still waits to be sent."""
    STALL = "stall"
    """It stays open, and nothing passes until the fault is switched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a connection suffers. Bytes are counted from its beginning, or from the switch to this fault."""

    to_server_bytes: int | None = None
    """How many pass to the server before ``then``; ``None``: all."""
    to_client_bytes: int | None = None
    then: Then = Then.CLOSE
    piece_bytes: int | None = None
    """Bytes pass in pieces of so many, each written by itself."""
    bytes_per_s: float | None = None
    """In each direction."""
    status: int | None = None
    """Requests are answered with this HTTP status, by the proxy itself; the server never sees them."""
    retry_after_s: int | None = None
    """What such an answer asks for."""


CLEAR = Fault()
BLACKHOLE = Fault(to_server_bytes=0, to_client_bytes=0, then=Then.STALL)
"""Connections are accepted, and nothing ever comes of them."""
SINGLE_BYTES = Fault(piece_bytes=1)

Plan = Callable[[int], Fault]
"""The fault of a connection by its number, counted from 0."""
Sleep = Callable[[float], Awaitable[None]]


class _Toward(StrEnum):
    SERVER = "server"
    CLIENT = "client"


class _Cut(Exception):
    def __init__(self, *, reset: bool) -> None:
        self.reset = reset


@dataclass(slots=True, eq=False)
class _Link:
    """One connection: the client's side and, once a byte may pass to it, the server's."""

    number: int
    fault: Fault
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    passed: dict[_Toward, int] = field(default_factory=lambda: dict.fromkeys(_Toward, 0))
    switched: asyncio.Event = field(default_factory=asyncio.Event)

    def room(self, toward: _Toward) -> int | None:
        """How many more bytes may pass."""
        limit = self.fault.to_server_bytes if toward is _Toward.SERVER else self.fault.to_client_bytes
        return None if limit is None else max(0, limit - self.passed[toward])

    def switch(self, fault: Fault) -> None:
        self.fault = fault
        self.passed = dict.fromkeys(_Toward, 0)
        self.switched.set()
        self.switched = asyncio.Event()

    def close(self, *, reset: bool) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                if reset:
                    _reset(writer)
                writer.close()


class ChaosProxy:
    """Made by ``chaos_proxy``."""

    def __init__(self, target: Address, *, plan: Plan, sleep: Sleep) -> None:
        self._target = target
        self._plan = plan
        self._sleep = sleep
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.address: Address = target
        """Where it listens."""
        self.connections = 0
        """How many there were."""
        self.answers = 0
        """How many it gave itself."""
        self.bytes_to_server = 0
        self.bytes_to_client = 0

    @property
    def open_connections(self) -> int:
        return len(self._links)

    def switch(self, plan: Plan | Fault) -> None:
        """From now on; connections that are open take it too, counted anew. What was stalled goes on if it may."""
        self._plan = _plan(plan)
        for link in self._links:
            link.switch(self._plan(link.number))

    def cut(self, *, reset: bool = False) -> None:
        """End the connections that are open."""
        for link in self._links:
            link.close(reset=reset)

    async def aclose(self) -> None:
        self._closed = True
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link(number=self.connections, fault=self._plan(self.connections), client=writer)
        self.connections += 1
        self._links.add(link)
        reset = False
        try:
            await self._carry(link, reader)
        except _Cut as cut:
            reset = cut.reset
        except OSError:
            pass  # one side is gone: so is the connection
        except asyncio.CancelledError:
            if not self._closed:  # by ``aclose``: asyncio's server takes no cancelled handler
                raise
        finally:
            link.close(reset=reset)
            self._links.discard(link)
            self._tasks.discard(task)

    async def _carry(self, link: _Link, client: asyncio.StreamReader) -> None:
        async with task_group() as group:
            while data := await client.read(READ_BYTES):
                while data:
                    if link.fault.status is not None:
                        await self._answer(link, client, link.fault)
                        return
                    size = await self._allowed(link, _Toward.SERVER, len(data))
                    if not size:
                        continue
                    if link.server is None:
                        server, link.server = await self._connect()
                        group.create_task(self._back(link, server))
                    self.bytes_to_server += size
                    await self._pass(link, _Toward.SERVER, link.server, data[:size])
                    data = data[size:]
            _end(link.server)

    async def _back(self, link: _Link, server: asyncio.StreamReader) -> None:
        while data := await server.read(READ_BYTES):
            while data:
                if size := await self._allowed(link, _Toward.CLIENT, len(data)):
                    self.bytes_to_client += size
                    await self._pass(link, _Toward.CLIENT, link.client, data[:size])
                    data = data[size:]
        link.client.close()

    async def _allowed(self, link: _Link, toward: _Toward, size: int) -> int:
        """How many of ``size`` bytes may pass now; 0: look again, the fault was switched. Raises: _Cut."""
        fault, room = link.fault, link.room(toward)
        if room == 0:
            if fault.then is not Then.STALL:
                raise _Cut(reset=fault.then is Then.RESET)
            await link.switched.wait()
            return 0
        slowly = None if fault.bytes_per_s is None else max(1, int(fault.bytes_per_s * SLOW_PIECE_S))
        return min(size, *(limit for limit in (room, fault.piece_bytes, slowly) if limit is not None), READ_BYTES)

    async def _pass(self, link: _Link, toward: _Toward, writer: asyncio.StreamWriter, data: bytes) -> None:
        link.passed[toward] += len(data)
        writer.write(data)
        await writer.drain()
        if link.fault.bytes_per_s is not None:
            await self._sleep(len(data) / link.fault.bytes_per_s)
        elif link.fault.piece_bytes is not None:
            await asyncio.sleep(0)

    async def _answer(self, link: _Link, client: asyncio.StreamReader, fault: Fault) -> None:
        self.answers += 1
        after = "" if fault.retry_after_s is None else f"Retry-After: {fault.retry_after_s}\r\n"
        head = f"HTTP/1.1 {fault.status} Chaos\r\n{after}Content-Length: 0\r\nConnection: close\r\n\r\n"
        link.client.write(head.encode())
        _end(link.client)
        while await client.read(READ_BYTES):
            pass  # closed with bytes unread, the answer would be lost with them

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)


def _plan(plan: Plan | Fault) -> Plan:
    def same(_: int) -> Fault:
        assert isinstance(plan, Fault)
        return plan

    return same if isinstance(plan, Fault) else plan


def _end(writer: asyncio.StreamWriter | None) -> None:
    """Nothing more comes from this side."""
    if writer is not None and not writer.is_closing():
        with suppress(OSError):  # the other side is gone already
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("socket")
    if peer is not None and peer.family != socket.AF_UNIX and not writer.is_closing():
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def chaos_proxy(
    *, target: Address, listen: Address, plan: Plan | Fault = CLEAR, sleep: Sleep = asyncio.sleep
) -> AsyncGenerator[ChaosProxy]:
    """Listens for the length of the block; ``ChaosProxy.address`` says where. ``sleep``: for what is to be slow."""
    proxy = ChaosProxy(target, plan=_plan(plan), sleep=sleep)
    if isinstance(listen, Path):
        server = await asyncio.start_unix_server(proxy.accept, listen)
        proxy.address = listen
    else:
        server = await asyncio.start_server(proxy.accept, *listen)
        proxy.address = (listen[0], server.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
