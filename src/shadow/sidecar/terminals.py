"""Routes of terminals: parse, one call, answer. Attaching is in ``attaching.py``."""

from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute

from shadow.core.errors import NotFound
from shadow.core.ids import CommandId, TerminalId, is_id
from shadow.core.terminals import TerminalSize, TerminalSpec
from shadow.execution.interface import ToolExecutor
from shadow.sidecar.attaching import Attaching, terminal_id
from shadow.sidecar.holds import Holds
from shadow.sidecar.requests import Operations, Query, read_body, read_message
from shadow.sidecar.responses import Answer, ByteStream, message_answer
from shadow.wire.commands import KillMessage, SignalMessage
from shadow.wire.message import to_core
from shadow.wire.terminal_frames import INPUT_WINDOW_BYTES
from shadow.wire.terminals import (
    TerminalListMessage,
    TerminalMessage,
    TerminalSizeMessage,
    TerminalSpecMessage,
    TypedMessage,
)


class TerminalRoutes:
    def __init__(self, executor: ToolExecutor, operations: Operations, holds: Holds) -> None:
        self._executor = executor
        self._operations = operations
        self._holds = holds

    def routes(self) -> list[BaseRoute]:
        one = "/v1/terminals/{terminal_id}"
        return [
            Route("/v1/terminals", self.create, methods=["POST"]),
            Route("/v1/terminals", self.list, methods=["GET"]),
            Route(one, self.get, methods=["GET"]),
            Route(f"{one}/input", self.write, methods=["POST"]),
            Route(f"{one}/resize", self.resize, methods=["POST"]),
            Route(f"{one}/signal", self.signal, methods=["POST"]),
            Route(f"{one}/kill", self.kill, methods=["POST"]),
            Route(f"{one}/close", self.close, methods=["POST"]),
            Route(f"{one}/recording", self.record, methods=["GET"]),
            Route("/v1/commands/{command_id}/recording", self.record_command, methods=["GET"]),
            WebSocketRoute(f"{one}/attach", Attaching(self._executor, self._holds)),
        ]

    async def create(self, request: Request) -> Answer:
        spec = to_core(await read_message(request, TerminalSpecMessage), TerminalSpec)
        terminal = await self._executor.create_terminal(spec, operation=self._operations.of(request))
        return message_answer(TerminalMessage.of(terminal))

    async def list(self, request: Request) -> Answer:
        terminals = tuple(TerminalMessage.of(terminal) for terminal in await self._executor.list_terminals())
        return message_answer(TerminalListMessage(terminals=terminals))

    async def get(self, request: Request) -> Answer:
        return message_answer(TerminalMessage.of(await self._executor.get_terminal(terminal_id(request))))

    async def write(self, request: Request) -> Answer:
        query, id_ = Query(request), terminal_id(request)
        writer, offset = query.text("writer"), query.integer("offset", 0)
        data = await read_body(request, limit_bytes=INPUT_WINDOW_BYTES)
        async with self._holds.waiting(request.receive, mutates=True):
            accepted = await self._executor.write_terminal(id_, data, writer=writer, offset=offset)
        return message_answer(TypedMessage(accepted=accepted))

    async def resize(self, request: Request) -> Answer:
        size = to_core(await read_message(request, TerminalSizeMessage), TerminalSize)
        operation = self._operations.of(request)
        terminal = await self._executor.resize_terminal(terminal_id(request), size, operation=operation)
        return message_answer(TerminalMessage.of(terminal))

    async def signal(self, request: Request) -> Answer:
        asked = await read_message(request, SignalMessage)
        operation = self._operations.of(request)
        terminal = await self._executor.signal_terminal(terminal_id(request), asked.signal, operation=operation)
        return message_answer(TerminalMessage.of(terminal))

    async def kill(self, request: Request) -> Answer:
        asked = await read_message(request, KillMessage)
        id_, operation = terminal_id(request), self._operations.of(request)
        async with self._holds.waiting(request.receive, mutates=True):
            terminal = await self._executor.kill_terminal(id_, grace_s=asked.grace_s, operation=operation)
        return message_answer(TerminalMessage.of(terminal))

    async def close(self, request: Request) -> Answer:
        asked = await read_message(request, KillMessage)
        id_, operation = terminal_id(request), self._operations.of(request)
        async with self._holds.waiting(request.receive, mutates=True):
            await self._executor.close_terminal(id_, grace_s=asked.grace_s, operation=operation)
        return Answer(b"{}")

    async def record(self, request: Request) -> ByteStream:
        return self._recording(terminal_id(request))

    async def record_command(self, request: Request) -> ByteStream:
        text = request.path_params["command_id"]
        if not is_id(text):
            raise NotFound("There is no such command.")
        return self._recording(CommandId(text))

    def _recording(self, source: CommandId | TerminalId) -> ByteStream:
        return ByteStream(self._executor.record(source), self._holds, headers={})
