"""Scripted and simulated commands of the mock: what they say, how they end, and that no ending is invented."""

import asyncio
import signal

import pytest

from shadow.core.commands import (
    Channel,
    CommandSpec,
    Exited,
    Gap,
    Killed,
    Lost,
    Output,
    Overflow,
    Signalled,
    StdinMode,
    TimedOut,
    shell,
)
from shadow.core.errors import Denied, NotFound, Rejected, Unsupported
from shadow.core.limits import Limits
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.interface import ToolExecutor
from shadow.execution.mock.latency import Uniform
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.mock.plan import Chunk, MockCommand, MockPlan
from shadow.execution.mock.process import Process
from shadow.execution.mock.times import VirtualTime

pytestmark = pytest.mark.anyio


def opened(*commands: MockCommand, time: VirtualTime | None = None, **plan: object):
    manager = MockWorkspaceManager(MockPlan(commands=commands, **plan), time=time or VirtualTime())  # type: ignore[arg-type]
    return manager.open(WorkspaceSpec())


async def ending(executor: ToolExecutor, *argv: str, **spec: object):
    return (await executor.run(CommandSpec(argv=argv, **spec))).ending  # type: ignore[arg-type]


async def test_a_scripted_command_says_and_does_what_the_plan_has() -> None:
    command = MockCommand(
        pattern=r"make( \w+)?", stdout=b"out\n", stderr=b"err\n", exit_code=2, files={"build/x": b"made", "old": None}
    )
    async with opened(command, files={"old": b""}) as executor:
        result = await executor.run(CommandSpec(argv=("make", "all")))
        assert (result.exit_code, result.stdout, result.stderr) == (2, b"out\n", b"err\n")
        entries = (await executor.list_directory(recursive=True)).entries
        assert [entry.path for entry in entries] == ["build", "build/x"]


async def test_a_pattern_is_held_against_the_whole_line() -> None:
    async with opened(MockCommand(pattern="make"), MockCommand(pattern=r"git log 'a b'", exit_code=5)) as executor:
        assert await ending(executor, *shell("make")) == Exited(code=0)
        assert await ending(executor, "git", "log", "a b") == Exited(code=5)
        with pytest.raises(NotFound):
            await executor.start(CommandSpec(argv=("make", "more")))


async def test_answers_are_given_so_often_and_then_the_next_ones() -> None:
    commands = (MockCommand(pattern="t", exit_code=1, times=2), MockCommand(pattern="t", exit_code=0, times=1))
    async with opened(*commands) as executor:
        codes = [(await executor.run(CommandSpec(argv=("t",)))).exit_code for _ in range(3)]
        assert codes == [1, 1, 0]
        with pytest.raises(NotFound):
            await executor.start(CommandSpec(argv=("t",)))


async def test_chunks_come_each_at_its_time() -> None:
    clock = VirtualTime()
    chunks = (Chunk(b"a", after=10.0), Chunk(b"b", Channel.STDERR, after=20.0))
    async with opened(MockCommand(pattern="slow", chunks=chunks, latency=70.0), time=clock) as executor:
        command = await executor.start(CommandSpec(argv=("slow",)))
        seen = [
            (clock.now() - command.started_at, item.data)
            async for item in executor.read_output(command.id)
            if isinstance(item, Output)
        ]
        ended = await executor.wait(command.id)
    assert seen == [(10.0, b"a"), (30.0, b"b")]
    assert ended.ended_at == command.started_at + 100.0


async def test_a_program_in_python_reads_writes_and_ends() -> None:
    async def greet(process: Process) -> int:
        while data := await process.read():
            await process.write(b"hello " + data)
        process.files.write(process.path("seen"), process.env["NAME"].encode())
        return 3

    async with opened(MockCommand(pattern="greet", program=greet)) as executor:
        command = await executor.start(CommandSpec(argv=("greet",), stdin=StdinMode.OPEN, env={"NAME": "ö"}))
        await executor.write_stdin(command.id, b"you", close=True)
        assert (await executor.wait(command.id)).ending == Exited(code=3)
        assert (await executor.read_file("seen")).content == "ö".encode()


async def test_what_the_plan_gets_wrong_is_lost_with_its_reason() -> None:
    async def broken(_: Process) -> int:
        raise ZeroDivisionError("a bug of the plan")

    async with opened(MockCommand(pattern="broken", program=broken)) as executor:
        lost = await ending(executor, "broken")
        assert isinstance(lost, Lost)
        assert "a bug of the plan" in lost.reason


