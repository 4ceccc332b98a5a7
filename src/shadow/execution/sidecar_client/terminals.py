"""Terminals through a sidecar: one call each; attaching is in ``attaching.py``."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import cast

from pydantic_core import from_json

from shadow.core.errors import Broken, NotFound, Unavailable
from shadow.core.ids import CommandId, Operation, TerminalId, is_id, is_terminal_id
from shadow.core.terminals import (
    DEFAULT_LAG_BYTES,
    DEFAULT_SCROLLBACK_LINES,
    Terminal,
    TerminalSize,
    TerminalSpec,
    check_size,
    check_terminal_spec,
)
from shadow.execution.interface import TerminalAttachment
from shadow.execution.sidecar_client.attaching import attach
from shadow.execution.sidecar_client.bodies import BytesBody
from shadow.execution.sidecar_client.sender import Sender
from shadow.execution.sidecar_client.transport import ANSWER_S, MAX_ANSWER_BYTES, CutOff, NotSent
from shadow.wire.commands import KillMessage, SignalMessage
from shadow.wire.message import outgoing, parse_answer, to_core
from shadow.wire.terminal_frames import INPUT_WINDOW_BYTES
from shadow.wire.terminals import (
    TerminalListMessage,
    TerminalMessage,
    TerminalSizeMessage,
    TerminalSpecMessage,
    TypedMessage,
)

RECORDING = "application/octet-stream"
MAX_RECORDING_BYTES = 64 * 1024 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024


class TerminalsClient(Sender):
    """The terminal methods of ``ToolExecutor``."""

    async def create_terminal(self, spec: TerminalSpec, *, operation: Operation | None = None) -> Terminal:
        check_terminal_spec(spec)
        message = outgoing(TerminalSpecMessage, spec)
        reply = await self.send("POST", "/v1/terminals", message=message, operation=self.operation(operation))
        return to_core(parse_answer(TerminalMessage, reply.body), Terminal)

    async def list_terminals(self) -> Sequence[Terminal]:
        reply = await self.send("GET", "/v1/terminals", limit_bytes=MAX_ANSWER_BYTES)
        return [to_core(message, Terminal) for message in parse_answer(TerminalListMessage, reply.body).terminals]

    async def get_terminal(self, terminal_id: TerminalId) -> Terminal:
        reply = await self.send("GET", _path(terminal_id))
        return _same(terminal_id, reply.body)

    def attach_terminal(
        self,
        terminal_id: TerminalId,
        *,
        after: int | None = 0,
        snapshots: bool = False,
        scrollback_lines: int = DEFAULT_SCROLLBACK_LINES,
        lag_bytes: int | None = DEFAULT_LAG_BYTES,
        read_only: bool = False,
    ) -> AbstractAsyncContextManager[TerminalAttachment]:
        return attach(
            self,
            terminal_id,
            path=_path(terminal_id, "attach"),
            after=after,
            snapshots=snapshots,
            scrollback_lines=scrollback_lines,
            lag_bytes=lag_bytes,
            read_only=read_only,
        )

    async def write_terminal(self, terminal_id: TerminalId, data: bytes, *, writer: str, offset: int) -> int:
        accepted = offset
        for start in range(0, max(1, len(data)), INPUT_WINDOW_BYTES):
            reply = await self.send(
                "POST",
                _path(terminal_id, "input"),
                query={"writer": writer, "offset": offset + start},
                body=BytesBody(data[start : start + INPUT_WINDOW_BYTES]),
                mutates=True,
            )
            accepted = parse_answer(TypedMessage, reply.body).accepted
        return accepted

    async def resize_terminal(
        self, terminal_id: TerminalId, size: TerminalSize, *, operation: Operation | None = None
    ) -> Terminal:
        check_size(size)
        return await self._ask_terminal(terminal_id, "resize", outgoing(TerminalSizeMessage, size), operation)

    async def signal_terminal(
        self, terminal_id: TerminalId, signal: int, *, operation: Operation | None = None
    ) -> Terminal:
        return await self._ask_terminal(terminal_id, "signal", outgoing(SignalMessage, {"signal": signal}), operation)

    async def kill_terminal(
        self, terminal_id: TerminalId, *, grace_s: float = 0.0, operation: Operation | None = None
    ) -> Terminal:
        return await self._ask_terminal(
            terminal_id, "kill", outgoing(KillMessage, {"grace_s": grace_s}), operation, wait_s=grace_s
        )

    async def close_terminal(
        self, terminal_id: TerminalId, *, grace_s: float = 0.0, operation: Operation | None = None
    ) -> None:
        await self.send(
            "POST",
            _path(terminal_id, "close"),
            message=outgoing(KillMessage, {"grace_s": grace_s}),
            operation=self.operation(operation),
            answer_s=ANSWER_S + grace_s,
        )

    async def record(self, source: CommandId | TerminalId) -> AsyncIterator[bytes]:
        noun = "terminals" if is_terminal_id(source) else "commands"
        if not is_id(source):
            raise NotFound("There is no such command or terminal.")
        received, head = 0, b""
        try:
            path = f"/v1/{noun}/{source}/recording"
            with self.transport.admitted():
                async with self.transport.stream(path, {}, accept=RECORDING) as content:
                    while part := await content.readany():
                        self.transport.answered()
                        received += len(part)
                        if received > MAX_RECORDING_BYTES:
                            raise Broken(f"The sidecar sent a recording of more than {MAX_RECORDING_BYTES} bytes.")
                        if received - len(part) == len(head):  # still in the first line
                            head += part
                            if b"\n" not in head and len(head) <= MAX_HEADER_BYTES:
                                continue
                            _check_recording(head)
                            part, head = head, b""
                        yield part
            if not received or head:
                raise Broken("The sidecar ended a recording before it began.")
        except (NotSent, CutOff) as error:
            raise Unavailable(f"The recording broke off after {received} bytes: {error}.", mend="Ask again.") from error

    async def _ask_terminal(
        self,
        terminal_id: TerminalId,
        what: str,
        message: TerminalSizeMessage | SignalMessage | KillMessage,
        operation: Operation | None,
        *,
        wait_s: float = 0.0,
    ) -> Terminal:
        reply = await self.send(
            "POST",
            _path(terminal_id, what),
            message=message,
            operation=self.operation(operation),
            answer_s=ANSWER_S + wait_s,
        )
        return _same(terminal_id, reply.body)


def _path(terminal_id: TerminalId, rest: str | None = None) -> str:
    if not is_terminal_id(terminal_id):
        raise NotFound(f"There is no terminal {terminal_id!r} in this workspace.")
    return f"/v1/terminals/{terminal_id}/{rest}" if rest else f"/v1/terminals/{terminal_id}"


def _check_recording(head: bytes) -> None:
    """Raises: Broken: this is not how a recording begins."""
    try:
        header: object = from_json(head.partition(b"\n")[0])
    except ValueError as error:
        raise Broken("The sidecar sent something else than a recording.") from error
    if not isinstance(header, dict) or cast("dict[str, object]", header).get("version") != 2:
        raise Broken("The sidecar sent something else than a recording.")


def _same(terminal_id: TerminalId, body: bytes) -> Terminal:
    terminal = to_core(parse_answer(TerminalMessage, body), Terminal)
    if terminal.id != terminal_id:
        raise Broken("The sidecar answered about another terminal.")
    return terminal
