"""The client against sidecars that come and go, and against some that lie."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path

import pytest

from shadow.core.commands import Channel, CommandSpec, Gap, Output, StdinMode, shell
from shadow.core.errors import Broken, Denied, NotFound, OutcomeUnknown, PathRefused, ShadowError, Unavailable
from shadow.core.files import FileKind
from shadow.core.ids import CommandId, Operation, OperationId
from shadow.core.search import GrepQuery
from shadow.execution.host.executor import HostExecutor, open_host
from shadow.execution.sidecar_client.client import SidecarClient
from shadow.execution.sidecar_client.endpoint import TcpEndpoint, UnixEndpoint
from shadow.execution.sidecar_client.output import NO_PROGRESS_S, read_output
from shadow.execution.sidecar_client.retries import RetryPolicy
from shadow.execution.sidecar_client.transport import MAX_ANSWER_BYTES, Call, Transport
from shadow.wire.frames import FrameKind, encode_frame
from tests.support.sidecars import TOKEN, Waits, client, forged, listen, listen_tcp, serving
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

WAITS_S = RetryPolicy().waits_s
CMD = CommandId("cmd_1")
COMMAND = {
    "id": CMD,
    "argv": ["a"],
    "cwd": ".",
    "pid": 1,
    "started_at": 1,
    "ended_at": None,
    "ending": None,
    "output_start": 0,
    "output_end": 4,
    "output_closed": False,
    "stdin_accepted": 0,
    "descendants": 1,
}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncGenerator[HostExecutor]:
    (tmp_path / "root").mkdir()
    (tmp_path / "state").mkdir()
    async with open_host(tmp_path / "root", tmp_path / "state") as executor:
        yield executor


def sock(tmp_path: Path) -> UnixEndpoint:
    return UnixEndpoint(tmp_path / "sidecar.sock")


async def read_all(executor: SidecarClient, id_: CommandId, *, after: int = 0) -> bytes:
    parts: list[bytes] = []
    async for item in executor.read_output(id_, after=after):
        assert isinstance(item, Output)
        parts.append(item.data)
    return b"".join(parts)


async def has_commands(executor: HostExecutor, number: int) -> bool:
    return len(await executor.list_commands()) == number


# Reaching a sidecar


async def test_tcp_serves_the_same(host: HostExecutor) -> None:
    listener, endpoint = listen_tcp()
    with listener:
        async with serving(host, listener), client(endpoint) as executor:
            assert (await executor.run(CommandSpec(argv=("echo", "hi")))).stdout == b"hi\n"


async def test_a_socket_may_lie_deeper_than_an_address_is_long(host: HostExecutor, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 60] * 4)
    deep.mkdir(parents=True)
    short = tmp_path / "short.sock"
    with listen(short) as listener:
        short.rename(deep / "sidecar.sock")
        async with serving(host, listener), client(UnixEndpoint(deep / "sidecar.sock")) as executor:
            assert (await executor.health()).epoch == 1


@pytest.mark.parametrize("depth", [1, 5])
async def test_a_missing_socket_is_unavailable_after_the_retries(tmp_path: Path, depth: int) -> None:
    waits = Waits()
    async with client(UnixEndpoint(tmp_path.joinpath(*["d" * 60] * depth) / "x.sock"), waits=waits) as executor:
        with pytest.raises(Unavailable):
            await executor.health()
        with pytest.raises(Unavailable):  # a mutating call that was never sent is surely not done
            await executor.write_file("a", b"x")
    assert waits.slept == [*WAITS_S, *WAITS_S]


async def test_a_refused_connection_is_unavailable(tmp_path: Path) -> None:
    listen(tmp_path / "sidecar.sock").close()
    async with client(sock(tmp_path), waits=Waits()) as executor:
        with pytest.raises(Unavailable):
            await executor.start(CommandSpec(argv=("true",)))
    listener, endpoint = listen_tcp()
    listener.close()
    async with client(endpoint, waits=Waits()) as executor:
        with pytest.raises(Unavailable):
            await executor.health()


async def test_a_wrong_token_is_denied_at_once(host: HostExecutor, tmp_path: Path) -> None:
    waits = Waits()
    with listen(sock(tmp_path).path) as listener:
        async with serving(host, listener), client(sock(tmp_path), waits=waits, token="x" * 20) as executor:
            with pytest.raises(Denied):
                await executor.health()
            with pytest.raises(Denied):
                await read_all(executor, CMD)
    assert waits.slept == []


async def test_a_closed_client_is_unavailable(tmp_path: Path) -> None:
    async with client(sock(tmp_path)) as executor:
        pass
    with pytest.raises(Unavailable):
        await executor.health()


# Sidecars that restart


async def test_output_is_read_on_over_restarts_of_the_sidecar(host: HostExecutor, tmp_path: Path) -> None:
    script = "for i in $(seq 30); do printf '%0100000d' $i; sleep 0.03; done"
    with listen(sock(tmp_path).path) as listener:
        async with client(sock(tmp_path)) as executor:
            async with serving(host, listener):
                id_ = (await executor.start(CommandSpec(argv=shell(script)))).id
                reading = asyncio.create_task(read_all(executor, id_))
                await executor.wait(id_, timeout_s=0.3)
            async with serving(host, listener):
                await executor.wait(id_, timeout_s=0.3)
            async with serving(host, listener), asyncio.timeout(30):
                got = await reading
    assert got == b"".join(b"%0100000d" % i for i in range(1, 31))


async def test_a_wait_goes_on_over_a_restart(host: HostExecutor, tmp_path: Path) -> None:
    with listen(sock(tmp_path).path) as listener:
        async with client(sock(tmp_path)) as executor:
            async with serving(host, listener):
                id_ = (await executor.start(CommandSpec(argv=("sleep", "0.5")))).id
                waiting = asyncio.create_task(executor.wait(id_))
                await until(lambda: has_commands(host, 1))
            async with serving(host, listener), asyncio.timeout(30):
                assert (await waiting).ending is not None


async def test_a_run_that_is_cut_off_runs_once(host: HostExecutor, tmp_path: Path) -> None:
    spec = CommandSpec(argv=shell("echo ran >> log; sleep 0.5; cat log"))
    with listen(sock(tmp_path).path) as listener:
        async with client(sock(tmp_path)) as executor:
            async with serving(host, listener):
                running = asyncio.create_task(executor.run(spec))
                await until(lambda: has_commands(host, 1))
            async with serving(host, listener), asyncio.timeout(30):
                assert (await running).stdout == b"ran\n"


async def test_output_that_nobody_serves_any_more_is_unavailable(tmp_path: Path) -> None:
    waits = Waits()
    async with client(sock(tmp_path), waits=waits) as executor:
        with pytest.raises(Unavailable) as caught:
            await read_all(executor, CMD, after=7)
    assert NO_PROGRESS_S <= waits.now < NO_PROGRESS_S + 5
    assert caught.value.details == {"offset": 7, "breaker": "closed", "failures": 1, "retry_in_s": None}


# Calls and their slices


async def test_a_long_run_is_asked_for_in_slices(host: HostExecutor, tmp_path: Path) -> None:
    spec = CommandSpec(argv=shell("head -c 100000 /dev/zero; sleep 0.3; printf end"))
    with listen(sock(tmp_path).path) as listener:
        async with serving(host, listener), client(sock(tmp_path)) as executor:
            early = await executor.run(spec, wait_s=0.01)
            assert early.ending is None
            large = await executor.run(spec, output_limit_bytes=100_000_000)  # more than one answer holds
            assert large.stdout == bytes(100_000) + b"end"
            small = await executor.run(spec, output_limit_bytes=11)
    head, gap, tail = small.output
    assert (head, gap, tail) == (
        Output(offset=0, channel=Channel.STDOUT, data=bytes(5)),
        Gap(start=5, end=99_997),
        Output(offset=99_997, channel=Channel.STDOUT, data=bytes(3) + b"end"),
    )


async def test_much_stdin_goes_in_slices(host: HostExecutor, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    with listen(sock(tmp_path).path) as listener:
        async with serving(host, listener), client(sock(tmp_path)) as executor:
            for offset in (None, 0):
                command = await executor.start(CommandSpec(argv=("sha256sum",), stdin=StdinMode.OPEN))
                accepted = await executor.write_stdin(command.id, data, offset=offset, close=True)
                assert accepted == len(data)
                assert (await read_all(executor, command.id)).split()[0].decode() == sha256(data).hexdigest()


async def test_files_of_any_size_pass_through(host: HostExecutor, tmp_path: Path) -> None:
    async def parts() -> AsyncGenerator[bytes]:
        for number in range(40):
            yield bytes([number]) * 777_777

    whole = b"".join([part async for part in parts()])
    with listen(sock(tmp_path).path) as listener:
        async with serving(host, listener), client(sock(tmp_path)) as executor:
            for content in (b"", b"x", whole):
                await executor.write_file("a\udcff/b", content)
                got = await executor.read_file("a\udcff/b", limit_bytes=100_000_000)
                assert (got.path, got.content, got.size_bytes) == ("a\udcff/b", content, len(content))
            assert (await executor.write_file("s", parts())).size_bytes == len(whole)
            assert b"".join([part async for part in executor.stream_file("s", offset=5)]) == whole[5:]
            assert (await executor.read_file("s", offset=3, limit_bytes=5)).content == whole[3:8]
            with pytest.raises(NotFound):
                await anext(aiter(executor.stream_file("none")))


async def test_what_the_source_of_an_upload_raises_comes_back(host: HostExecutor, tmp_path: Path) -> None:
    class SourceFailed(Exception): ...

    async def failing(error: Exception) -> AsyncGenerator[bytes]:
        yield bytes(2_000_000)
        raise error

    with listen(sock(tmp_path).path) as listener:
        async with serving(host, listener), client(sock(tmp_path)) as executor:
            await executor.write_file("a", b"old")
            for error in (SourceFailed(), OSError("disk")):
                with pytest.raises(type(error)):
                    await executor.write_file("a", failing(error))
            assert (await executor.read_file("a")).content == b"old"
            with pytest.raises(PathRefused):
                await executor.write_file("../a", failing(SourceFailed()))


@pytest.mark.parametrize("path", ["\ud800", "a/\udfff"])
async def test_half_a_character_is_no_path(tmp_path: Path, path: str) -> None:
    async with client(sock(tmp_path)) as executor:
        for call in (executor.stat(path), executor.move(path, "a"), executor.search_replace(path, old="a", new="b")):
            with pytest.raises(PathRefused):
                await call


# Forged sidecars


Forge = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(body: bytes, *, status: str = "200 OK", headers: str = "") -> Forge:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)
        await writer.drain()

    return answer


def streaming(*parts: bytes) -> Forge:
    """A chunked answer that stops without its end."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in parts:
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()

    return answer


