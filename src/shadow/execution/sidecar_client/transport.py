"""HTTP to one sidecar that need not be honest: one session, bounded answers, typed failures, repeats where they are safe."""

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from shadow.core.errors import (
    Broken,
    Denied,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    PathRefused,
    ShadowError,
    Unauthenticated,
    Unavailable,
)
from shadow.execution.sidecar_client.answers import asked_wait_s, read_body, read_refusal
from shadow.execution.sidecar_client.bodies import SLICE_BYTES, Body, BytesBody
from shadow.execution.sidecar_client.breaker import Breaker, BreakerStatus
from shadow.execution.sidecar_client.endpoint import Endpoint, UnixEndpoint, UrlEndpoint
from shadow.execution.sidecar_client.retries import ANSWER_S, Randomness, Repeats, Resilience
from shadow.execution.sidecar_client.trust import is_no_tls, no_tls, untrusted

CONNECT_S = 5.0
CLOSE_S = 0.3
"""How long a WebSocket that we close may take to say goodbye."""
PING_S = 15.0
"""Between two pings on a WebSocket; half of it the answer may take."""
REPEATS_S = 30.0
"""How much longer than one answer may take a call may take with its repeats."""
SLOWEST_UPLOAD_BYTES_PER_S = 64 * 1024
SILENCE_S = 25.0
"""How long a stream may bring nothing, not even a heartbeat (the sidecar sends one every 10 s); less than what its reader has
patience for, so that one silent connection is not the end."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of lists. What is read of JSON takes forty times as much memory, where somebody wants it to."""
MAX_SINGLE_BYTES = 1024 * 1024
"""Of anything else but contents."""
READ_BUFFER_BYTES = 512 * 1024
MAX_CONNECTIONS = 512
KEEP_ALIVE_S = 15.0
BAD_GATEWAY = 502
_LONGEST_SOCKET_PATH = 107

Sleep = Callable[[float], Awaitable[None]]
QueryValue = str | int | float | bool | None


class NotSent(Exception):
    """No connection: the sidecar has seen nothing."""


class CutOff(Exception):
    """The connection broke, or no answer came in time."""


class _SourceFailed(Exception):
    """The source of a body raised: nothing that the sidecar did."""

    def __init__(self, error: Exception) -> None:
        self.error = error


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
    """How long one answer may take."""
    deadline_s: float | None = None
    """How long all attempts and the waits between them may take, without what the source of a streamed body takes; ``None``:
    half a minute above ``answer_s``, and time for a large body."""
    limit_bytes: int = MAX_SINGLE_BYTES

    @property
    def total_s(self) -> float:
        if self.deadline_s is not None:
            return self.deadline_s
        size = self.body.length if self.body is not None else None
        return self.answer_s + REPEATS_S + (size or 0) / SLOWEST_UPLOAD_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class Reply:
    headers: Mapping[str, str]
    body: bytes


