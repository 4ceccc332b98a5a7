"""The proxy: one request per connection, judged by the policy, carried to the address that was judged.

It keeps no connection for a second request, so nothing of one reaches another; what it forwards it has parsed and written
anew, but for bytes of bodies and tunnels.
"""

import asyncio
import hmac
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from shadow.core.addresses import Address
from shadow.core.egress import Allowed, EgressPolicy, EgressRule, Refused, decide
from shadow.egress.book import Book
from shadow.egress.carrying import BUFFER_BYTES, BytesLimitReached, Carriage, carry_exchange, carry_tunnel
from shadow.egress.requests import BadRequest, Request, Target, parse_request
from shadow.egress.resolving import Resolver, judged_addresses, resolve_by_system

_USED_UP = "all bytes that this workspace may move are used up"
_FLUSH_S = 60.0
"""For a slow reader to take the last bytes."""
_LINGER_S = 2.0
_LINGER_BYTES = 4 * 1024 * 1024
_PHRASES = {400: "Bad Request", 403: "Forbidden", 407: "Proxy Authentication Required", 408: "Request Timeout"} | {
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(eq=False, slots=True)
class _Passage:
    """A connection on its way: what was asked for, and the addresses once they are known."""

    task: "asyncio.Task[None]"
    request: Request | None = None
    addresses: Sequence[Address] | None = None
    rule: EgressRule | None = None
    carriage: Carriage | None = None


@dataclass(eq=False, slots=True)
class Proxy:
    """Serves connections that somebody accepts for it. ``how_to_allow``: the command that adds a rule, for the refusals."""

    policy: EgressPolicy
    book: Book
    how_to_allow: Callable[[str], str]
    resolver: Resolver = resolve_by_system
    credentials: str | None = None
    """``user:password`` that every request must bring; ``None``: whoever can connect may use it."""
    _passages: set[_Passage] = field(default_factory=set[_Passage])

    def change(self, policy: EgressPolicy) -> None:
        """From now on ``policy`` holds, also for connections that are open: those that it does not allow end."""
        self.policy = policy
        for passage in self._passages:
            request = passage.request
            if request is None:
                continue
            verdict = decide(
                policy,
                host=request.target.host,
                port=request.target.port,
                method=_visible_method(request),
                addresses=passage.addresses,
            )
            if isinstance(verdict, Refused):
                passage.task.cancel()
            elif passage.carriage is not None:
                passage.carriage.limits = policy.limits

    async def end(self) -> None:
        """End every connection."""
        tasks = [passage.task for passage in self._passages]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its end."""
        task = asyncio.current_task()
        assert task is not None
        passage = _Passage(task)
        try:
            if len(self._passages) >= self.policy.limits.connections:
                self.book.limit("", 0, reason="too many connections at once")
                await _answer(reader, writer, 503, "This workspace has too many connections at once.")
                return
            self._passages.add(passage)
            self.book.open += 1
            try:
                await self._serve(passage, reader, writer)
            finally:
                self._passages.discard(passage)
                self.book.open -= 1
                if passage.rule is not None:
                    self.book.ended(passage.rule, passage.carriage.count if passage.carriage else 0)
        except (OSError, EOFError):
            pass  # the other side is gone, or silent for too long: there is nobody to tell
        except asyncio.CancelledError:  # by `change` or `end`
            writer.transport.abort()
        finally:
            await _close(writer)

    async def _serve(self, passage: _Passage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limits = self.policy.limits
        try:
            async with asyncio.timeout(limits.header_s):
                head = await reader.readuntil(b"\r\n\r\n")
            request = parse_request(head, limit_bytes=limits.header_bytes)
        except TimeoutError:
            await _answer(reader, writer, 408, "The request did not arrive in time.")
            return
        except asyncio.LimitOverrunError:
            await _answer(reader, writer, 431, "The request's head is too large.")
            return
        except BadRequest as error:
            await _answer(reader, writer, error.status, f"The request is refused: {error.reason}.")
            return
        if not self._is_authorized(request):
            challenge = 'Proxy-Authenticate: Basic realm="egress"\r\n'
            await _answer(reader, writer, 407, "This proxy is not for everybody.", headers=challenge)
            return
        passage.request = request
        await self._carry(passage, request, reader, writer)

    def _is_authorized(self, request: Request) -> bool:
        if self.credentials is None:
            return True
        wanted = b"Basic " + b64encode(self.credentials.encode())
        return request.authorization is not None and hmac.compare_digest(request.authorization, wanted)

    async def _carry(
        self, passage: _Passage, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        target = request.target
        try:
            judged = await judged_addresses(
                self.policy,
                host=target.host,
                port=target.port,
                method=_visible_method(request),
                resolver=self.resolver,
            )
        except (OSError, TimeoutError) as error:
            reason = f"{target.host} cannot be resolved: {error or 'no answer in time'}."
            await _answer(reader, writer, 504 if isinstance(error, TimeoutError) else 502, reason)
            return
        if isinstance(judged, Refused):
            await self._refuse(target, judged, reader, writer)
            return
        passage.addresses = judged[1]
        # Decided again: the policy may have changed while the name was resolved.
        verdict = decide(
            self.policy,
            host=target.host,
            port=target.port,
            method=_visible_method(request),
            addresses=passage.addresses,
        )
        if isinstance(verdict, Refused):
            await self._refuse(target, verdict, reader, writer)
        elif self.book.total_bytes >= self.policy.limits.total_bytes:
            self.book.limit(target.host, target.port, reason=_USED_UP)
            await _answer(reader, writer, 403, f"The connection is refused: {_USED_UP}.")
        else:
            await self._connect_and_carry(passage, verdict, request, reader, writer)

    async def _connect_and_carry(
        self,
        passage: _Passage,
        allowed: Allowed,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        target = request.target
        try:
            up_reader, up_writer = await self._connect(passage.addresses or (), target.port)
        except TimeoutError:
            await _answer(reader, writer, 504, f"{target.host} does not answer on port {target.port}.")
            return
        except OSError as error:
            reason = f"{target.host} port {target.port} cannot be reached: {error.strerror or error}."
            await _answer(reader, writer, 502, reason)
            return
        passage.rule = allowed.rule
        passage.carriage = carriage = Carriage(book=self.book, limits=self.policy.limits)
        self.book.connected(allowed.rule, target.host, target.port)
        try:
            if request.is_tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await carry_tunnel(carriage, (reader, writer), (up_reader, up_writer))
            else:
                await carry_exchange(carriage, request, (reader, writer), (up_reader, up_writer))
        except BytesLimitReached:
            self.book.limit(target.host, target.port, reason=_USED_UP)
            writer.transport.abort()
        except BadRequest as error:
            if carriage.answered:
                writer.transport.abort()
            else:
                await _answer(reader, writer, error.status, f"The exchange is refused: {error.reason}.")
        finally:
            await _close(up_writer)

    async def _connect(
        self, addresses: Sequence[Address], port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the first that answers, as an address: nothing is resolved any more. Raises: OSError, TimeoutError."""
        failure: OSError | None = None
        async with asyncio.timeout(self.policy.limits.connect_s):
            for address in addresses:
                try:
                    return await asyncio.open_connection(str(address), port, limit=BUFFER_BYTES)
                except OSError as error:
                    failure = failure or error
        raise failure or OSError("there is no address")

    async def _refuse(
        self, target: Target, refused: Refused, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.book.refuse(target.host, target.port, reason=refused.reason, missing=refused.missing)
        body = f"Shadow's egress policy refuses this connection: {refused.reason}."
        if refused.missing is not None:
            body += f"\nIf it is wanted, allow it: {self.how_to_allow(refused.missing)}"
        await _answer(reader, writer, 403, body, phrase=f"Egress refused: {refused.reason}")


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(_FLUSH_S):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


def _visible_method(request: Request) -> str | None:
    return None if request.is_tunnel else request.method


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    status: int,
    text: str,
    *,
    phrase: str | None = None,
    headers: str = "",
) -> None:
    """An answer of our own, then the end. What the client is still sending is read for a while, or it may lose the answer."""
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status} {phrase or _PHRASES[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n{headers}"
    writer.write(head.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            left = _LINGER_BYTES
            while left > 0 and (data := await reader.read(BUFFER_BYTES)):
                left -= len(data)