async def endless_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        await writer.drain()


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(answering(b"{}"), Broken, id="lacks fields"),
        pytest.param(answering(b'{"version":1,"uptime_s":"x"}'), Broken, id="wrong types"),
        pytest.param(answering(b"[" * 1_000_000), Broken, id="deep"),
        pytest.param(answering(b"", status="302 Found", headers="Location: http://other/\r\n"), Broken, id="redirect"),
        pytest.param(answering(b"", status="204 No Content"), Broken, id="no content"),
        pytest.param(answering(b"", status="418 Teapot"), Broken, id="unknown status"),
        pytest.param(answering(b"{}", status="404 Not Found"), NotFound, id="status without a body"),
        pytest.param(answering(b"x", headers="Content-Encoding: gzip\r\n"), Broken, id="compressed"),
        pytest.param(endless_body, Broken, id="endless body"),
        pytest.param(hang_up, Unavailable, id="hangs up"),
    ],
)
async def test_a_forged_answer_is_a_typed_error(tmp_path: Path, answer: Forge, kind: type[ShadowError]) -> None:
    async with forged(sock(tmp_path).path, answer) as endpoint, client(endpoint, waits=Waits()) as executor:
        with pytest.raises(kind):
            await executor.health()


async def test_a_huge_announcement_is_refused_unread(tmp_path: Path) -> None:
    async def announce(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {MAX_ANSWER_BYTES + 1}\r\n\r\n".encode())
        await asyncio.Event().wait()

    async with forged(sock(tmp_path).path, announce) as endpoint, client(endpoint) as executor:
        with pytest.raises(Broken):
            await executor.health()


async def test_what_is_no_http_is_a_typed_error(tmp_path: Path) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n\r\n" * 100)
        await writer.drain()

    async with forged(sock(tmp_path).path, babble) as endpoint, client(endpoint, waits=Waits()) as executor:
        with pytest.raises((Broken, Unavailable)):
            await executor.health()


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("mutates", [False, True])
async def test_an_answer_that_drips_has_a_deadline(tmp_path: Path, mutates: bool) -> None:
    async with (
        forged(sock(tmp_path).path, drip) as endpoint,
        Transport(endpoint, token=TOKEN, sleep=Waits().sleep) as transport,
    ):
        with pytest.raises(OutcomeUnknown if mutates else Unavailable):
            await transport.call(Call(method="GET", path="/", answer_s=0.1, mutates=mutates))


def silent_transport(endpoint: UnixEndpoint, waits: Waits) -> Transport:
    return Transport(endpoint, token=TOKEN, sleep=waits.sleep, silence_s=0.1)


async def test_a_stream_without_a_sign_of_life_is_cut_and_resumed(tmp_path: Path) -> None:
    asked: list[int] = []

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(1)
        if len(asked) < 3:
            await streaming(frame(FrameKind.HEARTBEAT, 0))(reader, writer)
            await asyncio.Event().wait()
        await streaming(frame(FrameKind.STDOUT, 0, b"abcd"), END)(reader, writer)

    waits = Waits()
    async with (
        forged(sock(tmp_path).path, fall_silent) as endpoint,
        Transport(endpoint, token=TOKEN, sleep=waits.sleep, silence_s=0.1) as transport,
    ):
        output = read_output(transport, CMD, after=0, follow=True, clock=waits.clock, sleep=waits.sleep)
        assert [item async for item in output] == [Output(offset=0, channel=Channel.STDOUT, data=b"abcd")]
    assert len(asked) == 3


async def test_a_mutation_without_an_answer_is_unknown(tmp_path: Path) -> None:
    waits = Waits()
    seen: list[int] = []

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        writer.close()

    async with forged(sock(tmp_path).path, count) as endpoint, client(endpoint, waits=waits) as executor:
        with pytest.raises(OutcomeUnknown):
            await executor.start(CommandSpec(argv=("true",)))
        assert len(seen) == len(WAITS_S) + 1  # it carries an operation id: it was repeated
        seen.clear()
        with pytest.raises(OutcomeUnknown):
            await executor.write_stdin(CMD, b"x")
        assert len(seen) == 1  # nothing tells a repeat of this apart


async def test_repeats_carry_the_same_operation(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_unix_server(serve, sock(tmp_path).path)
    async with server, client(sock(tmp_path), waits=Waits(), epoch=7) as executor:
        with pytest.raises(OutcomeUnknown):
            await executor.signal(CMD, 15)
        operations = {line for head in heads for line in head.split(b"\r\n") if line.startswith(b"Shadow-")}
        assert len(operations) == 2
        assert b"Shadow-Epoch: 7" in operations
        heads.clear()
        with pytest.raises(OutcomeUnknown):
            await executor.signal(CMD, 15, operation=Operation(id=OperationId("op_mine"), epoch=9))
        assert b"Shadow-Operation: op_mine\r\nShadow-Epoch: 9\r\n" in heads[0]


def frame(kind: FrameKind, offset: int, payload: bytes = b"") -> bytes:
    return encode_frame(kind, offset, payload)


END = frame(FrameKind.END, 4, json.dumps(COMMAND).encode())


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([frame(FrameKind.STDOUT, 1, b"x")], id="a hole without a gap"),
        pytest.param([frame(FrameKind.STDOUT, 0, b"ab"), frame(FrameKind.STDOUT, 1, b"x")], id="bytes twice"),
        pytest.param([frame(FrameKind.GAP, 2, struct.pack(">Q", 9))], id="a gap elsewhere"),
        pytest.param([b"\xff" * 20], id="no frames"),
        pytest.param([struct.pack(">BQI", 4, 0, 2**32 - 1)], id="a huge end"),
        pytest.param([END], id="an end elsewhere"),
        pytest.param([frame(FrameKind.STDOUT, 0, b"abcd"), frame(FrameKind.END, 4, b"{}")], id="an end of nothing"),
        pytest.param([frame(FrameKind.ERROR, 0, b"{}")], id="an error of nothing"),
    ],
)
async def test_a_forged_stream_is_broken(tmp_path: Path, parts: list[bytes]) -> None:
    async with forged(sock(tmp_path).path, streaming(*parts)) as endpoint, client(endpoint, waits=Waits()) as executor:
        with pytest.raises(Broken):
            await read_all(executor, CMD)


