"""PostgreSQL whose answer to a commit gets lost: a relay on a unix socket, which breaks the connection at that moment."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

_SOCKET = ".s.PGSQL.5432"


class Loss(StrEnum):
    BEFORE = "before"
    """The server never hears of the commit, and rolls back."""
    AFTER = "after"
    """The server has committed."""


class LossyPostgresql:
    """``url``: the same database, by way of the relay."""

    def __init__(self, url: str, directory: Path) -> None:
        base, _, host = url.partition("?host=")
        self.url = f"{base}?host={directory}"
        self.lost = 0
        self._server = Path(host) / _SOCKET
        self._left = 0
        self._loss = Loss.BEFORE

    def lose(self, number: int, loss: Loss) -> None:
        """The commit with that number from here, from 1."""
        self._left, self._loss = number, loss

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        answer_is_lost = asyncio.Event()

        async def ask() -> None:
            while data := await reader.read(65536):
                if b"COMMIT" in data and self._is_next():
                    self.lost += 1
                    if self._loss is Loss.BEFORE:
                        return
                    answer_is_lost.set()
                server_writer.write(data)
                await server_writer.drain()

        async def answer() -> None:
            while data := await server_reader.read(65536):
                if answer_is_lost.is_set():
                    return
                writer.write(data)
                await writer.drain()

        both = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for each in (writer, server_writer):
                each.transport.abort()

    def _is_next(self) -> bool:
        self._left -= 1
        return self._left == 0


@asynccontextmanager
async def lossy_postgresql(url: str) -> AsyncGenerator[LossyPostgresql]:
    directory = Path(tempfile.mkdtemp(prefix="shadow-lossy-", dir="/tmp"))  # a socket's path is short
    relay = LossyPostgresql(url, directory)
    server = await asyncio.start_unix_server(relay.accept, directory / _SOCKET)
    try:
        yield relay
    finally:
        server.close()
        shutil.rmtree(directory)
