"""A server that is told to end: first it says so, then streams are told to come again, then the next server goes on."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.test_server import FINISH, Reader, begin, gone, script, shell
from tests.support.git_servers import make_repository
from tests.support.servers import Caller, logged_in, running

pytestmark = pytest.mark.anyio

WITHIN_S = 60.0


async def until_unready(caller: Caller) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            async with caller.session.get(f"{caller.url}/v1/health/ready") as response:
                if response.status == 503:
                    return
            await asyncio.sleep(0.02)


async def test_readiness_goes_first_then_streams_and_the_next_server_goes_on(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    model = script(tmp_path, shell("sleep 8; echo once >> done.txt"), FINISH)
    async with running(home, SHADOW_SERVER_UNREADY_S="2", SHADOW_SERVER_DRAIN_S="3") as server:
        async with logged_in(server) as caller:
            task = await begin(caller, source, model)
            reader = Reader(caller, task)
            await reader.until("command_started")
            events = f"{server.url}/v1/tasks/{task}/events"
            async with (
                caller.session.ws_connect(f"{events}/attach", headers=caller.headers) as socket,
                caller.session.get(f"{events}/stream", headers=caller.headers) as stream,
            ):
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                await until_unready(caller)
                await caller.call("GET", "/v1/health/live")
                await caller.call("GET", f"/v1/tasks/{task}")
                assert not socket.closed
                async with asyncio.timeout(WITHIN_S):
                    while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                        pass
                    told = await stream.content.read()
                assert socket.close_code == 1001
                assert b"event: end" not in told
                assert b"event: error" not in told
            assert await asyncio.to_thread(server.ended) == 0
            await server.start()
            finished = await reader.until("run_finished")
            assert finished["status"] == "done"
            assert reader.kinds().count("run_started") == 1
            await caller.call("DELETE", f"/v1/tasks/{task}")
            await gone(caller, task)


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    async with running(home, SHADOW_SERVER_UNREADY_S="600") as server, logged_in(server) as caller:
        task = await begin(caller, source, script(tmp_path, shell("sleep 5"), FINISH))
        await Reader(caller, task).until("command_started")
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        await until_unready(caller)
        assert server.end(signal.SIGTERM) == -signal.SIGTERM
        await server.start()
        await Reader(caller, task).until("run_finished")
        await caller.call("DELETE", f"/v1/tasks/{task}")
        await gone(caller, task)


def test_the_server_loads_no_sdk_of_a_model_and_nothing_that_it_only_may_need() -> None:
    names = (
        "anthropic",
        "openai",
        "httpx2",
        "httpx",
        "pydantic_ai",
        "mcp",
        "alembic.command",
        "opentelemetry.sdk",
        "typer",
    )
    looked = f"import sys, shadow.api.main; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
