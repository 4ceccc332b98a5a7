"""A sidecar that lies about a terminal: what it sends is refused or bounded, and never believed beyond its own workspace."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from shadow.core.errors import Broken, Denied, LimitExceeded, NotFound, ShadowError, Unavailable
from shadow.core.ids import TerminalId
from shadow.core.terminals import TerminalOutput, TerminalSize
from shadow.execution.interface import TerminalAttachment, TerminalEvent
from shadow.execution.sidecar_client.attaching import MAX_HELD_BYTES
from shadow.execution.sidecar_client.client import SidecarClient
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
from shadow.wire.errors import encode_error
from shadow.wire.terminal_frames import WINDOW_BYTES, TerminalFrame, encode, encode_size
from tests.support.sidecars import Waits, client

pytestmark = pytest.mark.anyio

ID = TerminalId("term_0123456789abcdefghjk")
OTHER = b"term_kjhgfedcba9876543210"
SIZED = encode(TerminalFrame.RESIZED, 0, encode_size(TerminalSize()))

Session = Callable[[web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def lying(tmp_path: Path, session: Session) -> AsyncGenerator[SidecarClient]:
    """A client of a sidecar whose terminals do ``session``."""

    async def attach(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("shadow.terminal.v1",))
        await socket.prepare(request)
        await session(socket)
        return socket

    app = web.Application()
    app.router.add_get("/v1/terminals/{id}/attach", attach)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "sidecar.sock")).start()
    try:
        async with client(UnixEndpoint(tmp_path / "sidecar.sock"), waits=Waits()) as executor:
            yield executor
    finally:
        await runner.cleanup()


async def _taken(attachment: TerminalAttachment) -> None:
    """Take all that there is, which may not be more than an honest sidecar sends ahead."""
    size = 0
    async for event in attachment:
        size += len(event.data) if isinstance(event, TerminalOutput) else 0
        assert size <= MAX_HELD_BYTES + WINDOW_BYTES


async def _read(executor: SidecarClient) -> None:
    async with executor.attach_terminal(ID) as attachment:
        async for _ in attachment:
            pass


async def _refused(tmp_path: Path, *messages: bytes | str, error: type[ShadowError] = Broken) -> ShadowError:
    async def session(socket: web.WebSocketResponse) -> None:
        for message in messages:
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        await asyncio.sleep(30)

    async with lying(tmp_path, session) as executor, asyncio.timeout(20):
        with pytest.raises(error) as caught:
            await _read(executor)
        return caught.value


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xee" + bytes(8), id="an unknown kind"),
        pytest.param(encode(TerminalFrame.OUTPUT, 7, b"x"), id="output from elsewhere"),
        pytest.param(encode(TerminalFrame.OUTPUT, 0), id="empty output"),
        pytest.param(encode(TerminalFrame.GAP, 0, bytes(8)), id="an empty gap"),
        pytest.param(encode(TerminalFrame.GAP, 3, (9).to_bytes(8, "big")), id="a gap from elsewhere"),
        pytest.param(encode(TerminalFrame.INPUT, 0, b"x"), id="input"),
        pytest.param(encode(TerminalFrame.ACCEPTED, 5), id="input that nobody typed"),
        pytest.param(encode(TerminalFrame.END, 0, b"{}"), id="an end that says nothing"),
        pytest.param(encode(TerminalFrame.END, 0, b"[" * 100_000), id="an end of brackets"),
        pytest.param(encode(TerminalFrame.SNAPSHOT, 9, encode_size(TerminalSize())), id="a snapshot from elsewhere"),
    ],
)
async def test_frames_that_cannot_be_are_refused(tmp_path: Path, message: bytes) -> None:
    await _refused(tmp_path, SIZED, message)


async def test_impossible_sizes_are_refused(tmp_path: Path) -> None:
    await _refused(tmp_path, encode(TerminalFrame.RESIZED, 0, b"\xff\xff\xff\xff"), error=ShadowError)


async def test_the_end_of_another_terminal_is_refused(tmp_path: Path) -> None:
    end = (
        b'{"id":"%s","argv":["x"],"cwd":".","size":{"columns":80,"rows":24},"pid":1,"started_at":1,"ended_at":2,'
        b'"ending":{"kind":"exited","code":0},"output_start":0,"output_end":0,"output_closed":true,"descendants":0}'
    )
    await _refused(tmp_path, SIZED, encode(TerminalFrame.END, 0, end % OTHER))


async def test_an_error_is_the_sidecars_own(tmp_path: Path) -> None:
    told = encode_error(NotFound("There is no such terminal."))
    await _refused(tmp_path, encode(TerminalFrame.ERROR, 0, told), error=NotFound)
    await _refused(tmp_path, encode(TerminalFrame.ERROR, 0, b"nonsense"), error=ShadowError)


async def test_more_than_was_asked_for_is_not_kept(tmp_path: Path) -> None:
    """A sidecar that does not wait for what was taken is cut off before it fills the memory."""

    async def session(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(SIZED)
        for number in range(40):
            await socket.send_bytes(encode(TerminalFrame.OUTPUT, number * WINDOW_BYTES, bytes(WINDOW_BYTES)))
        await asyncio.sleep(30)

    async with lying(tmp_path, session) as executor, asyncio.timeout(20):
        async with executor.attach_terminal(ID) as attachment:
            # Nothing is asked for until the connection has brought all that it could.
            await asyncio.sleep(1.0)
            with pytest.raises(Broken):
                await _taken(attachment)


async def test_a_message_beyond_all_bounds_is_not_read(tmp_path: Path) -> None:
    async def session(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(encode(TerminalFrame.OUTPUT, 0, bytes(40 * 1024 * 1024)))

    async with lying(tmp_path, session) as executor, asyncio.timeout(30):
        with pytest.raises((Broken, Unavailable, LimitExceeded)):
            await _read(executor)


async def test_a_sidecar_that_only_closes_is_given_up(tmp_path: Path) -> None:
    async def session(socket: web.WebSocketResponse) -> None:
        await socket.close()

    async with lying(tmp_path, session) as executor, asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await _read(executor)


async def test_a_refused_handshake_is_typed(tmp_path: Path) -> None:
    app = web.Application()

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=401)

    app.router.add_get("/v1/terminals/{id}/attach", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "sidecar.sock")).start()
    try:
        async with client(UnixEndpoint(tmp_path / "sidecar.sock"), waits=Waits()) as executor:
            with pytest.raises(Denied):
                await _read(executor)
    finally:
        await runner.cleanup()


async def test_many_small_events_take_little_room(tmp_path: Path) -> None:
    count = 5000

    async def session(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(SIZED)
        for number in range(count):
            await socket.send_bytes(encode(TerminalFrame.OUTPUT, number, b"x"))
        for number in range(count):
            size = TerminalSize(columns=80 + number % 2, rows=24)
            await socket.send_bytes(encode(TerminalFrame.RESIZED, count, encode_size(size)))
        await socket.send_bytes(encode(TerminalFrame.ERROR, 0, encode_error(NotFound("closed"))))
        await asyncio.sleep(30)

    async with lying(tmp_path, session) as executor, asyncio.timeout(20):
        async with executor.attach_terminal(ID) as attachment:
            await asyncio.sleep(1.0)
            events: list[TerminalEvent] = []
            with suppress(NotFound):
                async for event in attachment:
                    events.append(event)  # noqa: PERF401 - what came before the error counts
    shown = b"".join(event.data for event in events if isinstance(event, TerminalOutput))
    assert (shown, len(events) < 10) == (b"x" * count, True)