@pytest.mark.parametrize(
    "argv", [("ls", "-R"), ("chmod", "+x", "a"), ("ln", "a", "b"), ("seq", "0.5"), ("touch", "-r", "a", "b")]
)
async def test_an_option_that_is_not_simulated_is_lost_and_no_result_is_invented(argv: tuple[str, ...]) -> None:
    async with opened() as executor:
        assert isinstance(await ending(executor, *argv), Lost)


async def test_unknown_programs_are_not_found_and_files_not_executed() -> None:
    async with opened(files={"plain": b""}) as executor:
        await executor.write_file("script", b"#!/bin/sh\n", mode=0o755)
        for argv, error in (("pytest", NotFound), ("./no", NotFound), ("./plain", Denied), ("./script", Unsupported)):
            with pytest.raises(error):
                await executor.start(CommandSpec(argv=(argv,)))
        result = await executor.run(CommandSpec(argv=shell("pytest -q")))
        assert (result.exit_code, result.stderr) == (127, b"bash: line 1: pytest: command not found\n")


async def test_endings_are_those_that_came_about() -> None:
    clock = VirtualTime()
    stubborn = MockCommand(pattern="stubborn", latency=1e6, ignores=frozenset({signal.SIGTERM, signal.SIGINT}))
    async with opened(stubborn, MockCommand(pattern="crash", signal=11), time=clock) as executor:
        assert await ending(executor, "crash") == Signalled(signal=11)
        assert await ending(executor, "sleep", "100", timeout_s=5.0) == TimedOut(after_s=5.0)
        assert await ending(executor, "sleep", "4", timeout_s=5.0) == Exited(code=0)
        command = await executor.start(CommandSpec(argv=("stubborn",)))
        assert (await executor.signal(command.id, signal.SIGTERM)).ending is None
        began = clock.now()
        assert (await executor.kill(command.id, grace_s=30.0)).ending == Killed()
        assert clock.now() == began + 30.0
        for number, wanted in ((signal.SIGCHLD, None), (signal.SIGUSR1, Signalled(signal=signal.SIGUSR1))):
            command = await executor.start(CommandSpec(argv=("sleep", "infinity")))
            assert (await executor.signal(command.id, number)).ending == wanted


async def test_a_stopped_command_goes_on_when_it_is_continued() -> None:
    clock = VirtualTime()
    async with opened(time=clock) as executor:
        command = await executor.start(CommandSpec(argv=shell("sleep 10; echo done")))
        await executor.signal(command.id, signal.SIGSTOP)
        assert (await executor.wait(command.id, timeout_s=100.0)).ending is None
        await executor.signal(command.id, signal.SIGCONT)
        assert (await executor.wait(command.id, timeout_s=1.0)).ending == Exited(code=0)


async def test_the_limit_of_time_counts_for_commands_without_one() -> None:
    manager = MockWorkspaceManager(time=VirtualTime(), default_limits=Limits(command_time_s=60.0))
    async with manager.open(WorkspaceSpec()) as executor:
        assert await ending(executor, "sleep", "1h") == TimedOut(after_s=60.0)


async def test_a_command_is_held_back_for_a_reader_and_no_longer_than_ten_seconds() -> None:
    clock = VirtualTime()
    async with opened(time=clock) as executor:
        spec = CommandSpec(argv=("seq", "100000"), log_limit_bytes=65536, overflow=Overflow.WAIT)
        command = await executor.start(spec)
        items = [item async for item in executor.read_output(command.id)]
        assert not any(isinstance(item, Gap) for item in items)
        assert items[-1].end == sum(len(f"{n}\n") for n in range(1, 100001))
        began = clock.now()
        alone = await executor.wait((await executor.start(spec)).id)
        assert (alone.ending, clock.now() - began) == (Exited(code=0), pytest.approx(10.0))


async def test_one_seed_gives_the_same_run_twice() -> None:
    async def run() -> list[object]:
        clock = VirtualTime()
        command = MockCommand(pattern=r"job \d", latency=Uniform(1.0, 9.0))
        async with opened(command, time=clock, seed=5) as executor:
            results = await asyncio.gather(*(executor.run(CommandSpec(argv=("job", str(n)))) for n in range(5)))
        return [(r.command.id, r.command.ended_at) for r in results]

    assert await run() == await run()


async def test_what_no_system_could_start_is_refused_here_too() -> None:
    async with opened() as executor:
        with pytest.raises(Rejected):
            await executor.start(CommandSpec(argv=("echo", "a\0b")))
        assert await executor.list_commands() == []
