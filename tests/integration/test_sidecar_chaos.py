"""The client over connections that are cut, split, stalled and answered by somebody else."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from shadow.core.commands import Channel, CommandSpec, Output, StdinMode, shell
from shadow.core.errors import Broken, Conflict, LimitExceeded, NotFound, OutcomeUnknown, ShadowError, Unavailable
from shadow.core.ids import CommandId, Operation, OperationId
from shadow.execution.host.executor import HostExecutor, open_host
from shadow.execution.sidecar_client.breaker import BreakerPolicy, BreakerState
from shadow.execution.sidecar_client.client import SidecarClient
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
from shadow.execution.sidecar_client.retries import Resilience, RetryPolicy
from shadow.execution.sidecar_client.transport import Call, Transport
from shadow.testing.chaos import BLACKHOLE, CLEAR, SINGLE_BYTES, ChaosProxy, Fault, Plan, Then, chaos_proxy
from shadow.testing.contract import Check, CheckSkipped
from shadow.testing.registry import checks
from shadow.testing.runner import apply_executor_check
from shadow.testing.site import Site
from tests.support.sidecars import CAPABILITIES, TOKEN, Waits, client, listen, serving
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PATIENT = Resilience(retries=RetryPolicy(waits_s=(0.01,) * 30), breaker=BreakerPolicy(failures=1000))
CHECK_S = 60.0


@asynccontextmanager
async def behind_chaos(
    directory: Path, plan: Plan | Fault = CLEAR, *, resilience: Resilience | None = PATIENT, waits: Waits | None = None
) -> AsyncGenerator[tuple[SidecarClient, ChaosProxy, HostExecutor]]:
    (directory / "root").mkdir()
    (directory / "state").mkdir()
    async with open_host(directory / "root", directory / "state") as host:
        with listen(directory / "sidecar.sock") as listener:
            async with serving(host, listener):
                proxied = directory / "proxy.sock"
                async with chaos_proxy(target=directory / "sidecar.sock", listen=proxied, plan=plan) as proxy:
                    async with client(UnixEndpoint(proxied), waits=waits, resilience=resilience) as executor:
                        yield executor, proxy, host


async def sever(proxy: ChaosProxy) -> None:
    """End the connections there are, and let the client see it."""
    proxy.cut()
    await until(lambda: proxy.open_connections == 0)


# The contract, over bad connections


def chosen(modules: str, *, without: set[str]) -> list[Check[Site]]:
    found = [check for check in checks() if check.name.partition(".")[0] in modules.split() and not check.alone]
    names = {check.name for check in found}
    assert without <= names, f"no such checks: {without - names}"
    return [check for check in found if check.name not in without]


async def broken(executor: SidecarClient, applied: list[Check[Site]]) -> dict[str, str]:
    """What went wrong, by check."""
    wrong: dict[str, str] = {}
    passed = 0
    for check in applied:
        try:
            async with asyncio.timeout(CHECK_S):
                await apply_executor_check(check, executor)
            passed += 1
        except CheckSkipped:
            pass
        except Exception as error:  # noqa: BLE001 - each is told
            wrong[check.name] = repr(error)[:500]
    assert passed > len(applied) // 2
    return wrong


@pytest.mark.slow
async def test_the_contract_holds_byte_by_byte(tmp_path: Path) -> None:
    applied = chosen(
        "lines listings paths replacements directories operations stdin commands endings",
        without={  # megabytes
            "lines.long_lines_are_read",
            "listings.large_directories_are_listed",
            "commands.too_many_arguments_are_refused",
            "stdin.large_input_waits_for_the_command",
            "stdin.input_that_nobody_reads_any_more",
            "stdin.a_cancelled_write_is_resumed_by_its_offset",
        },
    )
    async with behind_chaos(tmp_path, SINGLE_BYTES) as (executor, proxy, _):
        assert await broken(executor, applied) == {}
        assert proxy.bytes_to_client > 100_000


def cuts(seed: int) -> Plan:
    """Every connection breaks somewhere, most of them early, some with a reset."""
    draw = random.Random(seed)

    def fault(_: int) -> Fault:
        return Fault(
            to_client_bytes=draw.randrange(draw.choice([300, 3000, 300_000])),
            to_server_bytes=draw.randrange(draw.choice([3000, 300_000])),
            then=draw.choice([Then.CLOSE, Then.RESET]),
        )

    return fault


@pytest.mark.parametrize("seed", range(2))
async def test_the_contract_holds_over_connections_that_break(tmp_path: Path, seed: int) -> None:
    applied = chosen(
        "lines listings paths replacements directories operations commands output",
        without={
            # One answer or request that is larger than what most connections carry.
            "lines.long_lines_are_read",
            "listings.large_directories_are_listed",
            "commands.too_many_arguments_are_refused",
            "output.megabytes_in_one_line",
            "output.readers_do_not_disturb_each_other",
            # The smallest log keeps less behind a reader than buffers on the way hold: what it says is a gap.
            "output.a_held_back_command_loses_nothing",
            "output.nobody_following_holds_no_command_back",  # 10 s, for nothing that passes here
        },
    )
    async with behind_chaos(tmp_path, cuts(seed)) as (executor, proxy, _):
        assert await broken(executor, applied) == {}
        assert proxy.connections > 100


# Streams


async def output_of(executor: SidecarClient, id_: CommandId) -> bytes:
    parts: list[bytes] = []
    async for item in executor.read_output(id_):
        assert isinstance(item, Output)
        parts.append(item.data)
    return b"".join(parts)


@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
async def test_streams_are_one_sequence_over_any_cut(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    content = draw.randbytes(3_000_000)
    async with behind_chaos(tmp_path) as (executor, proxy, host):
        await host.write_file("blob", content)
        command = await host.start(CommandSpec(argv=("cat", "blob")))
        proxy.switch(lambda _: Fault(to_client_bytes=draw.randrange(draw.choice([200, 2000, 400_000]))))
        async with asyncio.timeout(60):
            assert sha256(await output_of(executor, command.id)).digest() == sha256(content).digest()
            before = proxy.connections
            read = b"".join([part async for part in executor.stream_file("blob", offset=7)])
            assert sha256(read).digest() == sha256(content[7:]).digest()
            assert proxy.connections - before > 5
            some = [part async for part in executor.stream_file("blob", offset=5, limit_bytes=2_000_000)]
            assert b"".join(some) == content[5:2_000_005]


async def collect(stream: AsyncIterator[bytes], parts: list[bytes]) -> None:
    async for part in stream:
        parts.append(part)  # noqa: PERF401 - what came before a failure counts


@pytest.mark.parametrize("how", ["replaced", "appended", "gone"])
async def test_two_versions_of_a_file_are_never_one_stream(tmp_path: Path, how: str) -> None:
    async with behind_chaos(tmp_path) as (executor, proxy, host):
        await host.write_file("blob", b"a" * 2_000_000)
        proxy.switch(Fault(to_client_bytes=1_500_000))
        stream = executor.stream_file("blob")
        read = await anext(stream)
        if how == "replaced":
            await host.write_file("blob", b"b" * 2_000_000)
        elif how == "appended":
            assert (await host.run(CommandSpec(argv=shell("echo more >> blob")))).exit_code == 0
        else:
            await host.delete("blob")
        more: list[bytes] = []
        with pytest.raises(NotFound if how == "gone" else Conflict):
            await collect(stream, more)
        read += b"".join(more)
        assert read == b"a" * len(read)
        assert executor.breaker.failures == 0  # the sidecar answered


async def test_a_stream_without_a_version_is_not_resumed(tmp_path: Path) -> None:
    """A sidecar that does not tell versions: what began cannot go on."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, tmp_path / "s.sock")
    async with server, client(UnixEndpoint(tmp_path / "s.sock"), resilience=PATIENT) as executor:
        stream = executor.stream_file("x")
        assert await anext(stream) == b"abc"
        with pytest.raises(Unavailable) as caught:
            await anext(stream)
        assert caught.value.details["offset"] == 3


