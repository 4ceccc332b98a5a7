"""One call to a server: a message there, a message back, or the typed error that the server tells."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from shadow.core.errors import OutcomeUnknown
from shadow.core.ids import make_id
from shadow.execution.sidecar_client.bodies import BytesBody
from shadow.execution.sidecar_client.transport import MAX_ANSWER_BYTES, Call, QueryValue, Transport
from shadow.wire.message import Message, parse_answer

M = TypeVar("M", bound=Message)


class Caller:
    """What only reads is repeated where no answer came, and so is what creates, under an idempotency key. What else changes
    something is sent again only if it surely never arrived; else it is ``OutcomeUnknown``: look before you repeat it."""

    def __init__(self, transport: Transport, *, entropy: Callable[[int], bytes]) -> None:
        self.transport = transport
        self._entropy = entropy

    async def ask(self, kind: type[M], path: str, query: Mapping[str, QueryValue] | None = None) -> M:
        call = Call(method="GET", path=path, query=query or {}, limit_bytes=MAX_ANSWER_BYTES)
        return parse_answer(kind, (await self.transport.call(call)).body)

    async def ask_raw(self, path: str, query: Mapping[str, QueryValue]) -> bytes:
        call = Call(method="GET", path=path, query=query, limit_bytes=MAX_ANSWER_BYTES)
        return (await self.transport.call(call)).body

    async def tell(
        self,
        method: str,
        path: str,
        message: Message | None = None,
        *,
        repeatable: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """``repeatable``: whether it does the same when it is done twice."""
        of_body = {"Content-Type": "application/json"} if message is not None else {}
        call = Call(
            method=method,
            path=path,
            headers={**of_body, **(headers or {})},
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

    async def create(self, kind: type[M], path: str, message: Message, *, key: str | None = None) -> M:
        """Once, however often it is sent. ``key``: an idempotency key of the caller's own, for a repeat of what ended as
        OutcomeUnknown; that error's ``details["idempotency_key"]`` has the one that was used."""
        key = key or make_id("key", entropy=self._entropy(16))
        try:
            body = await self.tell("POST", path, message, repeatable=True, headers={"Idempotency-Key": key})
        except OutcomeUnknown as error:
            error.details["idempotency_key"] = key
            raise
        return parse_answer(kind, body)
