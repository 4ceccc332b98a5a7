"""What handlers read from a request: typed query parameters, bounded bodies, the operation. Faults are typed errors."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, HTTPConnection, Request

from shadow.core.errors import LimitExceeded, NotFound, Rejected, Unavailable
from shadow.core.ids import CommandId, Operation, OperationId, is_id, make_id
from shadow.sidecar.admission import SidecarLimits
from shadow.wire.message import M, parse_query, parse_request

MAX_QUERY_FIELDS = 50
SLOW_BODY = "slow_body"
MAX_EPOCH = 2**63 - 1

Entropy = Callable[[int], bytes]


def read_query(request: HTTPConnection, kind: type[M]) -> M:
    """Percent-encoded bytes that are not UTF-8 come as ``surrogateescape``. Raises: Rejected."""
    raw = request.scope["query_string"].decode("ascii", "surrogateescape")
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise Rejected("The query string cannot be understood.") from error
    return parse_query(kind, dict(pairs))


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
    limits: SidecarLimits = request.app.limits
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


def command_id(request: Request) -> CommandId:
    text = request.path_params["command_id"]
    if not is_id(text):
        raise NotFound("There is no such command.")
    return CommandId(text)


class Operations:
    """Reads the operation of a mutating call from its headers."""

    def __init__(self, epoch: int, *, entropy: Entropy = os.urandom) -> None:
        self._newest = epoch
        self._entropy = entropy

    def of(self, request: Request) -> Operation:
        """What the caller left out is made up: a fresh id, the newest epoch that was seen."""
        id_ = request.headers.get("shadow-operation")
        epoch = request.headers.get("shadow-epoch")
        if id_ is not None and not is_id(id_):
            raise Rejected("Shadow-Operation must be an id: a-z, 0-9, _ and -, at most 64 characters.")
        number = integer(epoch, what="Shadow-Epoch") if epoch is not None else self._newest
        if not 0 <= number <= MAX_EPOCH:
            raise Rejected(f"Shadow-Epoch must lie between 0 and {MAX_EPOCH}.")
        self._newest = max(self._newest, number)
        return Operation(
            id=OperationId(id_ if id_ is not None else make_id("op", entropy=self._entropy(16))), epoch=number
        )