# Calls


async def test_a_call_and_three_repeats_after_1_2_and_4_seconds(tmp_path: Path) -> None:
    waits = Waits()
    async with behind_chaos(tmp_path, Fault(to_client_bytes=0), resilience=None, waits=waits) as (executor, proxy, _):
        for call, kind in ((executor.stat("."), Unavailable), (executor.make_directory("d"), OutcomeUnknown)):
            before, waits.slept = proxy.connections, []
            with pytest.raises(kind):
                await call
            assert (proxy.connections - before, waits.slept) == (4, [1.0, 2.0, 4.0])


async def test_a_start_whose_answer_is_cut_starts_once(tmp_path: Path) -> None:
    waits = Waits()
    async with behind_chaos(tmp_path, resilience=None, waits=waits) as (executor, proxy, host):
        for number, call in enumerate((executor.start, executor.run), 1):
            first = proxy.connections
            await sever(proxy)
            proxy.switch(lambda n, first=first: Fault(to_client_bytes=(n - first) * 5) if n < first + 3 else CLEAR)
            await call(CommandSpec(argv=shell("echo ran >> log")))
            assert proxy.connections == first + 4
            commands = await host.list_commands()
            assert len(commands) == number
            await host.wait(commands[-1].id)
            assert (await host.read_file("log")).content == b"ran\n" * number