class Transport:
    def __init__(
        self,
        endpoint: Endpoint,
        *,
        token: str,
        sleep: Sleep,
        clock: Callable[[], float] = time.monotonic,
        resilience: Resilience | None = None,
        breaker: Breaker | None = None,
        randomness: Randomness = random.random,
        silence_s: float = SILENCE_S,
    ) -> None:
        """``breaker``: one that other transports to the same sidecar, with the same clock, share; ``None``: one of its own."""
        resilience = resilience or Resilience()
        self._endpoint = endpoint
        self._headers = {"Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._sleep = sleep
        self._clock = clock
        self._retries = resilience.retries
        self._more_s = resilience.answer_s - ANSWER_S
        """What an answer may take more or less than calls say, who say it for the default."""
        self._breaker = breaker or Breaker(resilience.breaker)
        self._randomness = randomness
        self._silence_s = silence_s
        self._session: aiohttp.ClientSession | None = None
        self._directory_fd: int | None = None
        self._closed = False
        self.patience_s = resilience.no_progress_s
        self._peer = "server" if isinstance(endpoint, UrlEndpoint) else "workspace's sidecar"
        match endpoint:
            case UnixEndpoint():
                self._root = "http://sidecar/v1"
            case UrlEndpoint():
                self._root = endpoint.url
            case _:
                host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
                self._root = f"http://{host}:{endpoint.port}/v1"

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

    @property
    def breaker(self) -> BreakerStatus:
        return self._breaker.status(self._clock())

    @contextmanager
    def admitted(self) -> Generator[None]:
        """Around one call with its repeats, or one stream with its resumptions: what comes of it the breaker learns.

        Raises: Unavailable: the breaker is open.
        """
        self._check_open()
        ticket = self._breaker.admit(self._clock())
        if ticket is None:
            raise self._not_now()
        try:
            yield
        except (Unavailable, OutcomeUnknown, Broken) as error:
            # Nonsense that came with a 200 says nothing of other calls: a listing may just be too large.
            if not isinstance(error, Broken) or "status" in error.details:
                self._breaker.failed(ticket, self._clock())
                error.details.update(_told(self.breaker))
            raise
        finally:
            self._breaker.left(ticket)

    def answered(self) -> None:
        """Tell the breaker that somebody is there; ``call`` does it by itself, readers of streams when something came."""
        self._breaker.answered()

    def repeats(self, *, total_s: float) -> Repeats:
        return Repeats(self._retries, until=self._clock() + total_s, randomness=self._randomness)

    def wait_s(self, repeats: Repeats, reason: Exception) -> float | None:
        """How long to wait after ``reason`` before a repeat; ``None``: there is none any more."""
        return None if self._closed else repeats.wait_s(now=self._clock(), asked_s=asked_wait_s(reason) or 0.0)

    async def call(self, call: Call) -> Reply:
        """Raises: the sidecar's typed errors; Unavailable, OutcomeUnknown, Denied, Broken."""
        try:
            with self.admitted():
                reply = await self._repeated(call)
                self.answered()
                return reply
        except _SourceFailed as failed:
            raise failed.error from None

    async def _repeated(self, call: Call) -> Reply:
        repeats = self.repeats(total_s=call.total_s + (0 if call.deadline_s is not None else self._more_s))
        seen = False
        while True:
            try:
                return await self._attempt(call, left_s=repeats.until - self._clock())
            except (NotSent, Unavailable) as error:
                reason: Exception = error
            except LimitExceeded as error:
                if asked_wait_s(error) is None:
                    raise
                reason = error
            except (CutOff, OutcomeUnknown) as error:
                reason = error
                if call.body is not None and call.body.failure is not None:
                    raise _SourceFailed(call.body.failure) from None
                seen = seen or call.body is None or not call.body.incomplete
                if not call.repeatable:
                    break
            wait_s = self.wait_s(repeats, reason)
            if wait_s is None or not (call.body is None or call.body.can_be_sent_again):
                break
            await self._sleep(wait_s)
            if self._clock() >= repeats.until:
                break
        raise self._failure(call, reason, seen=seen) from reason

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, QueryValue], *, accept: str
    ) -> AsyncGenerator[aiohttp.StreamReader]:
        """As ``response``, for those who only read."""
        async with self.response(path, query, accept=accept) as response:
            yield response.content

    @asynccontextmanager
    async def response(
        self, path: str, query: Mapping[str, QueryValue], *, accept: str
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """One attempt at an endless answer. Raises: NotSent, CutOff, the sidecar's typed errors, Broken."""
        session = self._open()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._silence_s)
        with _Translated():
            async with session.get(
                self._url(path, query), headers={"Accept": accept}, timeout=timeout, allow_redirects=False
            ) as response:
                async with asyncio.timeout(ANSWER_S + self._more_s):
                    await self._check_status(response)
                yield response

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Mapping[str, QueryValue], *, limit_bytes: int, protocol: str | None = None
    ) -> AsyncGenerator["WebSocket"]:
        """One connection; no message may be larger than ``limit_bytes``. Raises: as ``stream``."""
        session = self._open()
        with _Translated():
            async with (
                asyncio.timeout(CONNECT_S + ANSWER_S) as opening,
                session.ws_connect(
                    self._url(path, query),
                    protocols=() if protocol is None else (protocol,),
                    autoclose=False,
                    heartbeat=PING_S,
                    max_msg_size=limit_bytes,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),  # pyright: ignore[reportCallIssue] - attrs
                ) as socket,
            ):
                opening.reschedule(None)
                yield WebSocket(socket)

    @property
    def _mend(self) -> str:
        if isinstance(self._endpoint, UrlEndpoint):
            return f"See that it runs and that its address is right: {self._endpoint.url.partition('/v1')[0]}"
        return "Attach to the workspace again."

    def _failure(self, call: Call, reason: Exception, *, seen: bool) -> ShadowError:
        if seen and call.mutates:
            if isinstance(reason, OutcomeUnknown):
                return reason
            operation = call.headers.get("Shadow-Operation")
            return OutcomeUnknown(
                f"The {self._peer} did not answer whether it was done: {reason}.",
                mend="Look before you repeat it; with the same operation id a repeat is answered with the first result."
                if operation
                else "Look before you repeat it.",
                details={"operation": operation} if operation else None,
            )
        if isinstance(reason, Unavailable | LimitExceeded):
            return reason
        return Unavailable(f"The {self._peer} cannot be reached: {reason}.", mend=self._mend)

    def _not_now(self) -> Unavailable:
        status = self.breaker
        when = "a call is trying it now" if status.retry_in_s is None else f"next try in {status.retry_in_s:.0f} s"
        return Unavailable(
            f"The {self._peer} did not answer {status.failures} calls in a row; {when}. This call was not sent.",
            mend="Wait so long and call again.",
            details=_told(status),
        )

    async def _attempt(self, call: Call, *, left_s: float) -> Reply:
        session = self._open()
        url = self._url(call.path, call.query)
        headers: Mapping[str, str] = call.headers
        answer_s = call.answer_s + self._more_s
        with _Translated():
            async with asyncio.timeout(min(answer_s, left_s)) as deadline:
                data: object = None
                body = call.body
                if isinstance(body, BytesBody) and body.length <= SLICE_BYTES:
                    data = body.data
                elif body is not None:
                    data = body.pieces(deadline, answer_s=answer_s, left_s=left_s)
                    if body.length is not None:
                        headers = {**headers, "Content-Length": str(body.length)}
                # Given up before the whole is: what was never connected was not sent.
                connect = aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_S, 0.9 * left_s))
                async with session.request(
                    call.method, url, data=data, headers=headers, timeout=connect, allow_redirects=False
                ) as response:
                    await self._check_status(response)
                    answer = await read_body(response, limit_bytes=call.limit_bytes)
                    return Reply(response.headers, answer)

    async def _check_status(self, response: aiohttp.ClientResponse) -> None:
        """Raises: what an answer says that is no success."""
        if response.status in (200, 201):
            return
        if response.status == BAD_GATEWAY:
            raise CutOff("a proxy before it got no answer")
        if response.status < 400:
            raise Broken(f"The {self._peer} answered with HTTP status {response.status}, which is never followed.")
        error = await read_refusal(response, peer=self._peer.rpartition(" ")[2])
        if not isinstance(error, Unavailable | OutcomeUnknown | Broken):
            self.answered()
        raise error

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
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
                middlewares=(_once,),
            )
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if not isinstance(self._endpoint, UnixEndpoint):
            trusted = self._endpoint.tls if isinstance(self._endpoint, UrlEndpoint) else None
            return aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S, ssl=True if trusted is None else trusted
            )
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
        url = self._root + path.removeprefix("/v1")
        return URL(f"{url}?{text}" if text else url, encoded=True)


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

    async def receive_text(self) -> str | None:
        """The next text; ``None``: the other side has said all that it will. Raises: CutOff."""
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return message.data
        if message.type is aiohttp.WSMsgType.CLOSE and message.data == aiohttp.WSCloseCode.OK:
            return None
        raise CutOff(f"the connection was closed ({self._socket.close_code})")

    async def send(self, message: bytes) -> None:
        """Raises: CutOff."""
        with _Translated():
            await self._socket.send_bytes(message)


