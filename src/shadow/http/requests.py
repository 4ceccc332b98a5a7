"""What handlers read from a request: typed query parameters, bounded bodies. Faults are typed errors."""

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import Scope

from shadow.core.errors import LimitExceeded, Rejected, Unavailable
from shadow.http.admission import HttpLimits
from shadow.wire.message import M, parse_query, parse_request

MAX_QUERY_FIELDS = 50
SLOW_BODY = "slow_body"
REQUEST_ID = "shadow.request_id"
"""Where a request's scope has what the service calls it, where it does."""

Entropy = Callable[[int], bytes]


def read_query(request: HTTPConnection, kind: type[M]) -> M:
    """Percent-encoded bytes that are not UTF-8 come as ``surrogateescape``. Raises: Rejected."""
    return parse_query(kind, dict(query_pairs(request.scope)))


def query_pairs(scope: Scope) -> list[tuple[str, str]]:
    """Raises: Rejected."""
    raw = scope["query_string"].decode("ascii", "surrogateescape")
    try:
        return parse_qsl(raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise Rejected("The query string cannot be understood.") from error


def integer(text: str, *, what: str) -> int:
    if len(text) <= 20 and text.isascii() and text.removeprefix("-").isdecimal():
        return int(text)
    raise Rejected(f"{what} must be a whole number.")


def content_length(request: Request) -> int | None:
    value = request.headers.get("content-length")
    return integer(value, what="Content-Length") if value is not None else None


async def read_body(request: Request, *, limit_bytes: int) -> bytes:
    """Raises: LimitExceeded; Unavailable where the client went away, since nothing was done."""
    announced = content_length(request)
    if announced is not None and announced > limit_bytes:
        raise LimitExceeded(f"The body has {announced} bytes; at most {limit_bytes} are taken here.")
    parts: list[bytes] = []
    size = 0
    async for part in stream_body(request):
        size += len(part)
        if size > limit_bytes:
            raise LimitExceeded(f"The body has more than {limit_bytes} bytes.")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def stream_body(request: Request) -> AsyncIterator[bytes]:
    """Raises: Unavailable: the body broke off, or kept us waiting for longer than its size explains."""
    limits: HttpLimits = request.app.limits
    loop = asyncio.get_running_loop()
    patience_s = limits.body_pause_s
    parts = request.stream()
    try:
        while True:
            asked_at = loop.time()
            async with asyncio.timeout(patience_s):
                part = await anext(parts, None)
            if part is None:
                return
            # Only waiting for the client counts: whoever takes the body may be slow itself.
            patience_s += len(part) / limits.body_bytes_per_s - (loop.time() - asked_at)
            patience_s = min(patience_s, limits.body_pause_s)
            if part:
                yield part
    except ClientDisconnect as error:
        raise Unavailable("The request's body broke off.") from error
    except TimeoutError as error:
        raise Unavailable("The request's body came too slowly.", details={"reason": SLOW_BODY}) from error


async def read_message(request: Request, kind: type[M]) -> M:
    return parse_request(kind, await read_body(request, limit_bytes=kind.body_limit_bytes))