async def test_an_operation_whose_outcome_is_unknown_can_be_asked_for_by_its_key(tmp_path: Path) -> None:
    async with behind_chaos(tmp_path, Fault(to_client_bytes=0), resilience=None, waits=Waits()) as (executor, proxy, _):
        spec = CommandSpec(argv=shell("echo ran >> log"))
        with pytest.raises(OutcomeUnknown) as caught:
            await executor.start(spec)
        proxy.switch(CLEAR)
        key = caught.value.details["operation"]
        assert isinstance(key, str)
        found = await executor.start(spec, operation=Operation(id=OperationId(key), epoch=executor.epoch))
        await executor.wait(found.id)
        assert len(await executor.list_commands()) == 1
        assert (await executor.read_file("log")).content == b"ran\n"


@pytest.mark.parametrize("mutates", [False, True])
async def test_a_deadline_ends_a_call_and_says_what_is_known(tmp_path: Path, mutates: bool) -> None:
    async with behind_chaos(tmp_path, BLACKHOLE) as (_, proxy, _host):
        async with transport(tmp_path / "proxy.sock") as sent:
            async with asyncio.timeout(20):
                with pytest.raises(OutcomeUnknown if mutates else Unavailable):
                    await sent.call(Call(method="GET", path="/v1/health", deadline_s=0.3, mutates=mutates))
            assert proxy.connections == 1
        async with transport(tmp_path / "nobody.sock", waits_s=(1000.0,)) as unsent:
            with pytest.raises(Unavailable):  # a wait that ends after the deadline is not begun
                await unsent.call(Call(method="GET", path="/v1/health", deadline_s=5, mutates=mutates))


def transport(path: Path, *, waits_s: tuple[float, ...] = (0.01,) * 30) -> Transport:
    resilience = Resilience(retries=RetryPolicy(waits_s=waits_s))
    return Transport(UnixEndpoint(path), token=TOKEN, sleep=asyncio.sleep, resilience=resilience)


async def test_a_silent_connection_costs_one_answer_and_not_the_call(tmp_path: Path) -> None:
    async with behind_chaos(tmp_path, lambda number: CLEAR if number else BLACKHOLE) as (_, proxy, _host):
        async with transport(tmp_path / "proxy.sock") as sent, asyncio.timeout(20):
            await sent.call(Call(method="GET", path="/v1/health", answer_s=0.2))
        assert proxy.connections == 2


