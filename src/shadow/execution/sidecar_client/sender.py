"""What the parts of the client share: how a call is made, which operation it carries, whose time it runs on."""

from collections.abc import Callable, Mapping

from shadow.core.ids import Operation, OperationId, make_id
from shadow.execution.interface import ToolExecutor
from shadow.execution.sidecar_client.bodies import Body, BytesBody
from shadow.execution.sidecar_client.transport import (
    ANSWER_S,
    MAX_SINGLE_BYTES,
    Call,
    QueryValue,
    Reply,
    Sleep,
    Transport,
)
from shadow.wire.message import Message
from shadow.wire.versions import if_match


class Sender(ToolExecutor):
    def __init__(
        self,
        transport: Transport,
        *,
        clock: Callable[[], float],
        sleep: Sleep,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.transport = transport
        self.clock = clock
        self.sleep = sleep
        self._entropy = entropy

    def operation(self, given: Operation | None) -> Operation:
        if given is not None:
            return given
        return Operation(id=OperationId(make_id("op", entropy=self._entropy(16))), epoch=self.epoch)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, QueryValue] | None = None,
        message: Message | None = None,
        body: Body | None = None,
        operation: Operation | None = None,
        expected: str | None = None,
        mutates: bool = False,
        repeatable: bool = True,
        answer_s: float = ANSWER_S,
        limit_bytes: int = MAX_SINGLE_BYTES,
    ) -> Reply:
        headers: dict[str, str] = {} if expected is None else {"If-Match": if_match(expected)}
        if operation is not None:
            headers["Shadow-Operation"] = operation.id
            headers["Shadow-Epoch"] = str(operation.epoch)
        if message is not None:
            headers["Content-Type"] = "application/json"
            body = BytesBody(message.json_bytes())
        return await self.transport.call(
            Call(
                method=method,
                path=path,
                query=query or {},
                headers=headers,
                body=body,
                mutates=mutates or operation is not None,
                repeatable=repeatable,
                answer_s=answer_s,
                limit_bytes=limit_bytes,
            )
        )
