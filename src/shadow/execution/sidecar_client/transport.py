"""HTTP to one sidecar that need not be honest: one session, bounded answers, typed failures, repeats where they are safe."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from shadow.core.errors import Broken, Denied, NotFound, OutcomeUnknown, PathRefused, ShadowError, Unavailable
from shadow.execution.sidecar_client.bodies import SLICE_BYTES, Body, BytesBody
from shadow.execution.sidecar_client.endpoint import Endpoint, UnixEndpoint
from shadow.wire.errors import decode_error

RETRY_WAITS_S = (0.05, 1.0, 2.0, 4.0)
CONNECT_S = 5.0
ANSWER_S = 60.0
CLOSE_S = 0.3
"""How long a WebSocket that we close may take to say goodbye."""
PING_S = 15.0
"""Between two pings on a WebSocket; half of it the answer may take."""
SILENCE_S = 30.0
"""How long a stream may bring nothing, not even a heartbeat (the sidecar sends one every 10 s)."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of lists. What is read of JSON takes forty times as much memory, where somebody wants it to."""
MAX_SINGLE_BYTES = 1024 * 1024
"""Of anything else but contents."""
MAX_ERROR_BYTES = 4 * 1024 * 1024
READ_BUFFER_BYTES = 512 * 1024
MAX_CONNECTIONS = 512
KEEP_ALIVE_S = 15.0
_LONGEST_SOCKET_PATH = 107

Sleep = Callable[[float], Awaitable[None]]
QueryValue = str | int | float | bool | None


class NotSent(Exception):
    """No connection: the sidecar has seen nothing."""


class CutOff(Exception):
    """The connection broke, or no answer came in time."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    method: str
    path: str
    query: Mapping[str, QueryValue] = field(default_factory=dict[str, QueryValue])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Body | None = None
    mutates: bool = False
    repeatable: bool = True
    """Whether a repeat is harmless once the call may have been seen."""
    answer_s: float = ANSWER_S
    limit_bytes: int = MAX_SINGLE_BYTES


@dataclass(frozen=True, slots=True)
class Reply:
    headers: Mapping[str, str]
    body: bytes


class Transport:
    def __init__(self, endpoint: Endpoint, *, token: str, sleep: Sleep, silence_s: float = SILENCE_S) -> None:
        self._endpoint = endpoint
        self._headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._sleep = sleep
        self._silence_s = silence_s
        self._session: aiohttp.ClientSession | None = None
        self._directory_fd: int | None = None
        self._closed = False
        if isinstance(endpoint, UnixEndpoint):
            self._base = "http://sidecar"
        else:
            self._base = f"http://{f'[{endpoint.host}]' if ':' in endpoint.host else endpoint.host}:{endpoint.port}"

    async def aclose(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._directory_fd is not None:
            os.close(self._directory_fd)
            self._directory_fd = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def call(self, call: Call) -> Reply:
        """Raises: the sidecar's typed errors; Unavailable, OutcomeUnknown, Denied, Broken."""
        self._check_open()
        seen = False
        reason: Exception = NotSent("not tried")
        for wait_s in (*RETRY_WAITS_S, None):
            try:
                return await self._attempt(call)
            except NotSent as error:
                reason = error
            except (CutOff, OutcomeUnknown) as error:
                reason = error
                if call.body is not None and call.body.failure is not None:
                    raise call.body.failure from None
                seen = seen or call.body is None or not call.body.incomplete
                if not call.repeatable or (isinstance(error, CutOff) and error.timed_out):
                    break
            except Unavailable as error:
                reason = error
            if wait_s is None or not (call.body is None or call.body.can_be_sent_again):
                break
            await self._sleep(wait_s)
        raise self._failure(call, reason, seen=seen) from reason

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, QueryValue], *, accept: str
    ) -> AsyncGenerator[aiohttp.StreamReader]:
        """One attempt at an endless answer. Raises: NotSent, CutOff, the sidecar's typed errors, Broken."""
        session = self._open()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._silence_s)
        with _Translated():
            async with session.get(
                self._url(path, query), headers={"Accept": accept}, timeout=timeout, allow_redirects=False
            ) as response:
                async with asyncio.timeout(ANSWER_S):
                    await _check_status(response)
                yield response.content

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Mapping[str, QueryValue], *, protocol: str, limit_bytes: int
    ) -> AsyncGenerator["WebSocket"]:
        """One connection; no message may be larger than ``limit_bytes``. Raises: as ``stream``."""
        session = self._open()
        with _Translated():
            async with (
                asyncio.timeout(CONNECT_S + ANSWER_S) as opening,
                session.ws_connect(
                    self._url(path, query),
                    protocols=(protocol,),
                    autoclose=False,
                    heartbeat=PING_S,
                    max_msg_size=limit_bytes,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),  # pyright: ignore[reportCallIssue] - attrs
                ) as socket,
            ):
                opening.reschedule(None)
                yield WebSocket(socket)

    @staticmethod
    def _failure(call: Call, reason: Exception, *, seen: bool) -> ShadowError:
        if seen and call.mutates:
            if isinstance(reason, OutcomeUnknown):
                return reason
            return OutcomeUnknown(
                f"The sidecar did not answer whether it was done: {reason}.", mend="Look before you repeat it."
            )
        if isinstance(reason, Unavailable):
            return reason
        return Unavailable(
            f"The workspace's sidecar cannot be reached: {reason}.", mend="Attach to the workspace again."
        )

    async def _attempt(self, call: Call) -> Reply:
        session = self._open()
        url = self._url(call.path, call.query)
        headers: Mapping[str, str] = call.headers
        with _Translated():
            async with asyncio.timeout(call.answer_s) as deadline:
                data: object = None
                body = call.body
                if isinstance(body, BytesBody) and body.length <= SLICE_BYTES:
                    data = body.data
                elif body is not None:
                    data = body.pieces(deadline, answer_s=call.answer_s)
                    if body.length is not None:
                        headers = {**headers, "Content-Length": str(body.length)}
                async with session.request(
                    call.method, url, data=data, headers=headers, allow_redirects=False
                ) as response:
                    await _check_status(response)
                    answer = await _read_body(response, limit_bytes=call.limit_bytes)
                    return Reply(response.headers, answer)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("This executor was closed.")

    def _open(self) -> aiohttp.ClientSession:
        self._check_open()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                headers=self._headers,
                skip_auto_headers=("User-Agent", "Accept"),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
            )
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if not isinstance(self._endpoint, UnixEndpoint):
            return aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S)
        path = os.fsencode(self._endpoint.path)
        if len(path) > _LONGEST_SOCKET_PATH:
            directory, name = os.path.split(path)
            try:
                self._directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise NotSent(str(error)) from error
            path = b"/proc/self/fd/%d/%s" % (self._directory_fd, name)
        return aiohttp.UnixConnector(os.fsdecode(path), limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S)

    def _url(self, path: str, query: Mapping[str, QueryValue]) -> URL:
        text = "&".join(f"{name}={_encode(value)}" for name, value in query.items() if value is not None)
        return URL(f"{self._base}{path}?{text}" if text else f"{self._base}{path}", encoded=True)