@pytest.mark.parametrize(("status", "kind"), [(429, LimitExceeded), (503, Unavailable)])
async def test_a_refusal_for_now_is_repeated_when_it_asks_for_it(
    tmp_path: Path, status: int, kind: type[ShadowError]
) -> None:
    waits = Waits()
    asked = Fault(status=status, retry_after_s=7)
    async with behind_chaos(tmp_path, asked, resilience=None, waits=waits) as (executor, proxy, host):
        command = await host.start(CommandSpec(argv=("cat",), stdin=StdinMode.OPEN))
        # Surely not done: even what nobody could repeat once it was seen.
        with pytest.raises(kind) as caught:
            await executor.write_stdin(command.id, b"x")
        assert (waits.slept, proxy.answers) == ([7.0, 7.0, 7.0], 4)
        assert caught.value.details["retry_after_s"] == 7.0
        first = proxy.connections
        proxy.switch(lambda number: asked if number < first + 2 else CLEAR)
        assert await executor.write_stdin(command.id, b"x", close=True) == 1
        assert await output_of(executor, command.id) == b"x"
        waits.slept.clear()
        await sever(proxy)
        proxy.switch(Fault(status=status, retry_after_s=3600))
        with pytest.raises(kind):
            await executor.health()
        assert waits.slept == []  # longer than the call may take


@pytest.mark.parametrize("status", [429, 503])
async def test_streams_wait_as_long_as_they_are_asked_to(tmp_path: Path, status: int) -> None:
    waits = Waits()
    async with behind_chaos(tmp_path, resilience=None, waits=waits) as (executor, proxy, host):
        await host.write_file("a", b"abc")
        command = await host.start(CommandSpec(argv=("cat", "a")))
        for read in (output_of(executor, command.id), whole(executor, "a")):
            await sever(proxy)
            first = proxy.connections
            asked = Fault(status=status, retry_after_s=5)
            proxy.switch(lambda number, first=first, asked=asked: asked if number == first else CLEAR)
            assert await read == b"abc"
        assert waits.slept == [5.0, 5.0]


async def whole(executor: SidecarClient, path: str) -> bytes:
    return b"".join([part async for part in executor.stream_file(path)])


async def test_jitter_makes_waits_longer_by_what_was_drawn(tmp_path: Path) -> None:
    waits = Waits()
    drawn = iter([0.0, 0.5, 0.999])
    policy = Resilience(retries=RetryPolicy(jitter=0.5))
    async with SidecarClient(
        UnixEndpoint(tmp_path / "nobody.sock"),
        token=TOKEN,
        capabilities=CAPABILITIES,
        epoch=1,
        sleep=waits.sleep,
        clock=waits.clock,
        resilience=policy,
        randomness=lambda: next(drawn),
    ) as executor:
        with pytest.raises(Unavailable):
            await executor.health()
    assert waits.slept == pytest.approx([1.0, 2.5, 5.998])


# The breaker


async def test_five_unanswered_calls_open_the_breaker_and_a_probe_closes_it(tmp_path: Path) -> None:
    waits = Waits()
    async with behind_chaos(tmp_path, Fault(to_client_bytes=0), resilience=None, waits=waits) as (executor, proxy, _):
        for number in range(1, 6):
            with pytest.raises(Unavailable):
                await executor.health()
            assert executor.breaker.failures == number
        assert executor.breaker.state is BreakerState.OPEN
        connections, slept = proxy.connections, list(waits.slept)
        waits.now += 20
        for call in (executor.health(), executor.make_directory("d"), output_of(executor, CommandId("cmd_1"))):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.details == {"breaker": "open", "failures": 5, "retry_in_s": 40.0}
            assert "40 s" in str(caught.value)
        assert (proxy.connections, waits.slept) == (connections, slept)  # nothing was sent, and nobody waited
        waits.now += 40
        with pytest.raises(Unavailable):  # the probe
            await executor.health()
        assert (executor.breaker.opens, executor.breaker.retry_in_s) == (2, 60.0)
        waits.now += 60
        proxy.switch(CLEAR)
        await executor.health()
        assert (executor.breaker.state, executor.breaker.failures) == (BreakerState.CLOSED, 0)


