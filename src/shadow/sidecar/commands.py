"""Routes of commands: parse, one call, answer. A call that waits does so in slices; whoever asks asks again."""

import asyncio

from starlette.requests import Request

from shadow.core.commands import CommandSpec
from shadow.core.errors import Rejected
from shadow.http.holds import Holds
from shadow.http.requests import integer, read_body, read_message, read_query
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes, Raw
from shadow.sidecar.operations import ExecutorOf, OperationOf, command_id
from shadow.sidecar.output import FrameEncoder, OutputStream, SseEncoder
from shadow.wire.commands import (
    CommandListMessage,
    CommandMessage,
    CommandResultMessage,
    CommandSpecMessage,
    KillMessage,
    OutputQuery,
    SignalMessage,
    StartQuery,
    StdinMessage,
    StdinQuery,
    WaitQuery,
)
from shadow.wire.frames import MEDIA_TYPE
from shadow.wire.message import to_core
from shadow.wire.server_sent import EVENTS

MAX_WAIT_S = 60.0
STDIN_WAIT_S = 30.0
MAX_STDIN_BYTES = 4 * 1024 * 1024


class CommandRoutes:
    def __init__(self, executor: ExecutorOf, operation: OperationOf, holds: Holds) -> None:
        self._executor = executor
        self._operation = operation
        self._holds = holds

    def routes(self) -> ApiRoutes:
        one = "/v1/commands/{command_id}"
        return [
            ApiRoute(
                "POST",
                "/v1/commands",
                self.start,
                summary="Start a command; with `wait_s` also wait for its end and read its output.",
                query=StartQuery,
                body=CommandSpecMessage,
                answer=(CommandMessage, CommandResultMessage),
                operation=True,
            ),
            ApiRoute(
                "GET",
                "/v1/commands",
                self.list,
                summary="Commands that run and those that ended lately, oldest first.",
                answer=CommandListMessage,
            ),
            ApiRoute("GET", one, self.get, summary="How a command stands.", answer=CommandMessage),
            ApiRoute(
                "GET",
                f"{one}/wait",
                self.wait,
                summary="The command at its end, or as it stands after `timeout_s`.",
                query=WaitQuery,
                answer=CommandMessage,
            ),
            ApiRoute(
                "GET",
                f"{one}/output",
                self.output,
                summary="Its output from an offset on, as a stream that ends with the command as it stands.",
                query=OutputQuery,
                answer=Raw(about="Events or frames, as docs/sidecar.md says.", media_types=(EVENTS, MEDIA_TYPE)),
                headers={"Last-Event-ID": "Of events: the offset to go on from; it outranks `after`."},
            ),
            ApiRoute(
                "POST",
                f"{one}/stdin",
                self.write_stdin,
                summary="Feed its stdin.",
                query=StdinQuery,
                body=Raw(about="What to feed.", max_bytes=MAX_STDIN_BYTES),
                answer=StdinMessage,
            ),
            ApiRoute(
                "POST",
                f"{one}/signal",
                self.signal,
                summary="Send a signal to its process group.",
                body=SignalMessage,
                answer=CommandMessage,
                operation=True,
            ),
            ApiRoute(
                "POST",
                f"{one}/kill",
                self.kill,
                summary="End its whole tree: SIGTERM, `grace_s` to comply, SIGKILL.",
                body=KillMessage,
                answer=CommandMessage,
                operation=True,
            ),
        ]

    async def start(self, request: Request) -> Answer:
        query = read_query(request, StartQuery)
        spec = to_core(await read_message(request, CommandSpecMessage), CommandSpec)
        operation = self._operation(request)
        if query.wait_s is None:
            return message_answer(CommandMessage.of(await self._executor(request).start(spec, operation=operation)))
        async with self._holds.waiting(request.receive, mutates=True):
            result = await self._executor(request).run(
                spec,
                wait_s=min(query.wait_s, MAX_WAIT_S),
                output_limit_bytes=query.output_limit_bytes,
                operation=operation,
            )
        return message_answer(CommandResultMessage.of(result))

    async def list(self, request: Request) -> Answer:
        commands = tuple(CommandMessage.of(command) for command in await self._executor(request).list_commands())
        return message_answer(CommandListMessage(commands=commands))

    async def get(self, request: Request) -> Answer:
        return message_answer(CommandMessage.of(await self._executor(request).get_command(command_id(request))))

    async def wait(self, request: Request) -> Answer:
        asked_s = read_query(request, WaitQuery).timeout_s
        timeout_s = MAX_WAIT_S if asked_s is None else min(asked_s, MAX_WAIT_S)
        async with self._holds.waiting(request.receive, mutates=False):
            command = await self._executor(request).wait(command_id(request), timeout_s=timeout_s)
        return message_answer(CommandMessage.of(command))

    async def output(self, request: Request) -> OutputStream:
        query = read_query(request, OutputQuery)
        after = query.after
        frames = MEDIA_TYPE in request.headers.get("accept", "")
        seen = request.headers.get("last-event-id")
        if seen and not frames:
            after = integer(seen, what="Last-Event-ID")
            if after < 0:
                raise Rejected("Last-Event-ID must be an offset.")
        command = await self._executor(request).get_command(command_id(request))
        return OutputStream(
            self._executor(request),
            command.id,
            after=after,
            follow=query.follow,
            encoder=FrameEncoder() if frames else SseEncoder(),
            holds=self._holds,
        )

    async def write_stdin(self, request: Request) -> Answer:
        query = read_query(request, StdinQuery)
        id_, offset = command_id(request), query.offset
        data = await read_body(request, limit_bytes=MAX_STDIN_BYTES)
        # With an offset a cut is harmless: what was accepted is known, and a repeat skips it.
        limit_s = STDIN_WAIT_S if offset is not None else None
        async with self._holds.waiting(request.receive, mutates=True):
            try:
                async with asyncio.timeout(limit_s):
                    accepted = await self._executor(request).write_stdin(id_, data, offset=offset, close=query.close)
            except TimeoutError:
                command = await self._executor(request).get_command(id_)
                return message_answer(StdinMessage(accepted=command.stdin_accepted, done=False))
        return message_answer(StdinMessage(accepted=accepted))

    async def signal(self, request: Request) -> Answer:
        asked = await read_message(request, SignalMessage)
        command = await self._executor(request).signal(
            command_id(request), asked.signal, operation=self._operation(request)
        )
        return message_answer(CommandMessage.of(command))

    async def kill(self, request: Request) -> Answer:
        asked = await read_message(request, KillMessage)
        id_, operation = command_id(request), self._operation(request)
        async with self._holds.waiting(request.receive, mutates=True):
            command = await self._executor(request).kill(id_, grace_s=asked.grace_s, operation=operation)
        return message_answer(CommandMessage.of(command))
