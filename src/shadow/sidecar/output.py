"""A command's output as a stream: raw frames for our client, server-sent events for everybody else.

Both resume by offset. A stream that the sidecar must give up (it stops, its reader stands still) ends without an ``end``.
"""

import asyncio
from abc import ABC, abstractmethod
from base64 import b64encode

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from shadow.core.commands import Channel, Command, Gap, Output
from shadow.core.errors import ShadowError
from shadow.core.ids import CommandId
from shadow.execution.interface import ToolExecutor
from shadow.execution.streams import closing
from shadow.http.events import BEATS_BEFORE_STALLED, HEARTBEAT_S
from shadow.http.holds import Holds, Stopping
from shadow.wire.commands import CommandMessage, GapMessage
from shadow.wire.errors import encode_error
from shadow.wire.frames import MEDIA_TYPE, FrameKind, encode_frame, encode_output
from shadow.wire.server_sent import EVENTS, HEARTBEAT, encode_event

PIECE_BYTES = 1024 * 1024


class OutputEncoder(ABC):
    media_type: bytes

    @abstractmethod
    def item(self, item: Output | Gap) -> bytes: ...

    @abstractmethod
    def end(self, offset: int, command: Command) -> bytes: ...

    @abstractmethod
    def error(self, offset: int, error: ShadowError) -> bytes: ...

    @abstractmethod
    def heartbeat(self, offset: int) -> bytes: ...


class FrameEncoder(OutputEncoder):
    media_type = MEDIA_TYPE.encode()

    def item(self, item: Output | Gap) -> bytes:
        return encode_output(item)

    def end(self, offset: int, command: Command) -> bytes:
        return encode_frame(FrameKind.END, offset, CommandMessage.of(command).json_bytes())

    def error(self, offset: int, error: ShadowError) -> bytes:
        return encode_frame(FrameKind.ERROR, offset, encode_error(error))

    def heartbeat(self, offset: int) -> bytes:
        return encode_frame(FrameKind.HEARTBEAT, offset)


class SseEncoder(OutputEncoder):
    """``id`` is the offset after the event, which a browser sends back as Last-Event-ID."""

    media_type = EVENTS.encode()

    def item(self, item: Output | Gap) -> bytes:
        if isinstance(item, Gap):
            return encode_event("gap", GapMessage.of(item).json_bytes(), place=item.end)
        return encode_event(
            "stdout" if item.channel is Channel.STDOUT else "stderr", b64encode(item.data), place=item.end
        )

    def end(self, offset: int, command: Command) -> bytes:
        return encode_event("end", CommandMessage.of(command).json_bytes(), place=offset)

    def error(self, offset: int, error: ShadowError) -> bytes:
        return encode_event("error", encode_error(error), place=offset)

    def heartbeat(self, offset: int) -> bytes:
        return HEARTBEAT


class OutputStream:
    def __init__(
        self,
        executor: ToolExecutor,
        command_id: CommandId,
        *,
        after: int,
        follow: bool,
        encoder: OutputEncoder,
        holds: Holds,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._executor = executor
        self._command_id = command_id
        self._offset = after
        self._follow = follow
        self._encoder = encoder
        self._holds = holds
        self._heartbeat_s = heartbeat_s
        self._sent = 0
        """How many pieces were handed to the connection."""
        self._sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holds.admission.stream():
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", self._encoder.media_type), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        last = b""
        try:
            async with self._holds.hold(receive) as held:
                watchdog = asyncio.create_task(self._watch(held, send))
                try:
                    await self._pump(send)
                finally:
                    watchdog.cancel()
                last = self._encoder.end(self._offset, await self._executor.get_command(self._command_id))
        except ShadowError as error:
            last = self._encoder.error(self._offset, error)
        except Stopping:
            pass  # the reader sees no end and resumes
        except ClientDisconnect:
            return
        await send(_body(last, more=False))

    async def _pump(self, send: Send) -> None:
        output = self._executor.read_output(self._command_id, after=self._offset, follow=self._follow)
        async with closing(output) as items:
            async for item in items:
                for piece in _split(item):
                    self._offset = piece.end
                    await self._send(send, self._encoder.item(piece))

    async def _send(self, send: Send, data: bytes) -> None:
        self._sending = True
        await send(_body(data, more=True))
        self._sending = False
        self._sent += 1

    async def _watch(self, held: asyncio.Timeout, send: Send) -> None:
        """Heartbeats where nothing is said; an end to readers that take nothing."""
        stalled = 0
        while stalled < BEATS_BEFORE_STALLED:
            before = self._sent
            await asyncio.sleep(self._heartbeat_s)
            if self._sent != before:
                stalled = 0
            elif self._sending:
                stalled += 1
            else:
                await self._send(send, self._encoder.heartbeat(self._offset))
        held.reschedule(asyncio.get_running_loop().time())


def _split(item: Output | Gap) -> list[Output | Gap]:
    if isinstance(item, Gap) or len(item.data) <= PIECE_BYTES:
        return [item]
    return [
        Output(offset=item.offset + start, channel=item.channel, data=item.data[start : start + PIECE_BYTES])
        for start in range(0, len(item.data), PIECE_BYTES)
    ]


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
