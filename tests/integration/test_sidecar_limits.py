"""What the sidecar does not put up with: too many, too fast, too slow, too large. Each is refused by name; others go on."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec
from shadow.execution.host.executor import HostExecutor, open_host
from shadow.http.admission import HttpLimits
from tests.support.raw_http import HEAD, HEALTH, Wire, wire_to
from tests.support.sidecars import TOKEN, listen, serving
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


class Site:
    def __init__(self, path: Path, host: HostExecutor, open_: AsyncExitStack) -> None:
        self.path = path
        self.host = host
        self._open = open_

    async def connect(self) -> Wire:
        return await self._open.enter_async_context(wire_to(self.path))

    async def ask(self, data: bytes) -> Wire:
        return await (await self.connect()).say(data)

    async def lives(self) -> None:
        assert (await (await self.ask(HEALTH)).answer())[0] == 200


@asynccontextmanager
async def site(directory: Path, **limits: float) -> AsyncGenerator[Site]:
    (directory / "root").mkdir()
    (directory / "state").mkdir()
    path = directory / "sidecar.sock"
    async with open_host(directory / "root", directory / "state") as host, AsyncExitStack() as open_:
        with listen(path) as listener:
            async with serving(host, listener, limits=HttpLimits.model_validate(limits)):
                yield Site(path, host, open_)
                await open_.aclose()


async def test_requests_that_come_too_fast_are_told_when_to_come_again(tmp_path: Path) -> None:
    async with site(tmp_path, requests_per_s=0.01, burst=3) as served:
        wire = await served.connect()
        for _ in range(3):
            assert (await (await wire.say(HEALTH)).answer())[0] == 200
        status, headers, body = await (await wire.say(HEALTH)).answer()
        error = json.loads(body)["error"]
        assert (status, error["code"], error["details"]["limit"]) == (429, "limit_exceeded", "rate")
        assert 90 <= int(headers["retry-after"]) <= 100
        # Who has no token takes nothing from who has one.
        assert await (await served.ask(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")).refusal() == (
            401,
            "unauthenticated",
        )


async def test_requests_and_streams_at_once_are_bounded_apart(tmp_path: Path) -> None:
    async with site(tmp_path, requests=2, streams=2) as served:
        sleeper = await served.host.start(CommandSpec(argv=("sleep", "60")))
        output = b"GET /v1/commands/%s/output HTTP/1.1\r\n%s\r\n" % (sleeper.id.encode(), HEAD)
        wait = b"GET /v1/commands/%s/wait HTTP/1.1\r\n%s\r\n" % (sleeper.id.encode(), HEAD)
        readers = [await served.ask(output) for _ in range(2)]
        for reader in readers:
            assert b" 200 " in await reader.reader.readline()
        assert await (await served.ask(output)).refusal() == (429, "limit_exceeded")
        waits = [await served.ask(wait) for _ in range(2)]

        async def refused() -> bool:
            status, _, _ = await (await served.ask(HEALTH)).answer()
            return status == 429

        await until(refused)
        await served.host.kill(sleeper.id)
        for waiting in waits:
            assert (await waiting.answer())[0] == 200
        await served.lives()


async def test_five_hundred_idle_readers_are_welcome(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        sleeper = await served.host.start(CommandSpec(argv=("sleep", "60")))
        output = b"GET /v1/commands/%s/output HTTP/1.1\r\n%s\r\n" % (sleeper.id.encode(), HEAD)
        readers = [await served.ask(output) for _ in range(500)]
        for reader in readers:
            async with asyncio.timeout(20):
                assert b" 200 " in await reader.reader.readline()
        await served.lives()


async def test_connections_are_bounded(tmp_path: Path) -> None:
    async with site(tmp_path, connections=3) as served:
        wires = [await served.ask(HEALTH) for _ in range(3)]
        for wire in wires:
            assert (await wire.answer())[0] == 200
        late = await served.connect()
        assert await late.refusal() == (503, "unavailable")
        assert await late.end() == b""
        wires[0].writer.close()

        async def free() -> bool:
            return (await (await served.ask(HEALTH)).answer())[0] == 200

        await until(free)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /v1/health HTTP/1.1\r\n" + HEAD + b"X: y\r\n" * 200 + b"\r\n", id="too many"),
        pytest.param(b"GET /v1/health HTTP/1.1\r\n" + HEAD + b"X: " + b"y" * 20_000 + b"\r\n\r\n", id="too large"),
        pytest.param(b"GET /v1/health?" + b"y" * 20_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", id="a long address"),
    ],
)
async def test_headers_are_bounded(tmp_path: Path, head: bytes) -> None:
    async with site(tmp_path, header_bytes=16 * 1024, headers=100) as served:
        wire = await served.ask(head)
        assert await wire.refusal() == (431, "limit_exceeded")
        assert await wire.end() == b""
        await served.lives()


@pytest.mark.parametrize("endless", [b"X: y\r\n", b"y"], ids=["lines", "one line"])
async def test_headers_that_do_not_end_are_cut(tmp_path: Path, endless: bytes) -> None:
    async with site(tmp_path, header_bytes=16 * 1024) as served:
        wire = await served.ask(b"GET /v1/health HTTP/1.1\r\nX: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 4 * 1024 * 1024:
                await wire.say(endless * 1000)
                sent += 1000 * len(endless)
                await asyncio.sleep(0)
        assert sent < 4 * 1024 * 1024
        await served.lives()


@pytest.mark.parametrize(
    ("begin", "then"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"\r\n", b"\r\n", id="blank lines"),
        pytest.param(b"GET /", b"a", id="an address"),
        pytest.param(b"GET /v1/health HTTP/1.1\r\n" + HEAD + b"X: ", b"y", id="a header"),
    ],
)
async def test_headers_that_dribble_are_given_up(tmp_path: Path, begin: bytes, then: bytes) -> None:
    async with site(tmp_path, head_time_s=0.3) as served:
        assert await (await served.ask(begin + then)).refusal() == (408, "unavailable")
        await (await served.ask(begin)).dribble(then)
        await served.lives()


async def test_a_connection_may_rest_between_requests(tmp_path: Path) -> None:
    async with site(tmp_path, head_time_s=0.2) as served:
        wire = await served.ask(HEALTH)
        assert (await wire.answer())[0] == 200
        await asyncio.sleep(0.5)  # longer than headers may take
        assert (await (await wire.say(HEALTH)).answer())[0] == 200


async def test_a_body_that_dribbles_is_given_up_and_nothing_is_done(tmp_path: Path) -> None:
    async with site(tmp_path, body_pause_s=0.3, body_bytes_per_s=1000) as served:
        operation = b"Shadow-Operation: op_slow\r\n"
        put = b"PUT /v1/files?path=slow HTTP/1.1\r\n" + HEAD + operation + b"Content-Length: %d\r\n\r\n"
        wire = await served.ask(put % 1_000_000)

        assert await (await wire.say(b"xxx")).refusal() == (408, "unavailable")
        assert await wire.end() == b""
        dribbling = await served.ask(put.replace(b"op_slow", b"op_dribbling") % 1_000_000)
        await dribbling.dribble(b"x")
        assert not (tmp_path / "root" / "slow").exists()
        # It is known not to have been done: a repeat with the same id does it.
        again = await served.ask(put % 4 + b"done")
        assert (await again.answer())[0] == 200
        assert (tmp_path / "root" / "slow").read_bytes() == b"done"


async def test_a_body_that_is_slow_but_steady_gets_through(tmp_path: Path) -> None:
    async with site(tmp_path, body_pause_s=0.4, body_bytes_per_s=1000) as served:
        put = b"PUT /v1/files?path=steady HTTP/1.1\r\n" + HEAD + b"Content-Length: 20000\r\n\r\n"
        wire = await served.ask(put)
        for _ in range(20):
            await wire.say(b"x" * 1000)
            await asyncio.sleep(0.05)
        assert (await wire.answer())[0] == 200


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/health HTTP/9.9\r\n\r\n",
        b"GET /v1/\xff HTTP/1.1\r\n\r\n",
        b"POST /v1/commands HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /v1/commands HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_by_name(tmp_path: Path, rubbish: bytes) -> None:
    async with site(tmp_path) as served:
        wire = await served.ask(rubbish)
        assert await wire.refusal() in ((400, "rejected"), (401, "unauthenticated"))
        await served.lives()


async def test_two_tokens_are_none(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        again = f"Authorization: Bearer {TOKEN}\r\n".encode()
        wire = await served.ask(b"GET /v1/health HTTP/1.1\r\n" + HEAD + again + b"\r\n")
        assert await wire.refusal() == (401, "unauthenticated")
        socket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        socket += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        for token in (b"", again + HEAD.split(b"\r\n", 1)[1]):
            get = b"GET /v1/terminals/term_x/attach HTTP/1.1\r\nHost: x\r\n" + socket + token + b"\r\n"
            assert await (await served.ask(get)).refusal() == (401, "unauthenticated")
