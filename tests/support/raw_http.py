"""HTTP to a sidecar byte by byte."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.support.sidecars import TOKEN

HEAD = f"Host: sidecar\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
HEALTH = b"GET /v1/health HTTP/1.1\r\n" + HEAD + b"\r\n"


class Wire:
    """A connection of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> "Wire":
        self.writer.write(data)
        await self.writer.drain()
        return self

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    async def refusal(self) -> tuple[int, str]:
        status, _, body = await self.answer()
        return status, json.loads(body)["error"]["code"]

    async def end(self) -> bytes:
        """What still comes until the other side closes."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def dribble(self, data: bytes) -> None:
        """Until the other side has had enough."""
        reading = asyncio.create_task(self.end())
        with suppress(ConnectionError):
            while not reading.done():
                await self.say(data)
                await asyncio.sleep(0.02)
        await asyncio.wait((reading,))


@asynccontextmanager
async def wire_to(path: Path) -> AsyncGenerator[Wire]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
