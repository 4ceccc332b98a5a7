"""Carries bytes between a client and a server: a tunnel as it is, an exchange of HTTP in strict frames; counted and bounded."""

import asyncio
from dataclasses import dataclass

from shadow.core.egress import EgressLimits
from shadow.egress.book import Book
from shadow.egress.requests import BadRequest, Request, parse_chunk_size, parse_response

BUFFER_BYTES = 256 * 1024
_MAX_CHUNK_LINE = 4096
_RESCHEDULE_S = 1.0

End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class BytesLimitReached(Exception):
    """The workspace has moved all the bytes that it may."""


@dataclass(eq=False, slots=True)
class Carriage:
    """The bytes of one connection: each one counts, and moves the end of its idle time."""

    book: Book
    limits: EgressLimits
    count: int = 0
    answered: bool = False
    """Whether the client has got anything from the server."""
    idle: asyncio.Timeout | None = None
    _scheduled_at: float = 0.0

    def watch(self) -> asyncio.Timeout:
        self.idle = asyncio.timeout(self.limits.idle_s)
        return self.idle

    def moved(self, count: int, *, out: bool) -> None:
        """Raises: BytesLimitReached."""
        self.count += count
        if out:
            self.book.bytes_out += count
        else:
            self.book.bytes_in += count
        if self.book.total_bytes > self.limits.total_bytes:
            raise BytesLimitReached
        now = asyncio.get_running_loop().time()
        if self.idle is not None and now - self._scheduled_at > min(_RESCHEDULE_S, self.limits.idle_s / 10):
            self._scheduled_at = now
            self.idle.reschedule(now + self.limits.idle_s)


async def carry_tunnel(carriage: Carriage, client: End, server: End) -> None:
    """Until both sides have ended. Each may end first and still listen. Raises: BytesLimitReached, TimeoutError, OSError."""
    async with carriage.watch():
        pumps = (
            asyncio.ensure_future(_pump(carriage, client[0], server[1], out=True)),
            asyncio.ensure_future(_pump(carriage, server[0], client[1], out=False)),
        )
        try:
            await asyncio.gather(*pumps)
        finally:
            await _cancelled(*pumps)


async def _cancelled(*tasks: "asyncio.Future[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(carriage: Carriage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, out: bool) -> None:
    while data := await reader.read(BUFFER_BYTES):
        carriage.moved(len(data), out=out)
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


async def carry_exchange(carriage: Carriage, request: Request, client: End, server: End) -> None:
    """One request and its answer. The answer may come, and end, before the request's body has: then the rest is dropped.

    Raises: BadRequest, BytesLimitReached, TimeoutError, OSError.
    """
    async with carriage.watch():
        head = request.head()
        carriage.moved(len(head), out=True)
        server[1].write(head)
        sending = asyncio.ensure_future(_send_body(carriage, request, client[0], server[1]))
        answering = asyncio.ensure_future(_answer(carriage, request, server[0], client[1]))
        try:
            await asyncio.wait((sending, answering), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and sending.done() and not isinstance(sending.exception(), ConnectionError):
                sending.result()
            await answering
        finally:
            await _cancelled(sending, answering)


async def _send_body(
    carriage: Carriage, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if request.body_bytes is not None:
        await _send_exactly(carriage, reader, writer, request.body_bytes, out=True)
        return
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            raise BadRequest("a chunk's size is malformed") from error
        if len(line) > _MAX_CHUNK_LINE:
            raise BadRequest("a chunk's size is malformed")
        size = parse_chunk_size(line)
        if size == 0:
            break
        writer.write(b"%x\r\n" % size)
        await _send_exactly(carriage, reader, writer, size, out=True)
        if await reader.readexactly(2) != b"\r\n":
            raise BadRequest("a chunk does not end where it said")
        writer.write(b"\r\n")
    writer.write(b"0\r\n\r\n")  # trailers are dropped
    await writer.drain()


async def _send_exactly(
    carriage: Carriage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int, *, out: bool
) -> None:
    while count:
        data = await reader.read(min(count, BUFFER_BYTES))
        if not data:
            raise asyncio.IncompleteReadError(b"", count)
        count -= len(data)
        carriage.moved(len(data), out=out)
        writer.write(data)
        await writer.drain()


async def _answer(
    carriage: Carriage, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head, length = await _answer_head(carriage, request, reader)
    carriage.answered = True
    writer.write(head)
    if length is None:
        await _pump(carriage, reader, writer, out=False)
    else:
        await _send_exactly(carriage, reader, writer, length, out=False)
        await writer.drain()


async def _answer_head(carriage: Carriage, request: Request, reader: asyncio.StreamReader) -> tuple[bytes, int | None]:
    """The head for the client, and how many bytes follow. Interim answers (100, 103) are for us."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
            raise BadRequest("the server's answer has no head, or one that is too large", status=502) from error
        if len(head) > carriage.limits.header_bytes:
            raise BadRequest("the head of the server's answer is too large", status=502)
        carriage.moved(len(head), out=False)
        status, ours, length = parse_response(head, method=request.method)
        if status == 101:
            raise BadRequest("the server changes the protocol, which needs a tunnel", status=502)
        if status >= 200:
            return ours, length
