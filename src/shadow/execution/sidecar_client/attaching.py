"""A terminal through a sidecar: one WebSocket after another, what is shown and what is typed resumed by offset."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from shadow.core.commands import Gap
from shadow.core.errors import Broken, Conflict, OutcomeUnknown, ShadowError, Unavailable
from shadow.core.ids import TerminalId, make_id
from shadow.core.terminals import (
    Resized,
    ScreenSnapshot,
    Terminal,
    TerminalEnded,
    TerminalOutput,
    TerminalSize,
    check_writes,
)
from shadow.execution.interface import TerminalAttachment, TerminalEvent
from shadow.execution.sidecar_client.output import RESUME_WAITS_S
from shadow.execution.sidecar_client.sender import Sender
from shadow.execution.sidecar_client.transport import CutOff, NotSent, QueryValue, WebSocket
from shadow.wire.errors import decode_error
from shadow.wire.message import parse_answer, to_core
from shadow.wire.terminal_frames import (
    INPUT_WINDOW_BYTES,
    MAX_FRAME_BYTES,
    SUBPROTOCOL,
    WINDOW_BYTES,
    Frame,
    TerminalFrame,
    TerminalFrameError,
    decode,
    decode_event,
    encode,
)
from shadow.wire.terminals import TerminalMessage

TYPED_PIECE_BYTES = 32 * 1024
TAKEN_EVERY_BYTES = WINDOW_BYTES // 4
JOINED_BYTES = 4096
EVENT_BYTES = 128
MAX_HELD_BYTES = WINDOW_BYTES + MAX_FRAME_BYTES
"""No honest sidecar sends more than its window and one frame beyond what was taken."""


@asynccontextmanager
async def attach(
    sender: Sender,
    terminal_id: TerminalId,
    *,
    path: str,
    after: int | None,
    snapshots: bool,
    scrollback_lines: int,
    lag_bytes: int | None,
    read_only: bool,
) -> AsyncGenerator[TerminalAttachment]:
    """Raises: what the first connection is refused with."""
    query: dict[str, QueryValue] = {
        "snapshots": snapshots or after is None,
        "scrollback_lines": scrollback_lines,
        "lag_bytes": lag_bytes or 0,
    }
    attachment = ClientAttachment(sender, terminal_id, path, query, after=after, read_only=read_only)
    follower = asyncio.create_task(attachment.follow())
    try:
        await attachment.begun()
        yield attachment
    finally:
        follower.cancel()
        await asyncio.wait((follower,))


@dataclass(slots=True)
class Typed:
    """A piece that was typed and is not accepted yet."""

    offset: int
    data: bytes
    accepted: asyncio.Future[None]

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


class ClientAttachment(TerminalAttachment):
    def __init__(
        self,
        sender: Sender,
        terminal_id: TerminalId,
        path: str,
        query: dict[str, QueryValue],
        *,
        after: int | None,
        read_only: bool,
    ) -> None:
        self._sender = sender
        self._read_only = read_only
        self._id = terminal_id
        self._path = path
        writer = None if read_only else make_id("writer", entropy=os.urandom(12))
        self._query: dict[str, QueryValue] = {**query, "writer": writer}
        self._received = after
        """Everything before this offset has arrived."""
        self._size: TerminalSize | None = None
        self._events: deque[TerminalEvent] = deque()
        self._held_bytes = 0
        self._arrived = asyncio.Event()
        self._failure: ShadowError | None = None
        self._ended = False
        self._socket: WebSocket | None = None
        self._input_known = False
        """Whether the other side of this connection has said what of the input it has."""
        self._typed: deque[Typed] = deque()
        self._typed_end = 0
        self._typing = asyncio.Lock()
        self._room = asyncio.Event()
        self._told = 0
        """Up to where the other side knows that it was taken."""

    async def begun(self) -> None:
        """Until the first event is there. Raises: what it is refused with."""
        while not self._events and self._failure is None:
            self._arrived.clear()
            await self._arrived.wait()
        if self._failure is not None and not self._events:
            raise self._failure

    async def __aiter__(self) -> AsyncIterator[TerminalEvent]:
        while True:
            if self._events:
                event = self._events.popleft()
                yield event
                if isinstance(event, TerminalEnded):
                    return
                await self._taken(event)
            elif self._failure is not None:
                raise self._failure
            else:
                self._arrived.clear()
                await self._arrived.wait()

    async def write(self, data: bytes) -> None:
        check_writes(self._read_only)
        parts = [data[start : start + TYPED_PIECE_BYTES] for start in range(0, len(data), TYPED_PIECE_BYTES)]
        async with self._typing:
            pieces = [await self._type(part) for part in parts]
        for piece in pieces:
            await piece.accepted

    async def resize(self, size: TerminalSize) -> None:
        check_writes(self._read_only)
        await self._sender.resize_terminal(self._id, size)

    async def follow(self) -> None:
        """Keep a connection until the terminal ends or cannot be followed any more."""
        try:
            with self._sender.transport.admitted():
                await self._follow()
        except ShadowError as error:
            self._fail(error)

    async def _follow(self) -> None:
        cuts, cut_at = 0, None
        while not self._ended:
            before = self._received
            try:
                await self._connect()
                reason: Exception = CutOff("the connection was closed")
            except (NotSent, CutOff, Unavailable) as error:
                reason = error
            finally:
                self._socket, self._input_known = None, False
            if self._received != before:
                cuts, cut_at = 0, None
            cut_at = self._sender.clock() if cut_at is None else cut_at
            if self._ended:
                return
            if self._sender.clock() - cut_at >= self._sender.transport.patience_s:
                raise Unavailable(
                    f"The terminal {self._id} cannot be followed any more: {reason}.",
                    mend="Attach to it again later, from the offset that was reached.",
                    details={"offset": self._received},
                ) from reason
            await self._sender.sleep(RESUME_WAITS_S[min(cuts, len(RESUME_WAITS_S) - 1)])
            cuts += 1

    async def _connect(self) -> None:
        query = {**self._query, "after": self._received}
        async with self._sender.transport.websocket(
            self._path, query, protocol=SUBPROTOCOL, limit_bytes=MAX_FRAME_BYTES
        ) as self._socket:
            while not self._ended:
                try:
                    message = await self._socket.receive()
                    self._sender.transport.answered()
                    await self._take(decode(message))
                except TerminalFrameError as error:
                    raise Broken(f"The sidecar does not speak the attach protocol: {error}.") from error

    async def _take(self, frame: Frame) -> None:
        match frame.kind:
            case TerminalFrame.END:
                terminal = to_core(parse_answer(TerminalMessage, bytes(frame.payload)), Terminal)
                if terminal.id != self._id or frame.offset != self._received:
                    raise Broken("The sidecar ended another terminal, or at another offset than was reached.")
                self._end(TerminalEnded(offset=frame.offset, terminal=terminal))
            case TerminalFrame.ERROR:
                raise decode_error(bytes(frame.payload))
            case TerminalFrame.ACCEPTED:
                await self._accepted(frame.offset)
            case _:
                event = decode_event(frame)
                if event is None:
                    raise TerminalFrameError(f"{frame.kind.name.lower()} is for the sidecar only")
                self._show(event)

    # What is shown

    def _show(self, event: TerminalOutput | Gap | Resized | ScreenSnapshot) -> None:
        start, end = _span(event)
        if isinstance(event, Resized):
            if event.size == self._size:
                return  # told again on a new connection
            self._size = event.size
        elif isinstance(event, ScreenSnapshot):
            self._size = event.size
        if self._received is not None and start != self._received and not isinstance(event, Resized):
            raise Broken(f"The sidecar sent what begins at {start} where {self._received} was next.")
        if self._received is None:
            self._told = start
        self._received = max(end, self._received or 0)
        self._hold(event)
        if self._held_bytes > MAX_HELD_BYTES:
            raise Broken("The sidecar sends more than was asked for.")
        self._arrived.set()

    def _hold(self, event: TerminalEvent) -> None:
        """Together with the last where that says the same: many small ones take much more room than their bytes."""
        last = self._events[-1] if self._events else None
        if isinstance(last, Resized) and isinstance(event, Resized):
            self._held_bytes -= _size(self._events.pop())
        elif (
            isinstance(last, TerminalOutput)
            and isinstance(event, TerminalOutput)
            and len(last.data) + len(event.data) <= JOINED_BYTES
        ):
            self._held_bytes -= _size(self._events.pop())
            event = TerminalOutput(offset=last.offset, data=last.data + event.data)
        self._events.append(event)
        self._held_bytes += _size(event)

    async def _taken(self, event: TerminalEvent) -> None:
        self._held_bytes -= _size(event)
        offset = _span(event)[1]
        if offset - self._told >= TAKEN_EVERY_BYTES or (offset > self._told and not self._events):
            self._told = offset
            await self._send(encode(TerminalFrame.TAKEN, offset))

    def _end(self, event: TerminalEnded) -> None:
        self._ended = True
        self._events.append(event)
        self._refuse(Conflict("The terminal's program has ended."))

    def _fail(self, error: ShadowError) -> None:
        self._failure = error
        self._refuse(OutcomeUnknown(f"Whether it was typed cannot be known: {error.message}", mend=error.mend))

    def _refuse(self, error: ShadowError) -> None:
        for piece in self._typed:
            if not piece.accepted.done():
                piece.accepted.set_exception(error)
                piece.accepted.exception()  # whoever typed it may have left
        self._typed.clear()
        self._arrived.set()
        self._room.set()

    # What is typed

    async def _type(self, data: bytes) -> Typed:
        while self._typed and self._typed_end + len(data) - self._typed[0].offset > INPUT_WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()
        if self._ended:
            raise Conflict("The terminal's program has ended.")
        if self._failure is not None:
            raise self._failure
        piece = Typed(self._typed_end, data, asyncio.get_running_loop().create_future())
        self._typed_end = piece.end
        self._typed.append(piece)
        if self._input_known:
            await self._send(encode(TerminalFrame.INPUT, piece.offset, piece.data))
        return piece

    async def _accepted(self, offset: int) -> None:
        if offset > self._typed_end:
            raise Broken("The sidecar accepted more than was typed.")
        while self._typed and self._typed[0].end <= offset:
            piece = self._typed.popleft()
            if not piece.accepted.done():
                piece.accepted.set_result(None)
        self._room.set()
        if not self._input_known:
            # The first word on a new connection: what had not arrived on the last one is sent again, with what is
            # typed meanwhile behind it.
            sent = 0
            while sent < len(self._typed):
                piece = self._typed[sent]
                await self._send(encode(TerminalFrame.INPUT, piece.offset, piece.data))
                sent += 1
            self._input_known = True

    async def _send(self, message: bytes) -> None:
        """What a broken connection does not take is not needed, or sent again on the next."""
        if self._socket is not None:
            with suppress(CutOff):
                await self._socket.send(message)


def _span(event: TerminalEvent) -> tuple[int, int]:
    match event:
        case Gap():
            return event.start, event.end
        case TerminalOutput():
            return event.offset, event.end
        case _:
            return event.offset, event.offset


def _size(event: TerminalEvent) -> int:
    """How much it takes to hold it."""
    return EVENT_BYTES + (len(event.data) if isinstance(event, TerminalOutput | ScreenSnapshot) else 0)
