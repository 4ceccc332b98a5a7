"""The sidecar as others see it: plain HTTP over a unix socket, with a real holder behind."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from shadow.core.commands import CommandSpec, shell
from shadow.core.files import MAX_SEARCH_REPLACE_BYTES
from shadow.core.ids import CommandId
from shadow.execution.host.executor import HostExecutor, open_host
from shadow.wire.message import LARGE_BODY_BYTES
from tests.support.sidecars import TOKEN, listen, serving
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncGenerator[HostExecutor]:
    (tmp_path / "root").mkdir()
    (tmp_path / "state").mkdir()
    async with open_host(tmp_path / "root", tmp_path / "state") as host:
        yield host


@pytest.fixture
async def http(executor: HostExecutor, tmp_path: Path) -> AsyncGenerator[aiohttp.ClientSession]:
    path = tmp_path / "sidecar.sock"
    with listen(path) as listener:
        async with (
            serving(executor, listener),
            aiohttp.ClientSession(
                "http://sidecar",
                connector=aiohttp.UnixConnector(str(path)),
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=aiohttp.ClientTimeout(total=30),
            ) as session,
        ):
            yield session


async def code(response: aiohttp.ClientResponse) -> tuple[int, str]:
    return response.status, json.loads(await response.read())["error"]["code"]


async def started(executor: HostExecutor, line: str) -> CommandId:
    return (await executor.start(CommandSpec(argv=shell(line)))).id


async def events(response: aiohttp.ClientResponse) -> list[tuple[int, str, Any]]:
    """All (id, event, data) of a stream of events; data of output is decoded."""
    got: list[tuple[int, str, Any]] = []
    for block in (await response.text()).split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            output = lines["event"] in ("stdout", "stderr")
            data = b64decode(lines["data"]) if output else json.loads(lines["data"])
            got.append((int(lines["id"]), lines["event"], data))
    return got


@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"]
)
async def test_without_the_token_nothing_is_told(http: aiohttp.ClientSession, value: str | None) -> None:
    headers = {"Authorization": value} if value is not None else {}
    for path in ("/v1/health", "/v1/nothing", "/"):
        async with (
            aiohttp.ClientSession("http://x", connector=http.connector, connector_owner=False) as stranger,
            stranger.get(path, headers=headers) as response,
        ):
            assert await code(response) == (401, "unauthenticated")
            assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_unknown_addresses_and_methods_are_typed(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/nothing") as response:
        assert await code(response) == (404, "not_found")
    async with http.patch("/v1/files") as response:
        assert await code(response) == (405, "rejected")
        assert response.headers["Allow"] == "DELETE, GET, PUT"


async def test_a_failing_command_is_a_result_not_an_error(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/commands?wait_s=10", json={"argv": ["bash", "-c", "echo no >&2; exit 7"]}) as response:
        assert response.status == 200
        result = await response.json()
    assert result["command"]["ending"] == {"kind": "exited", "code": 7}
    assert [(o["channel"], b64decode(o["data"])) for o in result["output"]] == [("stderr", b"no\n")]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b"{"),
        ("", b'{"argv": []}'),
        ("", b'{"argv": ["a\\u0000b"]}'),
        ("wait_s=soon", b'{"argv": ["true"]}'),
        ("wait_s=-1", b'{"argv": ["true"]}'),
        ("wait_s=nan", b'{"argv": ["true"]}'),
        ("output_limit_bytes=99999999999999", b'{"argv": ["true"]}'),
        ("output_limit_bytes=\u0663", b'{"argv": ["true"]}'),
    ],
)
async def test_a_request_that_makes_no_sense_is_rejected(http: aiohttp.ClientSession, query: str, body: bytes) -> None:
    async with http.post(f"/v1/commands?{query}", data=body) as response:
        assert await code(response) == (422, "rejected")


async def test_what_a_search_leaves_out_has_its_default(http: aiohttp.ClientSession) -> None:
    async with http.put("/v1/files?path=x", data=b"one\ntwo\n") as response:
        assert response.status == 200
    async with http.post("/v1/search/grep", json={"pattern": "tw"}) as response:
        assert (response.status, (await response.json())["lines"][0]["number"]) == (200, 2)


async def test_a_body_above_the_bound_is_refused_before_it_is_read(http: aiohttp.ClientSession) -> None:
    headers = {"Content-Length": str(LARGE_BODY_BYTES + 1)}

    async def never() -> AsyncGenerator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with http.post("/v1/commands", data=never(), headers=headers) as response:
        assert await code(response) == (413, "limit_exceeded")


async def test_a_body_that_grows_above_the_bound_is_refused(http: aiohttp.ClientSession) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield bytes(1024 * 1024)

    async with http.post("/v1/search/grep", data=endless()) as response:
        assert await code(response) == (413, "limit_exceeded")


async def test_an_operation_that_is_repeated_is_done_once(http: aiohttp.ClientSession, executor: HostExecutor) -> None:
    headers = {"Shadow-Operation": "op_twice", "Shadow-Epoch": "1"}
    ids: set[str] = set()
    for _ in range(2):
        async with http.post("/v1/commands", json={"argv": ["true"]}, headers=headers) as response:
            ids.add((await response.json())["id"])
    assert len(ids) == 1
    assert len(await executor.list_commands()) == 1


async def test_an_older_epoch_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.put("/v1/files?path=a", data=b"1", headers={"Shadow-Epoch": "5"}) as response:
        assert response.status == 200
    async with http.put("/v1/files?path=a", data=b"2", headers={"Shadow-Epoch": "4"}) as response:
        assert await code(response) == (409, "stale_epoch")


@pytest.mark.parametrize("headers", [{"Shadow-Operation": "../x"}, {"Shadow-Epoch": "x"}, {"Shadow-Epoch": "-1"}])
async def test_a_malformed_operation_is_rejected(http: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    async with http.delete("/v1/files?path=a", headers=headers) as response:
        assert await code(response) == (422, "rejected")


async def test_a_path_of_any_bytes_travels_percent_encoded(http: aiohttp.ClientSession) -> None:
    url = URL("/v1/files?path=a%FF%2B+b", encoded=True)
    async with http.put(url, data=b"x") as response:
        assert (await response.json())["path"] == {"b64": "Yf8rIGI="}
    async with http.get(url) as response:
        assert await response.read() == b"x"
        assert response.headers["Shadow-Path"] == "a%FF%2B%20b"


async def test_events_carry_all_output_and_the_end(http: aiohttp.ClientSession, executor: HostExecutor) -> None:
    id_ = await started(executor, "echo one; echo two >&2; sleep 0.1; echo three; exit 3")
    async with http.get(f"/v1/commands/{id_}/output") as response:
        assert response.content_type == "text/event-stream"
        got = await events(response)
    assert b"".join(data for _, name, data in got if name == "stdout") == b"one\nthree\n"
    assert b"".join(data for _, name, data in got if name == "stderr") == b"two\n"
    last_id, name, command = got[-1]
    assert (last_id, name, command["ending"]) == (14, "end", {"kind": "exited", "code": 3})


async def test_events_resume_after_the_last_event_id(http: aiohttp.ClientSession, executor: HostExecutor) -> None:
    id_ = await started(executor, "printf 0123456789")
    await executor.wait(id_)
    async with http.get(f"/v1/commands/{id_}/output?after=1", headers={"Last-Event-ID": "6"}) as response:
        got = await events(response)
    assert [(at, name) for at, name, _ in got] == [(10, "stdout"), (10, "end")]
    assert got[0][2] == b"6789"


async def test_dropped_output_is_an_explicit_gap(http: aiohttp.ClientSession, executor: HostExecutor) -> None:
    spec = CommandSpec(argv=shell("head -c 300000 /dev/zero"), log_limit_bytes=64 * 1024)
    command = (await executor.run(spec)).command
    assert command.output_start > 0
    async with http.get(f"/v1/commands/{command.id}/output") as response:
        got = await events(response)
    assert got[0] == (command.output_start, "gap", {"kind": "gap", "start": 0, "end": command.output_start})
    assert sum(len(data) for _, name, data in got if name == "stdout") == 300_000 - command.output_start


async def test_output_of_no_command_is_not_found(http: aiohttp.ClientSession) -> None:
    for id_ in ("cmd_none", "..%2f..", "%ff"):
        async with http.get(f"/v1/commands/{id_}/output") as response:
            assert await code(response) == (404, "not_found")


async def test_stdin_answers_how_far_it_came(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/commands", json={"argv": ["cat"], "stdin": "open"}) as response:
        id_ = (await response.json())["id"]
    async with http.post(f"/v1/commands/{id_}/stdin?offset=0", data=b"abc") as response:
        assert await response.json() == {"accepted": 3, "done": True}
    async with http.post(f"/v1/commands/{id_}/stdin?offset=1&close=true", data=b"bcd") as response:
        assert (await response.json())["accepted"] == 4
    async with http.get(f"/v1/commands/{id_}/wait?timeout_s=10") as response:
        assert (await response.json())["output_end"] == 4


async def test_an_upload_that_breaks_off_leaves_the_old_file(
    http: aiohttp.ClientSession, executor: HostExecutor, tmp_path: Path
) -> None:
    await executor.write_file("a", b"old")
    reader, writer = await asyncio.open_unix_connection(tmp_path / "sidecar.sock")
    writer.write(
        f"PUT /v1/files?path=a HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9000000\r\n\r\n".encode()
    )
    writer.write(bytes(3_000_000))
    await writer.drain()
    writer.transport.abort()
    await reader.read()
    await until(lambda: [path.name for path in (tmp_path / "root").iterdir()] == ["a"])  # the unfinished copy goes away
    assert (await executor.read_file("a")).content == b"old"


async def test_a_replacement_may_be_large(http: aiohttp.ClientSession, executor: HostExecutor) -> None:
    assert LARGE_BODY_BYTES < MAX_SEARCH_REPLACE_BYTES  # documented: texts are bounded by the body, files are not
    await executor.write_file("a", b"x" * 20_000_000 + b"$&")
    body = BytesIO(json.dumps({"path": "a", "old": "$&", "new": "y" * 10_000_000}).encode())
    async with http.post("/v1/files/replace", data=body) as response:
        assert (await response.json())["size_bytes"] == 30_000_000


async def both_run(executor: HostExecutor) -> bool:
    return len(await executor.list_commands()) == 2


async def test_stopping_ends_what_waits_and_lets_the_rest_finish(executor: HostExecutor, tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    id_ = await started(executor, "sleep 60")
    with listen(path) as listener:
        async with (
            aiohttp.ClientSession(
                "http://x", connector=aiohttp.UnixConnector(str(path)), headers={"Authorization": f"Bearer {TOKEN}"}
            ) as session,
            serving(executor, listener) as server,
        ):
            waiting = asyncio.create_task(session.get(f"/v1/commands/{id_}/wait?timeout_s=50"))
            running = asyncio.create_task(session.post("/v1/commands?wait_s=50", json={"argv": ["sleep", "50"]}))
            async with session.get(f"/v1/commands/{id_}/output") as stream:
                await until(lambda: both_run(executor))
                server.stop()
                assert b"event: end" not in await stream.read()
                assert await code(await waiting) == (503, "unavailable")
                assert await code(await running) == (504, "outcome_unknown")