async def test_only_one_call_probes(tmp_path: Path) -> None:
    waits = Waits()
    resilience = Resilience(breaker=BreakerPolicy(failures=1))
    async with behind_chaos(tmp_path, Fault(to_client_bytes=0), resilience=resilience, waits=waits) as (
        executor,
        proxy,
        _,
    ):
        with pytest.raises(Unavailable):
            await executor.health()
        waits.now += 60
        proxy.switch(BLACKHOLE)
        before = proxy.connections
        probing = asyncio.create_task(executor.health())
        await until(lambda: proxy.connections > before)
        assert executor.breaker.state is BreakerState.HALF_OPEN
        with pytest.raises(Unavailable, match="a call is trying it now"):
            await executor.health()
        probing.cancel()  # nothing came of it: the next call probes
        await asyncio.wait({probing})
        proxy.switch(CLEAR)
        await executor.health()
        assert executor.breaker.state is BreakerState.CLOSED


async def test_refusals_are_answers(tmp_path: Path) -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"x"
        raise Unavailable("the source is away")

    refusals: list[Callable[[SidecarClient], Awaitable[object]]] = [
        lambda e: e.stat("none"),
        lambda e: e.make_directory("../x"),
        lambda e: e.delete("."),
        lambda e: e.start(CommandSpec(argv=("no-such-program",))),
        lambda e: e.get_command(CommandId("cmd_none")),
        lambda e: e.make_directory("d", operation=Operation(id=OperationId("op_old"), epoch=0)),
        lambda e: e.stat("\ud800"),  # refused before anything is sent
        lambda e: e.write_file("x", failing()),  # failed before the sidecar could
    ]
    strict = Resilience(retries=RetryPolicy(waits_s=(0.01,)), breaker=BreakerPolicy(failures=1))
    async with behind_chaos(tmp_path, resilience=strict) as (executor, proxy, _):
        for call in refusals:
            with pytest.raises(ShadowError):
                await call(executor)
            assert executor.breaker.state is BreakerState.CLOSED
        await sever(proxy)
        proxy.switch(Fault(status=429))
        with pytest.raises(LimitExceeded):
            await executor.health()
        assert executor.breaker.state is BreakerState.CLOSED
        proxy.switch(Fault(status=500))
        with pytest.raises(Broken):
            await executor.health()
        assert executor.breaker.state is BreakerState.OPEN


async def test_a_stream_counts_once_and_one_that_runs_is_not_ended(tmp_path: Path) -> None:
    async with behind_chaos(tmp_path, resilience=Resilience(breaker=BreakerPolicy(failures=2))) as (
        executor,
        proxy,
        host,
    ):
        command = await host.start(CommandSpec(argv=shell("echo a; read; echo b"), stdin=StdinMode.OPEN))
        stream = executor.read_output(command.id)
        assert (await anext(aiter(stream))) == Output(offset=0, channel=Channel.STDOUT, data=b"a\n")
        proxy.switch(Fault(status=500))
        proxy.cut()
        for _ in range(2):
            with pytest.raises(Broken):
                await executor.health()
        assert executor.breaker.state is BreakerState.OPEN
        with pytest.raises(Unavailable):
            await executor.health()
        proxy.switch(CLEAR)
        await host.write_stdin(command.id, b"\n")
        async with asyncio.timeout(20):
            rest = [item async for item in stream]
        assert rest == [Output(offset=2, channel=Channel.STDOUT, data=b"b\n")]
        assert executor.breaker.state is BreakerState.CLOSED  # the stream has shown that somebody is there
