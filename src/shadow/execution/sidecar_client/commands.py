"""Commands through a sidecar: one call each, waits in slices, output resumed."""

from collections.abc import AsyncIterator, Sequence

from shadow.core.commands import Command, CommandResult, CommandSpec, Gap, Output, check_spec
from shadow.core.errors import Broken, NotFound
from shadow.core.ids import CommandId, Operation, is_id
from shadow.execution.excerpts import read_excerpt
from shadow.execution.sidecar_client.bodies import BytesBody
from shadow.execution.sidecar_client.output import read_output
from shadow.execution.sidecar_client.sender import Sender
from shadow.execution.sidecar_client.transport import ANSWER_S, MAX_ANSWER_BYTES, QueryValue
from shadow.wire.commands import (
    CommandListMessage,
    CommandMessage,
    CommandResultMessage,
    CommandSpecMessage,
    KillMessage,
    SignalMessage,
    StdinMessage,
)
from shadow.wire.message import outgoing, parse_answer, to_core

WAIT_SLICE_S = 30.0
"""A longer wait is several calls: a dead connection is noticed, and a sidecar never holds one for long."""
MAX_OUTPUT_IN_ANSWER_BYTES = 16 * 1024 * 1024
STDIN_SLICE_BYTES = 4 * 1024 * 1024
STDIN_WITHOUT_OFFSET_S = 3600.0


class CommandsClient(Sender):
    """The command methods of ``ToolExecutor``."""

    async def start(self, spec: CommandSpec, *, operation: Operation | None = None) -> Command:
        body = outgoing(CommandSpecMessage, _checked(spec))
        reply = await self.send("POST", "/v1/commands", message=body, operation=self.operation(operation))
        return to_core(parse_answer(CommandMessage, reply.body), Command)

    async def run(
        self,
        spec: CommandSpec,
        *,
        wait_s: float | None = None,
        output_limit_bytes: int = 1024 * 1024,
        operation: Operation | None = None,
    ) -> CommandResult:
        until = None if wait_s is None else self.clock() + wait_s
        if output_limit_bytes > MAX_OUTPUT_IN_ANSWER_BYTES:
            command = await self.start(spec, operation=operation)
        else:
            result = await self._run_slice(spec, self._slice(until), output_limit_bytes, self.operation(operation))
            command = result.command
            if command.ending is not None or self._slice(until) <= 0:
                return result
        command = await self._wait(command.id, until)
        return await read_excerpt(self, command, limit_bytes=output_limit_bytes)

    async def _run_slice(
        self, spec: CommandSpec, wait_s: float, output_limit_bytes: int, operation: Operation
    ) -> CommandResult:
        reply = await self.send(
            "POST",
            "/v1/commands",
            query={"wait_s": wait_s, "output_limit_bytes": output_limit_bytes},
            message=outgoing(CommandSpecMessage, _checked(spec)),
            operation=operation,
            answer_s=ANSWER_S + wait_s,
            limit_bytes=MAX_ANSWER_BYTES + 2 * output_limit_bytes,
        )
        result = to_core(parse_answer(CommandResultMessage, reply.body), CommandResult)
        if sum(len(item.data) for item in result.output if isinstance(item, Output)) > output_limit_bytes:
            raise Broken("The sidecar sent more output than was asked for.")
        return result

    async def list_commands(self) -> Sequence[Command]:
        reply = await self.send("GET", "/v1/commands", limit_bytes=MAX_ANSWER_BYTES)
        return [to_core(message, Command) for message in parse_answer(CommandListMessage, reply.body).commands]

    async def get_command(self, command_id: CommandId) -> Command:
        reply = await self.send("GET", _path(command_id))
        return _same(command_id, reply.body)

    async def wait(self, command_id: CommandId, *, timeout_s: float | None = None) -> Command:
        return await self._wait(command_id, None if timeout_s is None else self.clock() + timeout_s)

    async def _wait(self, command_id: CommandId, until: float | None) -> Command:
        while True:
            wait_s = self._slice(until)
            reply = await self.send(
                "GET", _path(command_id, "wait"), query={"timeout_s": wait_s}, answer_s=ANSWER_S + wait_s
            )
            command = _same(command_id, reply.body)
            if command.ending is not None or self._slice(until) <= 0:
                return command

    def read_output(self, command_id: CommandId, *, after: int = 0, follow: bool = True) -> AsyncIterator[Output | Gap]:
        _path(command_id)
        return read_output(self.transport, command_id, after=after, follow=follow, clock=self.clock, sleep=self.sleep)

    async def write_stdin(
        self, command_id: CommandId, data: bytes, *, offset: int | None = None, close: bool = False
    ) -> int:
        position = 0
        while True:
            part = data[position : position + STDIN_SLICE_BYTES]
            last = position + len(part) == len(data)
            query: dict[str, QueryValue] = {"close": close and last}
            if offset is not None:
                query["offset"] = offset + position
            reply = await self.send(
                "POST",
                _path(command_id, "stdin"),
                query=query,
                body=BytesBody(part),
                mutates=True,
                # Without an offset a repeat would write twice: one call, which waits as long as the pipe is full.
                repeatable=offset is not None,
                answer_s=ANSWER_S if offset is not None else STDIN_WITHOUT_OFFSET_S,
            )
            answer = parse_answer(StdinMessage, reply.body)
            if answer.done:
                position += len(part)
            elif offset is not None and offset + position <= answer.accepted <= offset + len(data):
                position = answer.accepted - offset
            else:
                raise Broken("The sidecar accepted another number of bytes than were sent.")
            if answer.done and last:
                return answer.accepted

    async def signal(self, command_id: CommandId, signal: int, *, operation: Operation | None = None) -> Command:
        reply = await self.send(
            "POST",
            _path(command_id, "signal"),
            message=outgoing(SignalMessage, {"signal": signal}),
            operation=self.operation(operation),
        )
        return _same(command_id, reply.body)

    async def kill(self, command_id: CommandId, *, grace_s: float = 0.0, operation: Operation | None = None) -> Command:
        reply = await self.send(
            "POST",
            _path(command_id, "kill"),
            message=outgoing(KillMessage, {"grace_s": grace_s}),
            operation=self.operation(operation),
            answer_s=ANSWER_S + grace_s,
        )
        return _same(command_id, reply.body)

    def _slice(self, until: float | None) -> float:
        return WAIT_SLICE_S if until is None else max(0.0, min(WAIT_SLICE_S, until - self.clock()))


def _checked(spec: CommandSpec) -> CommandSpec:
    check_spec(spec)
    return spec


def _path(command_id: CommandId, rest: str | None = None) -> str:
    if not is_id(command_id):
        raise NotFound("There is no such command.")
    return f"/v1/commands/{command_id}/{rest}" if rest else f"/v1/commands/{command_id}"


def _same(command_id: CommandId, body: bytes) -> Command:
    command = to_core(parse_answer(CommandMessage, body), Command)
    if command.id != command_id:
        raise Broken("The sidecar answered about another command.")
    return command
