"""Files that a server keeps, in pieces as they come."""

from collections.abc import AsyncGenerator

from shadow.core.errors import Unavailable
from shadow.execution.sidecar_client.transport import CutOff, NotSent, Transport


async def download(transport: Transport, path: str) -> AsyncGenerator[bytes]:
    """Raises: what the server tells; Unavailable: it cannot be reached, or broke off."""
    received = 0
    with transport.admitted():
        try:
            async with transport.response(path, {}, accept="*/*") as response:
                while part := await response.content.readany():
                    transport.answered()
                    received += len(part)
                    yield part
            transport.answered()
        except (NotSent, CutOff) as error:
            raise Unavailable(
                f"The server broke off after {received} bytes: {error}.", mend="Ask for it again."
            ) from error
