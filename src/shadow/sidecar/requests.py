"""What handlers read from a request: typed query parameters, bounded bodies, the operation. Faults are typed errors."""

import os
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, HTTPConnection, Request

from shadow.core.errors import LimitExceeded, NotFound, Rejected, Unavailable
from shadow.core.ids import CommandId, Operation, OperationId, is_id, make_id
from shadow.wire.message import M, parse_request

MAX_JSON_BYTES = 32 * 1024 * 1024
MAX_EPOCH = 2**63 - 1

Entropy = Callable[[int], bytes]


class Query:
    """The parameters of a query string; percent-encoded bytes that are not UTF-8 come as ``surrogateescape``."""

    def __init__(self, request: HTTPConnection) -> None:
        raw = request.scope["query_string"].decode("ascii", "surrogateescape")
        try:
            pairs = parse_qsl(raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=50)
        except ValueError as error:
            raise Rejected("The query string cannot be understood.") from error
        self._values = dict(pairs)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name, default)
        if value is None:
            raise Rejected(f"The query parameter {name!r} is missing.")
        return value

    def optional(self, name: str) -> str | None:
        return self._values.get(name)

    def integer(self, name: str, default: int, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
        value = self.optional_integer(name, minimum=minimum, maximum=maximum)
        return default if value is None else value

    def optional_integer(self, name: str, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        number = integer(value, what=f"The query parameter {name!r}")
        if not minimum <= number <= maximum:
            raise Rejected(f"The query parameter {name!r} must lie between {minimum} and {maximum}, not {number}.")
        return number

    def seconds(self, name: str, *, maximum: float) -> float | None:
        """Longer waits are cut to ``maximum``: whoever asks asks again."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError as error:
            raise Rejected(f"The query parameter {name!r} must be a number of seconds.") from error
        if not number >= 0:
            raise Rejected(f"The query parameter {name!r} must be 0 or more.")
        return min(number, maximum)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if value not in ("0", "1", "true", "false", ""):
            raise Rejected(f"The query parameter {name!r} must be true or false.")
        return value in ("1", "true", "")


def integer(text: str, *, what: str, base: int = 10) -> int:
    if len(text) <= 20 and text.isascii() and text.removeprefix("-").isdecimal():
        try:
            return int(text, base)
        except ValueError:
            pass  # a digit that the base does not have
    raise Rejected(f"{what} must be a whole number{' in octal' if base == 8 else ''}.")


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
    """Raises: Unavailable: the body broke off."""
    try:
        async for part in request.stream():
            if part:
                yield part
    except ClientDisconnect as error:
        raise Unavailable("The request's body broke off.") from error


async def read_message(request: Request, kind: type[M]) -> M:
    return parse_request(kind, await read_body(request, limit_bytes=MAX_JSON_BYTES))


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
