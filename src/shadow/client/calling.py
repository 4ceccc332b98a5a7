"""One call to a server: a message there, a message back, or the typed error that the server tells."""

from collections.abc import Mapping
from typing import TypeVar

from shadow.execution.sidecar_client.bodies import BytesBody
from shadow.execution.sidecar_client.transport import MAX_ANSWER_BYTES, Call, QueryValue, Transport
from shadow.wire.message import Message, parse_answer

M = TypeVar("M", bound=Message)


class Caller:
    """What only reads is repeated where no answer came. What changes something is sent again only if it surely never arrived;
    else it is ``OutcomeUnknown``: look before you repeat it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def ask(self, kind: type[M], path: str, query: Mapping[str, QueryValue] | None = None) -> M:
        call = Call(method="GET", path=path, query=query or {}, limit_bytes=MAX_ANSWER_BYTES)
        return parse_answer(kind, (await self.transport.call(call)).body)

    async def ask_raw(self, path: str, query: Mapping[str, QueryValue]) -> bytes:
        call = Call(method="GET", path=path, query=query, limit_bytes=MAX_ANSWER_BYTES)
        return (await self.transport.call(call)).body

    async def tell(self, method: str, path: str, message: Message | None = None, *, repeatable: bool = False) -> bytes:
        """``repeatable``: whether it does the same when it is done twice."""
        call = Call(
            method=method,
            path=path,
            headers={"Content-Type": "application/json"} if message is not None else {},
            body=BytesBody(message.json_bytes()) if message is not None else None,
            mutates=True,
            repeatable=repeatable,
            limit_bytes=MAX_ANSWER_BYTES,
        )
        return (await self.transport.call(call)).body

    async def change(
        self, kind: type[M], method: str, path: str, message: Message | None = None, *, repeatable: bool = False
    ) -> M:
        return parse_answer(kind, await self.tell(method, path, message, repeatable=repeatable))