async def test_a_stream_that_is_cut_in_a_frame_is_read_on_from_the_last_byte(tmp_path: Path) -> None:
    asked: list[bytes] = []
    frames = frame(FrameKind.STDOUT, 0, b"abcd")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        parts = [frames[:-2]] if len(asked) == 1 else [frame(FrameKind.STDOUT, 2, b"cd"), END]
        await streaming(*parts)(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, sock(tmp_path).path)
    async with server, client(sock(tmp_path), waits=Waits()) as executor:
        assert await read_all(executor, CMD) == b"abcd"
    assert [b"after=0" in asked[0], b"after=2" in asked[1]] == [True, True]


async def test_a_stream_of_nothing_but_restarts_ends(tmp_path: Path) -> None:
    async with forged(sock(tmp_path).path, streaming()) as endpoint, client(endpoint, waits=Waits()) as executor:
        with pytest.raises(Unavailable):
            await read_all(executor, CMD)


async def test_an_error_in_the_stream_is_raised_as_itself(tmp_path: Path) -> None:
    body = b'{"error": {"code": "not_found", "message": "gone"}}'
    stream = streaming(frame(FrameKind.STDOUT, 0, b"abcd"), frame(FrameKind.ERROR, 4, body))
    async with forged(sock(tmp_path).path, stream) as endpoint, client(endpoint) as executor:
        with pytest.raises(NotFound, match="gone"):
            await read_all(executor, CMD)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\0b"])
