"""The framing between holder and sidecar: a JSON object and raw bytes, each with its length. No I/O.

Requests are ``{"id": n, "op": name, …}``; each is answered once, in any order, by ``{"id": n, "ok": {…}}`` or
``{"id": n, "error": {"code", "message", "mend", "details"}}``.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, cast

from shadow.core.errors import LimitExceeded, ShadowError, error_from_code

MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_BLOB_BYTES = 1024 * 1024
_LENGTHS = struct.Struct("!II")


def encode(header: Mapping[str, Any], blob: bytes = b"") -> bytes:
    """Raises: LimitExceeded: the other side would not read it."""
    # ensure_ascii keeps surrogate escapes (names that are not UTF-8) as they are, both ways.
    body = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_HEADER_BYTES or len(blob) > MAX_BLOB_BYTES:
        raise LimitExceeded(f"One message to the holder or from it holds at most {MAX_HEADER_BYTES} bytes.")
    return _LENGTHS.pack(len(body), len(blob)) + body + blob


def error_to_json(error: ShadowError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "mend": error.mend, "details": error.details}


def error_from_json(value: Mapping[str, Any]) -> ShadowError:
    return error_from_code(value["code"], value["message"], mend=value["mend"], details=value["details"])


class Decoder:
    """Turns bytes as they arrive into messages. Raises ValueError on what no peer of ours sends."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        self._buffer += data
        while len(self._buffer) >= _LENGTHS.size:
            header_bytes, blob_bytes = _LENGTHS.unpack_from(self._buffer)
            if header_bytes > MAX_HEADER_BYTES or blob_bytes > MAX_BLOB_BYTES:
                raise ValueError(f"a message of {header_bytes} + {blob_bytes} bytes is too large")
            total = _LENGTHS.size + header_bytes + blob_bytes
            if len(self._buffer) < total:
                return
            header = _parse(self._buffer[_LENGTHS.size : _LENGTHS.size + header_bytes])
            blob = bytes(self._buffer[_LENGTHS.size + header_bytes : total])
            del self._buffer[:total]
            yield header, blob


def _parse(text: bytearray) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except RecursionError as error:
        raise ValueError("a header is nested too deep") from error
    if isinstance(header, dict):
        return cast("dict[str, Any]", header)
    raise ValueError("a header is no object")
