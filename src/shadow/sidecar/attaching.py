"""One reader and writer of a terminal over a WebSocket: ``wire/terminal_frames.py`` is the protocol."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from shadow.core.commands import Gap
from shadow.core.errors import Conflict, LimitExceeded, NotFound, Rejected, ShadowError
from shadow.core.ids import TerminalId, is_terminal_id
from shadow.core.terminals import TerminalEnded, TerminalOutput
from shadow.execution.interface import TerminalAttachment, ToolExecutor
from shadow.http.holds import Holds, Stopping
from shadow.http.requests import read_query
from shadow.sidecar.operations import ExecutorOf
from shadow.wire.errors import encode_error
from shadow.wire.terminal_frames import (
    INPUT_WINDOW_BYTES,
    MAX_INPUT_BYTES,
    SUBPROTOCOL,
    WINDOW_BYTES,
    Frame,
    TerminalFrame,
    TerminalFrameError,
    decode,
    decode_size,
    encode,
    encode_event,
)
from shadow.wire.terminals import AttachQuery, TerminalMessage

GOING_AWAY = 1001
DONE = 1000


class Attaching:
    """The ASGI endpoint. Refusals come as an error frame on an accepted connection: a browser sees nothing else of one."""

    def __init__(self, executor: ExecutorOf, holds: Holds) -> None:
        self._executor = executor
        self._holds = holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holds.admission.stream():
            await self._attach(WebSocket(scope, receive, send), scope)

    async def _attach(self, socket: WebSocket, scope: Scope) -> None:
        offered = scope.get("subprotocols") or ()
        await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        try:
            async with self._holds.stoppable():
                await self._serve(socket)
            await socket.close(DONE)
        except WebSocketDisconnect:
            return
        except Stopping:
            await socket.close(GOING_AWAY, "restarting")
        except ShadowError as error:
            await socket.send_bytes(encode(TerminalFrame.ERROR, 0, encode_error(error)))
            await socket.close(DONE)

    async def _serve(self, socket: WebSocket) -> None:
        query = read_query(socket, AttachQuery)
        id_ = terminal_id(socket)
        executor = self._executor(socket)
        async with executor.attach_terminal(
            id_,
            after=query.after,
            snapshots=query.snapshots,
            scrollback_lines=query.scrollback_lines,
            lag_bytes=query.lag_bytes or None,
        ) as attachment:
            await _Session(executor, id_, socket, writer=query.writer).run(attachment)


class _Session:
    def __init__(
        self, executor: ToolExecutor, terminal_id: TerminalId, socket: WebSocket, *, writer: str | None
    ) -> None:
        self._executor = executor
        self._id = terminal_id
        self._socket = socket
        self._writer = writer
        self._taken = 0
        self._room = asyncio.Event()
        self._inputs: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0
        self._typed = asyncio.Event()

    async def run(self, attachment: TerminalAttachment) -> None:
        """Until the terminal has ended, or one of the two sides fails."""
        await _first_of(self._show(attachment), self._listen(), self._type())

    async def _show(self, attachment: TerminalAttachment) -> None:
        sent: int | None = None
        async for event in attachment:
            if isinstance(event, TerminalEnded):
                message = TerminalMessage.of(event.terminal).json_bytes()
                await self._socket.send_bytes(encode(TerminalFrame.END, event.offset, message))
                return
            await self._socket.send_bytes(encode_event(event))
            end = event.end if isinstance(event, TerminalOutput | Gap) else event.offset
            if sent is None:
                self._taken = max(self._taken, event.start if isinstance(event, Gap) else event.offset)
            sent = end
            while sent - self._taken > WINDOW_BYTES:
                self._room.clear()
                await self._room.wait()

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", DONE))
            try:
                await self._take(decode(message.get("bytes") or b""))
            except TerminalFrameError as error:
                raise Rejected(f"This is not the attach protocol: {error}.") from error

    async def _take(self, frame: Frame) -> None:
        match frame.kind:
            case TerminalFrame.TAKEN:
                self._taken = max(self._taken, frame.offset)
                self._room.set()
            case TerminalFrame.RESIZE:
                self._check_writes()
                await self._executor.resize_terminal(self._id, decode_size(frame.payload))
            case TerminalFrame.INPUT:
                self._queue(frame)
            case _:
                raise TerminalFrameError(f"{frame.kind.name.lower()} comes from the sidecar only")

    def _queue(self, frame: Frame) -> None:
        self._check_writes()
        size = len(frame.payload)
        if not size:
            raise TerminalFrameError("input without bytes")  # it would count for nothing while it waits
        if size > MAX_INPUT_BYTES or self._waiting_bytes + size > INPUT_WINDOW_BYTES:
            raise LimitExceeded(
                f"More than {INPUT_WINDOW_BYTES} bytes were typed beyond what was accepted.",
                mend="Wait for `accepted` frames.",
            )
        self._inputs.append((frame.offset, bytes(frame.payload)))
        self._waiting_bytes += size
        self._typed.set()

    def _check_writes(self) -> None:
        """Whoever only watches may lack the right to more."""
        if self._writer is None:
            raise Rejected("Who types or resizes names itself.", mend="Attach with the query parameter `writer`.")

    async def _type(self) -> None:
        if self._writer is None:
            await asyncio.Event().wait()
            return
        try:
            await self._accept(0, b"", self._writer)
            while True:
                while self._inputs:
                    offset, data = self._inputs.popleft()
                    await self._accept(offset, data, self._writer)
                    self._waiting_bytes -= len(data)
                self._typed.clear()
                await self._typed.wait()
        except Conflict as error:
            if "accepted" in error.details:
                raise  # it typed ahead of itself
        # The program has ended: that comes as the last frame, after all that it wrote.
        await asyncio.Event().wait()

    async def _accept(self, offset: int, data: bytes, writer: str) -> None:
        accepted = await self._executor.write_terminal(self._id, data, writer=writer, offset=offset)
        await self._socket.send_bytes(encode(TerminalFrame.ACCEPTED, accepted))


async def _first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends; the others are ended then, and its failure is raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def terminal_id(connection: HTTPConnection) -> TerminalId:
    text = connection.path_params["terminal_id"]
    if not is_terminal_id(text):
        raise NotFound("There is no such terminal.")
    return TerminalId(text)
