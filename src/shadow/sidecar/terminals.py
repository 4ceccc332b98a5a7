"""Routes of terminals: parse, one call, answer. Attaching is in ``attaching.py``."""

from starlette.requests import Request

from shadow.core.errors import NotFound
from shadow.core.ids import CommandId, TerminalId, is_id
from shadow.core.terminals import TerminalSize, TerminalSpec
from shadow.http.holds import Holds
from shadow.http.requests import read_body, read_message, read_query
from shadow.http.responses import Answer, ByteStream, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes, ApiSocket, Raw
from shadow.sidecar.attaching import Attaching, terminal_id
from shadow.sidecar.operations import ExecutorOf, OperationOf
from shadow.wire.commands import KillMessage, SignalMessage
from shadow.wire.message import to_core
from shadow.wire.terminal_frames import INPUT_WINDOW_BYTES
from shadow.wire.terminals import (
    AttachQuery,
    TerminalListMessage,
    TerminalMessage,
    TerminalSizeMessage,
    TerminalSpecMessage,
    TypedMessage,
    TypeQuery,
)

CAST = Raw(about="One JSON value a line.", media_types=("application/x-asciicast",))


class TerminalRoutes:
    def __init__(self, executor: ExecutorOf, operation: OperationOf, holds: Holds) -> None:
        self._executor = executor
        self._operation = operation
        self._holds = holds

    def routes(self) -> ApiRoutes:
        one = "/v1/terminals/{terminal_id}"
        return [
            ApiRoute(
                "POST",
                "/v1/terminals",
                self.create,
                summary="Start a program on a PTY.",
                body=TerminalSpecMessage,
                answer=TerminalMessage,
                operation=True,
            ),
            ApiRoute(
                "GET",
                "/v1/terminals",
                self.list,
                summary="Those that run and those that ended and were not closed, oldest first.",
                answer=TerminalListMessage,
            ),
            ApiRoute(
                "GET",
                one,
                self.get,
                summary="How a terminal stands.",
                answer=TerminalMessage,
            ),
            ApiRoute(
                "POST",
                f"{one}/input",
                self.write,
                summary="Type, without being attached.",
                query=TypeQuery,
                body=Raw(about="What to type.", max_bytes=INPUT_WINDOW_BYTES),
                answer=TypedMessage,
            ),
            ApiRoute(
                "POST",
                f"{one}/resize",
                self.resize,
                summary="Set its size; the foreground program gets SIGWINCH.",
                body=TerminalSizeMessage,
                answer=TerminalMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                f"{one}/signal",
                self.signal,
                summary="Send a signal to its foreground process group.",
                body=SignalMessage,
                answer=TerminalMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                f"{one}/kill",
                self.kill,
                summary="End its whole tree; what it showed is kept.",
                body=KillMessage,
                answer=TerminalMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                f"{one}/close",
                self.close,
                summary="End it, and forget it with all that it showed.",
                body=KillMessage,
                operation=True,
            ),
            ApiRoute(
                "GET",
                f"{one}/recording",
                self.record,
                summary="What it has shown so far, as asciicast v2.",
                answer=CAST,
            ),
            ApiRoute(
                "GET",
                "/v1/commands/{command_id}/recording",
                self.record_command,
                summary="What a command has written so far, as asciicast v2.",
                answer=CAST,
            ),
            ApiSocket(
                f"{one}/attach",
                Attaching(self._executor, self._holds),
                summary="A WebSocket that shows the terminal and types into it.",
                query=AttachQuery,
            ),
        ]

    async def create(self, request: Request) -> Answer:
        spec = to_core(await read_message(request, TerminalSpecMessage), TerminalSpec)
        terminal = await self._executor(request).create_terminal(spec, operation=self._operation(request))
        return message_answer(TerminalMessage.of(terminal))

    async def list(self, request: Request) -> Answer:
        terminals = tuple(TerminalMessage.of(terminal) for terminal in await self._executor(request).list_terminals())
        return message_answer(TerminalListMessage(terminals=terminals))

    async def get(self, request: Request) -> Answer:
        return message_answer(TerminalMessage.of(await self._executor(request).get_terminal(terminal_id(request))))

    async def write(self, request: Request) -> Answer:
        query, id_ = read_query(request, TypeQuery), terminal_id(request)
        data = await read_body(request, limit_bytes=INPUT_WINDOW_BYTES)
        async with self._holds.waiting(request.receive, mutates=True):
            accepted = await self._executor(request).write_terminal(id_, data, writer=query.writer, offset=query.offset)
        return message_answer(TypedMessage(accepted=accepted))

    async def resize(self, request: Request) -> Answer:
        size = to_core(await read_message(request, TerminalSizeMessage), TerminalSize)
        operation = self._operation(request)
        terminal = await self._executor(request).resize_terminal(terminal_id(request), size, operation=operation)
        return message_answer(TerminalMessage.of(terminal))

    async def signal(self, request: Request) -> Answer:
        asked = await read_message(request, SignalMessage)
        operation = self._operation(request)
        terminal = await self._executor(request).signal_terminal(
            terminal_id(request), asked.signal, operation=operation
        )
        return message_answer(TerminalMessage.of(terminal))

    async def kill(self, request: Request) -> Answer:
        asked = await read_message(request, KillMessage)
        id_, operation = terminal_id(request), self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            terminal = await self._executor(request).kill_terminal(id_, grace_s=asked.grace_s, operation=operation)
        return message_answer(TerminalMessage.of(terminal))

    async def close(self, request: Request) -> Answer:
        asked = await read_message(request, KillMessage)
        id_, operation = terminal_id(request), self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            await self._executor(request).close_terminal(id_, grace_s=asked.grace_s, operation=operation)
        return Answer(b"{}")

    async def record(self, request: Request) -> ByteStream:
        return self._recording(request, terminal_id(request))

    async def record_command(self, request: Request) -> ByteStream:
        text = request.path_params["command_id"]
        if not is_id(text):
            raise NotFound("There is no such command.")
        return self._recording(request, CommandId(text))

    def _recording(self, request: Request, source: CommandId | TerminalId) -> ByteStream:
        return ByteStream(self._executor(request).record(source), self._holds, media_type=CAST.media_types[0].encode())