async def test_paths_that_lead_out_are_not_believed(tmp_path: Path, path: str) -> None:
    entry = {"path": path, "kind": FileKind.FILE, "size_bytes": 1, "mode": 0, "modified_at": 0}
    listing = answering(json.dumps({"entries": [entry], "next_after": None}).encode())
    async with forged(sock(tmp_path).path, listing) as endpoint, client(endpoint) as executor:
        with pytest.raises(Broken):
            await executor.list_directory()
    sock(tmp_path).path.unlink(missing_ok=True)
    line = {"path": path, "number": 1, "text": "x", "is_match": True}
    found = answering(json.dumps({"lines": [line], "truncated": None}).encode())
    async with forged(sock(tmp_path).path, found) as endpoint, client(endpoint) as executor:
        with pytest.raises(Broken):
            await executor.grep(GrepQuery(pattern="x"))


async def test_more_than_was_asked_for_is_not_taken(tmp_path: Path) -> None:
    headers = "Shadow-Offset: 0\r\nShadow-Size-Bytes: 9\r\n"
    async with (
        forged(sock(tmp_path).path, answering(b"x" * 9, headers=headers)) as endpoint,
        client(endpoint) as executor,
    ):
        with pytest.raises(Broken):
            await executor.read_file("a", limit_bytes=8)
        with pytest.raises(Broken):
            _ = [part async for part in executor.stream_file("a", limit_bytes=8)]


async def test_an_answer_about_another_command_is_not_taken(tmp_path: Path) -> None:
    async with (
        forged(sock(tmp_path).path, answering(json.dumps(COMMAND).encode())) as endpoint,
        client(endpoint) as executor,
    ):
        assert (await executor.get_command(CMD)).id == CMD
        with pytest.raises(Broken):
            await executor.get_command(CommandId("cmd_2"))


async def test_tcp_endpoints_take_ipv6(host: HostExecutor) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with listener:
        endpoint = TcpEndpoint("::1", listener.getsockname()[1])
        async with serving(host, listener), client(endpoint) as executor:
            assert (await executor.health()).epoch == 1
