"""Errors on the wire, and the one table between their codes and HTTP statuses."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import Field, ValidationError

from shadow.core.errors import (
    Broken,
    Changed,
    Conflict,
    Denied,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Rejected,
    ShadowError,
    Unauthenticated,
    Unavailable,
    Unsupported,
    error_from_code,
    type_by_code,
)
from shadow.wire.message import Message

PROBLEM = b"application/problem+json"
MAX_MESSAGE_CHARS = 16 * 1024

status_by_class: Mapping[type[ShadowError], int] = {
    NotFound: 404,
    Conflict: 409,
    Changed: 412,
    Rejected: 422,
    Denied: 403,
    Unauthenticated: 401,
    LimitExceeded: 413,
    Unsupported: 501,
    Unavailable: 503,
    OutcomeUnknown: 504,
    Broken: 500,
    ShadowError: 500,
}
"""An error has the status of its nearest class in the tree. Statuses alone tell these classes; codes tell all."""


def status_of(error: ShadowError) -> int:
    return next(status_by_class[base] for base in type(error).__mro__ if base in status_by_class)


class ErrorBody(Message):
    code: str = Field(max_length=100)
    message: str
    mend: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class ErrorMessage(Message):
    """As RFC 9457 has it, with ``error`` as its extension: what our own clients read."""

    type: str = "about:blank"
    """``urn:shadow:error:`` and the code."""
    title: str = ""
    """The code in words."""
    status: int = 500
    detail: str = ""
    """As ``error.message``, with the mend."""
    request_id: str | None = None
    """What the server's log, its record and its traces call the request, as the header `X-Request-Id` says it too."""
    error: ErrorBody


def _clean(value: object) -> object:
    """Strings that are not Unicode (paths may be) are escaped: any JSON parser must be able to read an error."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {str(_clean(str(k))): _clean(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in cast("list[object]", value)]
    return value if value is None or isinstance(value, bool | int | float) else _clean(repr(value))


def encode_error(error: ShadowError, *, status: int | None = None, request_id: str | None = None) -> bytes:
    """``status``: where the error's own says less."""
    body = _clean({"code": error.code, "message": error.message, "mend": error.mend, "details": error.details})
    return ErrorMessage(
        type=f"urn:shadow:error:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=status or status_of(error),
        detail=str(_clean(str(error))),
        request_id=request_id,
        error=ErrorBody.model_validate(body),
    ).json_bytes()


def decode_error(body: bytes, *, status: int | None = None, peer: str = "sidecar") -> ShadowError:
    """The error that a peer described; by its status alone where the body says nothing that can be understood."""
    try:
        told = ErrorMessage.model_validate_json(body).error
    except ValidationError:
        told = None
    if status == status_by_class[Unauthenticated] and (told is None or told.code != Unauthenticated.code):
        mend = "Attach to the workspace again." if peer == "sidecar" else "What answered may be a proxy before it."
        return Unauthenticated(f"The {peer} does not accept the token.", mend=mend)
    if told is not None and told.code in type_by_code:
        mend = told.mend[:MAX_MESSAGE_CHARS] if told.mend else None
        return error_from_code(told.code, told.message[:MAX_MESSAGE_CHARS], mend=mend, details=told.details)
    known = {number: kind for kind, number in status_by_class.items() if kind is not ShadowError}
    if status in known:
        message = (
            told.message[:MAX_MESSAGE_CHARS]
            if told
            else f"The {peer} answered with HTTP status {status} and no reason."
        )
        return known[status](message)
    return Broken(f"The {peer} answered with an error that cannot be understood (HTTP status {status}).")
