"""The output stream itself: signs of life, readers that stand still, readers that leave."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from shadow.core.commands import CommandSpec, shell
from shadow.core.ids import CommandId
from shadow.execution.host.executor import HostExecutor, open_host
from shadow.http.admission import Admission, HttpLimits
from shadow.http.holds import Holds
from shadow.sidecar.output import FrameEncoder, OutputStream
from shadow.wire.frames import End, FrameDecoder, Heartbeat
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

HOLDS = Holds(Admission(HttpLimits(), clock=time.monotonic))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncGenerator[HostExecutor]:
    (tmp_path / "root").mkdir()
    (tmp_path / "state").mkdir()
    async with open_host(tmp_path / "root", tmp_path / "state") as executor:
        yield executor


class Reader:
    """The other side of an ASGI response."""

    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        self.pieces: list[Any] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.pieces += self.decoder.feed(message.get("body", b""))


def stream(host: HostExecutor, id_: CommandId) -> OutputStream:
    return OutputStream(host, id_, after=0, follow=True, encoder=FrameEncoder(), holds=HOLDS, heartbeat_s=0.02)


async def test_a_silent_command_gives_signs_of_life(host: HostExecutor) -> None:
    command = await host.start(CommandSpec(argv=("sleep", "60")))
    reader = Reader()
    task = asyncio.create_task(stream(host, command.id)({}, reader.receive, reader.send))
    await until(lambda: reader.pieces.count(Heartbeat(0)) >= 3)
    await host.kill(command.id)
    await asyncio.wait_for(task, 10)
    assert isinstance(reader.pieces[-1], End)


async def test_a_reader_that_takes_nothing_is_given_up(host: HostExecutor) -> None:
    command = await host.start(CommandSpec(argv=shell("while sleep 0.01; do echo; done")))
    reader = Reader()
    task = asyncio.create_task(stream(host, command.id)({}, reader.receive, reader.send))
    await until(lambda: bool(reader.pieces))
    reader.takes.clear()
    await asyncio.wait_for(task, 10)
    assert not any(isinstance(piece, End) for piece in reader.pieces)


async def test_a_reader_that_leaves_ends_the_stream(host: HostExecutor) -> None:
    command = await host.start(CommandSpec(argv=("sleep", "60")))
    reader = Reader()
    task = asyncio.create_task(stream(host, command.id)({}, reader.receive, reader.send))
    await until(lambda: bool(reader.pieces))
    reader.gone.set()
    await asyncio.wait_for(task, 10)