def _encode(value: QueryValue) -> str:
    if isinstance(value, str):
        check_text(value)
        return quote(value, safe="/", errors="surrogateescape")
    return str(int(value)) if isinstance(value, bool) else str(value)


def check_text(text: str) -> None:
    """Raises: PathRefused: no system could hold this as a name."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise PathRefused(f"{text!a} cannot be a name: it holds half a character.") from error


class WebSocket:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> bytes:
        """The next binary message. Raises: CutOff."""
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise CutOff(f"the connection was closed ({self._socket.close_code})")
        return message.data

    async def send(self, message: bytes) -> None:
        """Raises: CutOff."""
        with _Translated():
            await self._socket.send_bytes(message)


_NO_HANDSHAKE: Mapping[int, type[ShadowError]] = {401: Denied, 403: Denied, 404: NotFound, 503: Unavailable}


class _Translated:
    """Turns what aiohttp raises into ``NotSent``, ``CutOff`` and typed errors. Holds nothing: safe around a ``yield``."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        match error:
            case aiohttp.ClientConnectorError() if isinstance(error.os_error, PermissionError):
                raise Denied(f"The sidecar's socket may not be opened: {error.os_error.strerror}.") from error
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                raise NotSent(str(error)) from error
            case TimeoutError():
                raise CutOff("no answer in time", timed_out=True) from error
            case aiohttp.WSServerHandshakeError() if error.status in _NO_HANDSHAKE:
                raise _NO_HANDSHAKE[error.status]("The sidecar refuses to connect a terminal.") from error
            case aiohttp.ClientResponseError():
                raise Broken("The sidecar's answer is not HTTP that we understand.") from error
            case aiohttp.ClientError() | OSError():
                raise CutOff(f"the connection broke ({type(error).__name__})") from error
            case _:
                return


async def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    if response.status < 400:
        raise Broken(f"The sidecar answered with HTTP status {response.status}, which is never followed.")
    body = await _read_body(response, limit_bytes=MAX_ERROR_BYTES)
    raise decode_error(body, status=response.status)


async def _read_body(response: aiohttp.ClientResponse, *, limit_bytes: int) -> bytes:
    if response.content_length is not None and response.content_length > limit_bytes:
        raise Broken(
            f"The sidecar announced an answer of {response.content_length} bytes; at most {limit_bytes} fit here."
        )
    parts: list[bytes] = []
    size = 0
    while part := await response.content.readany():
        size += len(part)
        if size > limit_bytes:
            raise Broken(f"The sidecar's answer has more than {limit_bytes} bytes.")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
