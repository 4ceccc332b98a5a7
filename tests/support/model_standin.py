"""A stand-in for a model provider: a real HTTP server on loopback that answers as it is told and refuses invalid requests.

::

    async with AnthropicStandIn([Answer([Say("hello")])]) as server:
        model = make_model("anthropic:any", endpoints={"anthropic": Endpoint(base_url=server.url, key=server.key)})
        ...
    server.requests[0].body["messages"]

Replies are used one a request, in order; instead of a list it can be a function of the request. A request that the real
provider would refuse (or that is sloppier than we want to be) is answered with 400, kept in ``problems``, and makes leaving
the block fail.
"""

import asyncio
import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from shadow.agent.model import Model
from tests.support.model_replies import Answer, Fail, Raw, Reply


@dataclass
class Seen:
    """A request. ``connection`` is which of the server's connections it came over, from 0."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    connection: int
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the client closed the connection before its answer had ended."""


class Invalid(Exception):
    """What is wrong with a request."""


def require(condition: object, problem: str) -> None:
    if not condition:
        raise Invalid(problem)


class StandIn(ABC):
    """``url`` is the base URL to give to the client; ``key`` the one key that is accepted."""

    path: str = ""
    tried_at: str
    """What a key is tried with: a path for GET. To this are answered ``trial`` and nothing of the replies."""

    def __init__(
        self, replies: Sequence[Reply] | Callable[[Seen], Reply], *, key: str = "sk-stand-in-0123456789"
    ) -> None:
        self._replies = replies if callable(replies) else _in_turn(list(replies))
        self.key = key
        self.tls: ssl.SSLContext | None = None
        """Set before the block is entered, to be reached by https."""
        self.trial: Reply = Raw(b'{"data": []}', content_type="application/json")
        self.requests: list[Seen] = []
        self.problems: list[str] = []
        self._connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._counter = 0
        self.clients: list[Model] = []
        """Closed together with the server."""

    async def __aenter__(self) -> Self:
        limit = 64 * 1024 * 1024
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=limit, ssl=self.tls)
        self.url = (
            f"{'https' if self.tls else 'http'}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self.path}"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.clients:
            await client.aclose()
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        if kind is None:
            assert not self.problems, self.problems

    # What a protocol says

    @abstractmethod
    def check(self, seen: Seen) -> None:
        """Raises: Invalid."""

    @abstractmethod
    def has_key(self, seen: Seen) -> bool: ...

    @abstractmethod
    def events(self, answer: Answer, seen: Seen) -> Iterator[bytes]:
        """The answer as events of the stream, its end included."""

    @abstractmethod
    def failure_event(self, fail: Fail) -> bytes: ...

    @abstractmethod
    def failure_body(self, fail: Fail) -> dict[str, Any]: ...

    def new_id(self, prefix: str) -> str:
        self._counter += 1
        return f"{prefix}{self._counter:024d}"

    # HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, self._connections = self._connections, self._connections + 1
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer, connection):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> bool:
        """One request and its answer; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(method=method, path=path, headers=headers, body={}, connection=connection)
        self.requests.append(seen)
        reply = self._reply(seen, body)
        if isinstance(reply, Answer):
            try:
                return await self._stream(reply, seen, reader, writer)
            except ConnectionError:
                seen.left.set()
                raise
        if isinstance(reply, Fail):
            raw = json.dumps(self.failure_body(reply)).encode()
            reply = Raw(body=raw, status=reply.status, content_type="application/json", headers=reply.headers)
        lines = [f"HTTP/1.1 {reply.status} Whatever", f"content-type: {reply.content_type}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        lines += [f"content-length: {len(reply.body)}", "", ""]
        writer.write("\r\n".join(lines).encode() + reply.body)
        await writer.drain()
        return True

    def _reply(self, seen: Seen, body: bytes) -> Reply:
        if not self.has_key(seen):
            return Fail(status=401, type="authentication_error", message="invalid x-api-key", code="invalid_api_key")
        if (seen.method, seen.path) == ("GET", self.tried_at):
            return self.trial
        try:
            require(seen.method == "POST", f"{seen.method} {seen.path}")
            require(seen.headers.get("content-type", "").partition(";")[0] == "application/json", "content type")
            try:
                seen.body = json.loads(body.decode("utf-8"))
                json.dumps(seen.body, ensure_ascii=False).encode("utf-8")
            except UnicodeError as error:
                raise Invalid("half of a surrogate pair") from error
            self.check(seen)
            return self._replies(seen)
        except Invalid as error:
            self.problems.append(str(error))
            return Fail(status=400, type="invalid_request_error", message=str(error))

    async def _stream(
        self, answer: Answer, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number, event in enumerate(self.events(answer, seen)):
            if answer.cut is not None and number == answer.cut.after_events:
                if answer.cut.how == "end":
                    break
                await writer.drain()
                if answer.cut.how == "reset":
                    await asyncio.sleep(0.05)  # a reset drops what the client has not read
                    writer.transport.abort()
                return False
            if number == answer.stall_after_events:
                await writer.drain()
                await _departure(reader, writer)
            if _is_gone(reader, writer):
                seen.left.set()
                return False
            chunks = [event[i : i + 1] for i in range(len(event))] if answer.one_byte_chunks else [event]
            for chunk in chunks:
                writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                if answer.one_byte_chunks:
                    await writer.drain()
                    await asyncio.sleep(0)
            await writer.drain()
            await asyncio.sleep(answer.pause_s)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def _in_turn(replies: list[Reply]) -> Callable[[Seen], Reply]:
    left = iter(replies)

    def next_reply(_: Seen) -> Reply:
        reply = next(left, None)
        if reply is None:
            raise Invalid("there is no reply for this request")
        return reply

    return next_reply


def _is_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    return reader.at_eof() or reader.exception() is not None or writer.transport.is_closing()


async def _departure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(30):
            while not _is_gone(reader, writer):
                await asyncio.sleep(0.005)
