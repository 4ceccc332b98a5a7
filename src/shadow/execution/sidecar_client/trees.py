"""Whole trees through a sidecar: tar streams are passed on as they are and never looked into.

What comes down was made inside the workspace: whoever unpacks it must treat it as hostile. All that is checked here is that
the stream came to its end, and its size.
"""

from collections.abc import AsyncGenerator, AsyncIterable

from shadow.core.errors import Broken, Unavailable
from shadow.core.ids import Operation
from shadow.core.trees import MAX_TREE_BYTES, TreeReceipt
from shadow.execution.sidecar_client.bodies import StreamBody
from shadow.execution.sidecar_client.sender import Sender
from shadow.execution.sidecar_client.transport import CutOff, NotSent
from shadow.wire.message import parse_answer, to_core
from shadow.wire.trees import MEDIA_TYPE, TreeReceiptMessage

BEGIN_S = 30.0
"""How long a stream may take to begin, with repeats."""
BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)


class TreesClient(Sender):
    """The tree methods of ``ToolExecutor``."""

    async def download_tree(self, path: str = ".") -> AsyncGenerator[bytes]:
        """Raises: Unavailable: the stream was cut; it cannot be resumed, for the tree may have changed since."""
        received, tail = 0, b""
        transport = self.transport
        repeats = transport.repeats(total_s=BEGIN_S)
        with transport.admitted():
            while True:
                try:
                    async with transport.stream("/v1/tree", {"path": path}, accept=MEDIA_TYPE) as content:
                        while part := await content.readany():
                            transport.answered()
                            received += len(part)
                            if received > MAX_TREE_BYTES:
                                raise Broken(f"The sidecar sent a tree of more than {MAX_TREE_BYTES} bytes.")
                            tail = (tail + part[-len(END) :])[-len(END) :]
                            yield part
                    _check_end(received, tail)
                    return  # noqa: TRY300 - a stream that began is not begun again
                except (NotSent, CutOff, Unavailable) as error:
                    wait_s = transport.wait_s(repeats, error) if received == 0 else None
                    if wait_s is None:
                        if isinstance(error, Unavailable):
                            raise
                        raise Unavailable(
                            f"The tree {path!a} broke off after {received} bytes: {error}.",
                            mend="Take nothing of it for whole, and begin anew.",
                            details={"received_bytes": received},
                        ) from error
                await self.sleep(wait_s)

    async def upload_tree(
        self, path: str, tar: AsyncIterable[bytes], *, operation: Operation | None = None
    ) -> TreeReceipt:
        reply = await self.send(
            "PUT", "/v1/tree", query={"path": path}, body=StreamBody(tar), operation=self.operation(operation)
        )
        return to_core(parse_answer(TreeReceiptMessage, reply.body), TreeReceipt)


def _check_end(received: int, tail: bytes) -> None:
    if tail != END or received % BLOCK_BYTES:
        raise Broken("The sidecar ended a tree before its end.", mend="Take nothing of it for whole.")
