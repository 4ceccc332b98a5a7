"""Streaming a file's content: resumed by offset after a cut, as long as the file is still the same version."""

from collections.abc import AsyncGenerator

from shadow.core.errors import Broken, Conflict, LimitExceeded, Unavailable
from shadow.execution.sidecar_client.answers import asked_wait_s
from shadow.execution.sidecar_client.transport import CutOff, NotSent, Sleep, Transport
from shadow.wire.versions import version_of

RESUME_S = 30.0
"""How long a reader tries to resume, counted anew with each byte that comes."""


async def stream_file(
    transport: Transport, path: str, *, offset: int, limit_bytes: int | None, sleep: Sleep
) -> AsyncGenerator[bytes]:
    """Raises: Unavailable: it broke off and could not be resumed; Conflict: the file was changed meanwhile."""
    received = 0
    version = ""
    repeats = transport.repeats(total_s=RESUME_S)
    with transport.admitted():
        while True:
            left = None if limit_bytes is None else limit_bytes - received
            query = {"path": path, "offset": offset + received, "limit_bytes": left}
            try:
                async with transport.response("/v1/files", query, accept="application/octet-stream") as response:
                    found = version_of(response.headers.get("ETag"))
                    if received and found != version:
                        raise Conflict(
                            f"{path!a} was changed while it was read; {received} bytes came.", mend="Read it again."
                        )
                    version = found
                    while part := await response.content.readany():
                        transport.answered()
                        repeats = transport.repeats(total_s=RESUME_S)
                        received += len(part)
                        if limit_bytes is not None and received > limit_bytes:
                            raise Broken("The sidecar sent more of the file than was asked for.")
                        yield part
                    transport.answered()
                    return
            except (NotSent, CutOff, Unavailable, LimitExceeded) as error:
                if isinstance(error, LimitExceeded) and asked_wait_s(error) is None:
                    raise
                # Without a version, going on from an offset could mix two of them.
                can_resume = received == 0 or version
                wait_s = transport.wait_s(repeats, error) if can_resume else None
                if wait_s is None:
                    if isinstance(error, Unavailable | LimitExceeded):
                        raise
                    raise Unavailable(
                        f"Reading {path!a} broke off after {received} bytes: {error}.",
                        mend="Read it again from there.",
                        details={"offset": offset + received},
                    ) from error
            await sleep(wait_s)
