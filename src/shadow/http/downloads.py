"""Files of this host as downloads: in pieces, with a tag, in whole or from where a reader was cut off."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from typing import BinaryIO

from starlette.requests import Request

from shadow.http.holds import Holds
from shadow.http.ranges import UnsatisfiableRange, range_of
from shadow.http.responses import PARTIAL_CONTENT, SLICE_BYTES, Answer, ByteStream, NotModified, error_answer
from shadow.wire.versions import etag, matches

RANGE_NOT_SATISFIABLE = 416
TAKES = {
    "Range": "`bytes=FROM-TO`: only these, with 206.",
    "If-Range": "The `ETag` that the range is of; with another one there, all is sent.",
    "If-None-Match": "`ETag`s that the caller has: with one of them there, the answer is 304 without a body.",
}
"""Headers of a request."""
TELLS = {
    "ETag": "What it is, until it is something else.",
    "Content-Disposition": "`attachment`, and a name for it.",
    "Accept-Ranges": "`bytes`.",
}
"""Headers of an answer."""


def download(
    request: Request,
    file: BinaryIO,
    holds: Holds,
    *,
    name: str,
    media_type: bytes,
    version: str,
    headers: Mapping[bytes, bytes],
) -> Answer | ByteStream | NotModified:
    """``file``: one that is never changed in place; closed in any case. ``name``: safe between quotes. ``headers``: further."""
    size = os.fstat(file.fileno()).st_size
    told = {
        **headers,
        b"etag": etag(version),
        b"accept-ranges": b"bytes",
        b"content-disposition": f'attachment; filename="{name}"'.encode(),
    }
    if matches(request.headers.get("if-none-match"), version):
        file.close()
        return NotModified({b"etag": told[b"etag"]})
    still = request.headers.get("if-range")
    wanted = (
        request.headers.get("range") if still is None or still.encode("latin-1", "replace") == told[b"etag"] else None
    )
    try:
        part = range_of(wanted, size_bytes=size)
    except UnsatisfiableRange as error:
        file.close()
        return error_answer(error, status=RANGE_NOT_SATISFIABLE, headers={b"content-range": b"bytes */%d" % size})
    start, end = part or (0, size)
    told[b"content-length"] = b"%d" % (end - start)
    if part is not None:
        told[b"content-range"] = b"bytes %d-%d/%d" % (start, end - 1, size)
    return ByteStream(
        _pieces(file, start, end),
        holds,
        status=200 if part is None else PARTIAL_CONTENT,
        media_type=media_type,
        headers=told,
    )


async def _pieces(file: BinaryIO, at: int, end: int) -> AsyncGenerator[bytes]:
    with file:
        await asyncio.to_thread(file.seek, at)
        while at < end:
            piece = await asyncio.to_thread(file.read, min(SLICE_BYTES, end - at))
            if not piece:
                return
            at += len(piece)
            yield piece
