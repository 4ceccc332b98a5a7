"""Reading what a sidecar answers: bounded, and a refusal as the typed error that it means."""

import aiohttp

from shadow.core.errors import Broken, LimitExceeded, ShadowError, Unavailable
from shadow.wire.errors import decode_error

TOO_MANY_REQUESTS = 429
MAX_ERROR_BYTES = 4 * 1024 * 1024


async def read_refusal(response: aiohttp.ClientResponse, *, peer: str = "sidecar") -> ShadowError:
    """What an answer with an error status says; ``details["retry_after_s"]`` where it was not done and may be repeated."""
    body = await read_body(response, limit_bytes=MAX_ERROR_BYTES)
    error = decode_error(body, status=response.status, peer=peer)
    if response.status == TOO_MANY_REQUESTS and not isinstance(error, LimitExceeded):
        error = LimitExceeded(f"The {peer} gets more requests than it takes.", mend="Call again later, or less often.")
    asked_s = _seconds(response.headers.get("Retry-After", ""))
    if response.status == TOO_MANY_REQUESTS or (asked_s is not None and isinstance(error, Unavailable)):
        error.details["retry_after_s"] = asked_s or 0.0
    else:
        error.details.pop("retry_after_s", None)
    if isinstance(error, Broken):
        error.details["status"] = response.status
    return error


def asked_wait_s(error: Exception) -> float | None:
    """How long the sidecar asked to wait before a repeat of what it did not do."""
    asked_s = error.details.get("retry_after_s") if isinstance(error, ShadowError) else None
    return asked_s if isinstance(asked_s, float) else None


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


async def read_body(response: aiohttp.ClientResponse, *, limit_bytes: int) -> bytes:
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
