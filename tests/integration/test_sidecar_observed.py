"""What a sidecar tells of itself: status, metrics, log. None of it holds a word of what a task does."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shadow.core.commands import CommandSpec, shell
from shadow.core.errors import ShadowError
from shadow.core.terminals import TerminalSpec
from shadow.execution.host.executor import open_host
from shadow.sidecar.log import MAX_LOG_BYTES, JsonFormatter, LogFile
from shadow.version import __version__
from tests.support.sidecar_processes import workspace
from tests.support.sidecars import TOKEN, listen, serving
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "sidecar-openapi.json").read_bytes())
SECRET = "hunter2-correct-horse"


def session(directory: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        "http://sidecar",
        connector=aiohttp.UnixConnector(str(directory / "sidecar.sock")),
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=aiohttp.ClientTimeout(total=30),
    )


async def metrics(http: aiohttp.ClientSession) -> dict[str, dict[tuple[str, ...], float]]:
    """Value by name of the sample and values of its labels."""
    async with http.get("/v1/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await response.text()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_status_says_how_the_workspace_is(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (_, executor), session(tmp_path) as http:
        await executor.run(CommandSpec(argv=shell("head -c 5000 /dev/zero")))
        await executor.start(CommandSpec(argv=("sleep", "100")))
        terminal = await executor.create_terminal(TerminalSpec(argv=("sleep", "100")))
        async with http.get("/v1/status") as response:
            status = await response.json()
        assert status["version"] == __version__
        assert (status["commands_running"], status["terminals_running"]) == (1, 1)
        assert (status["epoch"], status["lease_remaining_s"], status["isolation"]) == (1, None, "none")
        assert {"git", "terminals", "survives_sidecar"} <= set(status["capabilities"])
        assert status["log_bytes"] == 5000
        assert status["sidecar_restarts"] == 0
        assert 0 < status["sidecar_uptime_s"] < status["uptime_s"] + 1
        assert (status["requests_running"], status["streams_open"]) == (1, 0)  # this one
        await executor.kill_terminal(terminal.id)
        async with http.get("/v1/status") as response:
            assert (await response.json())["terminals_running"] == 0


async def test_metrics_count_what_was_done(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (_, executor), session(tmp_path) as http:
        sleeper = await executor.start(CommandSpec(argv=("sleep", "100")))
        for _ in range(3):
            (await http.get("/v1/files?path=nothing")).close()
        async with http.put("/v1/files?path=x", data=b"x" * 1000) as response:
            assert response.status == 200
        (await http.get("/nowhere")).close()
        (await http.get("/v1/health", headers={"Authorization": "Bearer x"})).close()
        async with http.get(f"/v1/commands/{sleeper.id}/output"):
            found = await metrics(http)
            assert found["shadow_sidecar_streams_open"] == {(): 1}
        answered = found["shadow_sidecar_requests_total"]
        assert answered["GET", "/v1/files", "4xx"] == 3
        assert answered["PUT", "/v1/files", "2xx"] == 1
        assert answered["other", "", "4xx"] == 2
        assert answered["GET", "/v1/commands/{command_id}/output", "2xx"] == 1
        assert found["shadow_sidecar_request_seconds_count"]["GET", "/v1/files"] == 3
        assert found["shadow_sidecar_request_seconds_bucket"]["GET", "/v1/files", "+Inf"] == 3
        assert found["shadow_sidecar_received_bytes_total"][()] >= 1000
        assert found["shadow_workspace_commands_running"] == {(): 1}
        assert found["shadow_sidecar_restarts_total"] == {(): 0}
        assert found["shadow_sidecar_refused_total"] == {("rate",): 0, ("requests",): 0, ("streams",): 0}
        assert found["shadow_workspace_info"] == {(__version__, "none"): 1}

        async def closed() -> bool:
            return (await metrics(http))["shadow_sidecar_streams_open"] == {(): 0}

        await until(closed)


async def test_labels_hold_no_more_than_the_code_has(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (_, executor), session(tmp_path) as http:
        await executor.health()

        async def labels() -> set[tuple[str, ...]]:
            return {key for samples in (await metrics(http)).values() for key in samples}

        before = await labels()
        for method in ("PATCH", "OPTIONS", "TRACE", "PROPFIND", "HEAD"):
            for path in ("/v1/files", f"/{SECRET}", f"/v1/commands/{SECRET}", f"/v1/terminals/{SECRET}/attach"):
                (await http.request(method, path, params={SECRET: SECRET})).close()
        after = await labels()
        assert SECRET not in str(after)
        assert len(after - before) < 200


async def test_no_request_leaves_a_word_in_the_log(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (_, executor), session(tmp_path) as http:
        (tmp_path / "root" / SECRET).write_text(SECRET)
        await executor.run(CommandSpec(argv=shell(f"echo {SECRET}; echo {SECRET} >&2; exit 3"), env={"A": SECRET}))
        terminal = await executor.create_terminal(TerminalSpec(argv=("cat", SECRET)))
        async with executor.attach_terminal(terminal.id) as attachment:
            with pytest.raises(ShadowError):
                await attachment.write(SECRET.encode())
        bodies: list[dict[str, Any]] = [
            {"data": SECRET},
            {"json": {"argv": [SECRET], "path": SECRET, "old": SECRET, "pattern": f"({SECRET}", "repository": SECRET}},
            {
                "json": {
                    "source": SECRET,
                    "target": f"../{SECRET}",
                    "message": SECRET,
                    "name": SECRET,
                    "revision": SECRET,
                }
            },
            {"json": {"signal": SECRET, "lease_s": SECRET, "columns": SECRET}},
        ]
        queries = [
            dict.fromkeys(("path", "query", "writer", "after"), SECRET),
            {"path": f"../{SECRET}", "query": SECRET, "writer": SECRET},
        ]
        asked = 0
        for path, methods in DOCUMENT["paths"].items():
            for method in methods:
                for number, body in enumerate(bodies):
                    address = path.replace("{command_id}", SECRET).replace("{terminal_id}", terminal.id)
                    headers = {"Shadow-Operation": f"{SECRET}-{asked}", "Last-Event-ID": SECRET, "X-Any": SECRET}
                    async with asyncio.timeout(20):
                        query = queries[number % 2]
                        async with http.request(method, address, params=query, headers=headers, **body) as response:
                            assert response.status < 500
                    asked += 1
        assert asked > 150
        writer = (await asyncio.open_unix_connection(str(tmp_path / "sidecar.sock")))[1]
        writer.write(f"GET /{SECRET} rubbish {SECRET}\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        assert (await executor.health()).sidecar_restarts == 0
    logs = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("*.log"))
    assert b"sidecar.started" in logs
    assert SECRET.encode() not in logs
    assert TOKEN.encode() not in logs
    assert logs.count(b"\n") < 10


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(JsonFormatter().format(record)))


@pytest.fixture
def records() -> Any:
    handler, log = Records(), logging.getLogger("shadow.sidecar")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


async def test_a_failed_request_is_one_line_without_its_content(tmp_path: Path, records: Records) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "state").mkdir()
    async with open_host(tmp_path / "root", tmp_path / "state") as host:
        with listen(tmp_path / "sidecar.sock") as listener:
            async with serving(Failing(host), listener), session(tmp_path) as http:
                async with http.get(f"/v1/files/stat?path={SECRET}") as response:
                    assert (response.status, (await response.json())["error"]["code"]) == (500, "broken")
                    assert SECRET not in await response.text()
                with pytest.raises(aiohttp.ClientError):
                    async with http.get("/v1/files?path=late") as response:
                        await response.read()
                async with http.get("/v1/nothing") as response:
                    assert response.status == 404
    whole, cut = records.lines
    assert whole["event"] == cut["event"] == "sidecar.request_failed"
    assert (whole["method"], whole["route"], whole["status"], whole["cut"]) == ("GET", "/v1/files/stat", 500, False)
    assert (cut["route"], cut["cut"]) == ("/v1/files", True)
    assert whole["error"] == "RuntimeError"
    assert whole["took_ms"] >= 0
    assert SECRET not in str(records.lines)


class Failing:
    """An executor with a fault in it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def stat(self, path: str, *, follow: bool = True) -> Any:
        if path == "late":
            return await self._inner.stat(".")
        raise RuntimeError(f"no {path}")

    async def stream_file(self, path: str, **_: Any) -> AsyncIterator[bytes]:
        yield b"a beginning"
        raise RuntimeError(f"no more of {path}: {SECRET}")


def test_a_full_log_takes_no_more(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("a") as stream:
        os.truncate(path, MAX_LOG_BYTES)
        record = logging.makeLogRecord({"msg": "x" * 1000})
        handler = LogFile(stream)
        for _ in range(10):
            handler.handle(record)
        assert path.stat().st_size == MAX_LOG_BYTES
        os.truncate(path, 0)
        handler.handle(record)
        assert path.stat().st_size == 1001