_NO_HANDSHAKE: Mapping[int, type[ShadowError]] = {
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


class _Translated:
    """Turns what aiohttp raises into ``NotSent``, ``CutOff`` and typed errors. Holds nothing: safe around a ``yield``."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        match error:
            case aiohttp.ClientConnectorCertificateError():
                raise untrusted(error.certificate_error, error.host) from error
            case aiohttp.ClientConnectorError() if is_no_tls(error.os_error):
                raise no_tls(error.host, error.port) from error
            case aiohttp.ClientConnectorError() if isinstance(error.os_error, PermissionError):
                raise Denied(f"The sidecar's socket may not be opened: {error.os_error.strerror}.") from error
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                raise NotSent(str(error)) from error
            case TimeoutError():
                raise CutOff("no answer in time") from error
            case aiohttp.WSServerHandshakeError() if error.status in _NO_HANDSHAKE:
                raise _NO_HANDSHAKE[error.status](
                    f"The connection was refused (HTTP status {error.status})."
                ) from error
            case aiohttp.ClientResponseError():
                raise Broken("The answer is not HTTP that we understand.") from error
            case aiohttp.ClientError() | OSError():
                raise CutOff(f"the connection broke ({type(error).__name__})") from error
            case _:
                return


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from repeating what was cut by itself, at once and uncounted."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise CutOff(f"the connection broke ({type(error).__name__})") from error


def _told(status: BreakerStatus) -> dict[str, object]:
    return {
        "breaker": status.state.value,
        "failures": status.failures,
        "retry_in_s": None if status.retry_in_s is None else round(status.retry_in_s, 1),
    }
