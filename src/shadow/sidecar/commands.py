"""Routes of commands: parse, one call, answer. A call that waits does so in slices; whoever asks asks again."""

import asyncio

from starlette.requests import Request
from starlette.routing import Route

from shadow.core.commands import CommandSpec
from shadow.core.errors import Rejected
from shadow.execution.interface import ToolExecutor
from shadow.sidecar.holds import Holds
from shadow.sidecar.output import FrameEncoder, OutputStream, SseEncoder
from shadow.sidecar.requests import Operations, Query, command_id, integer, read_body, read_message
from shadow.sidecar.responses import Answer, message_answer
from shadow.wire.commands import (
    CommandListMessage,
    CommandMessage,
    CommandResultMessage,
    CommandSpecMessage,
    KillMessage,
    SignalMessage,
    StdinMessage,
)
from shadow.wire.frames import MEDIA_TYPE
from shadow.wire.message import to_core

MAX_WAIT_S = 60.0
STDIN_WAIT_S = 30.0
DEFAULT_OUTPUT_LIMIT_BYTES = 1024 * 1024
MAX_OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024
MAX_STDIN_BYTES = 4 * 1024 * 1024


class CommandRoutes:
    def __init__(self, executor: ToolExecutor, operations: Operations, holds: Holds) -> None:
        self._executor = executor
        self._operations = operations
        self._holds = holds

    def routes(self) -> list[Route]:
        one = "/v1/commands/{command_id}"
        return [
            Route("/v1/commands", self.start, methods=["POST"]),
            Route("/v1/commands", self.list, methods=["GET"]),
            Route(one, self.get, methods=["GET"]),
            Route(f"{one}/wait", self.wait, methods=["GET"]),
            Route(f"{one}/output", self.output, methods=["GET"]),
            Route(f"{one}/stdin", self.write_stdin, methods=["POST"]),
            Route(f"{one}/signal", self.signal, methods=["POST"]),
            Route(f"{one}/kill", self.kill, methods=["POST"]),
        ]

    async def start(self, request: Request) -> Answer:
        query = Query(request)
        wait_s = query.seconds("wait_s", maximum=MAX_WAIT_S)
        limit = _output_limit(query)
        spec = to_core(await read_message(request, CommandSpecMessage), CommandSpec)
        operation = self._operations.of(request)
        if wait_s is None:
            return message_answer(CommandMessage.of(await self._executor.start(spec, operation=operation)))
        async with self._holds.waiting(request.receive, mutates=True):
            result = await self._executor.run(spec, wait_s=wait_s, output_limit_bytes=limit, operation=operation)
        return message_answer(CommandResultMessage.of(result))

    async def list(self, request: Request) -> Answer:
        commands = tuple(CommandMessage.of(command) for command in await self._executor.list_commands())
        return message_answer(CommandListMessage(commands=commands))

    async def get(self, request: Request) -> Answer:
        return message_answer(CommandMessage.of(await self._executor.get_command(command_id(request))))

    async def wait(self, request: Request) -> Answer:
        timeout_s = Query(request).seconds("timeout_s", maximum=MAX_WAIT_S)
        async with self._holds.waiting(request.receive, mutates=False):
            command = await self._executor.wait(
                command_id(request), timeout_s=MAX_WAIT_S if timeout_s is None else timeout_s
            )
        return message_answer(CommandMessage.of(command))

    async def output(self, request: Request) -> OutputStream:
        query = Query(request)
        after = query.integer("after", 0)
        frames = MEDIA_TYPE in request.headers.get("accept", "")
        seen = request.headers.get("last-event-id")
        if seen and not frames:
            after = integer(seen, what="Last-Event-ID")
            if after < 0:
                raise Rejected("Last-Event-ID must be an offset.")
        command = await self._executor.get_command(command_id(request))
        return OutputStream(
            self._executor,
            command.id,
            after=after,
            follow=query.flag("follow", default=True),
            encoder=FrameEncoder() if frames else SseEncoder(),
            holds=self._holds,
        )

    async def write_stdin(self, request: Request) -> Answer:
        query = Query(request)
        id_ = command_id(request)
        offset = query.optional_integer("offset")
        close = query.flag("close", default=False)
        data = await read_body(request, limit_bytes=MAX_STDIN_BYTES)
        # With an offset a cut is harmless: what was accepted is known, and a repeat skips it.
        limit_s = STDIN_WAIT_S if offset is not None else None
        async with self._holds.waiting(request.receive, mutates=True):
            try:
                async with asyncio.timeout(limit_s):
                    accepted = await self._executor.write_stdin(id_, data, offset=offset, close=close)
            except TimeoutError:
                command = await self._executor.get_command(id_)
                return message_answer(StdinMessage(accepted=command.stdin_accepted, done=False))
        return message_answer(StdinMessage(accepted=accepted))

    async def signal(self, request: Request) -> Answer:
        asked = await read_message(request, SignalMessage)
        command = await self._executor.signal(command_id(request), asked.signal, operation=self._operations.of(request))
        return message_answer(CommandMessage.of(command))

    async def kill(self, request: Request) -> Answer:
        asked = await read_message(request, KillMessage)
        id_, operation = command_id(request), self._operations.of(request)
        async with self._holds.waiting(request.receive, mutates=True):
            command = await self._executor.kill(id_, grace_s=asked.grace_s, operation=operation)
        return message_answer(CommandMessage.of(command))


def _output_limit(query: Query) -> int:
    return query.integer("output_limit_bytes", DEFAULT_OUTPUT_LIMIT_BYTES, maximum=MAX_OUTPUT_LIMIT_BYTES)
