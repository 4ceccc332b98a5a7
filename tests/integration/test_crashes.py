"""``kill -9`` of sidecar, client and holder at random points of random scripts: no byte is lost, nothing runs twice."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Exited, Lost, Output, StdinMode, shell
from shadow.core.ids import CommandId
from shadow.execution.sidecar_client.breaker import BreakerPolicy
from shadow.execution.sidecar_client.client import SidecarClient
from shadow.execution.sidecar_client.retries import Resilience, RetryPolicy
from tests.support.sidecar_processes import sidecar_pid, workspace
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PATIENT = Resilience(retries=RetryPolicy(waits_s=(0.05,) * 100), breaker=BreakerPolicy(failures=1000))
SEED = random.SystemRandom().randrange(1 << 32)


def script(draw: random.Random) -> str:
    """Lines for bash that write the same bytes each time: much, little, late, split, of no encoding, or like our own ends."""
    lines = [
        f"seq {draw.randrange(10)} {draw.randrange(10, 60_000)}",
        f"head -c {draw.randrange(1, 400_000)} /dev/zero",
        f"head -c {draw.randrange(1, 300_000)} /dev/zero | tr '\\0' 'x'",
        "printf '\\xe2'; sleep 0.02; printf '\\x82'; sleep 0.02; printf '\\xac'",
        "printf '\\xff\\xfe\\0\\r\\n\\x1b]52;c;eA==\\a'",
        "printf 'event: end\\ndata: {}\\n\\n\\x04\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\2{}exit code: 0\\n'",
        "sleep 0.05",
        "(sleep 0.1; printf late); wait",
        "for i in {1..200}; do printf '%d,' $i; done",
    ]
    return "\n".join(draw.choice(lines) for _ in range(draw.randrange(3, 12)))


def written_by(line: str) -> bytes:
    return subprocess.run(shell(line), capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"}).stdout


async def read_all(executor: SidecarClient, id_: CommandId, *, after: int = 0) -> bytes:
    parts: list[bytes] = []
    async for item in executor.read_output(id_, after=after):
        assert isinstance(item, Output)
        parts.append(item.data)
    return b"".join(parts)


@asynccontextmanager
async def killing_sidecars(
    holder: asyncio.subprocess.Process, executor: SidecarClient, draw: random.Random
) -> AsyncGenerator[list[int]]:
    """Kills each sidecar soon after it has come, some before they can answer; gives the list of the killed."""
    killed: list[int] = []

    async def kill() -> None:
        pid = 0
        while True:
            pid = await sidecar_pid(holder, other_than=pid)
            if draw.random() < 0.7:
                await executor.health()
            await asyncio.sleep(draw.uniform(0.0, 0.3))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = asyncio.create_task(kill())
    try:
        yield killed
        if killer.done():
            killer.result()
    finally:
        killer.cancel()
        await asyncio.wait({killer})


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
async def test_killed_sidecars_cost_no_byte_and_repeat_nothing(tmp_path: Path, number: int) -> None:
    print(f"seed {SEED + number}")
    draw = random.Random(SEED + number)
    async with workspace(tmp_path, resilience=PATIENT) as (holder, executor):
        async with killing_sidecars(holder, executor, draw) as killed, asyncio.timeout(100):
            await asyncio.gather(*(one_visitor(executor, random.Random(draw.random()), n) for n in range(4)))
            await until(lambda: len(killed) >= 3)
    for n in range(4):
        ran = (tmp_path / f"root/log{n}").read_text().split()
        assert ran == [str(turn) for turn in range(len(ran))]


async def one_visitor(executor: SidecarClient, draw: random.Random, number: int) -> None:
    """Runs, starts, feeds, writes and deletes; each turn says on disk that it ran."""
    for turn in range(4):
        line = script(draw)
        whole = sha256(written_by(line)).digest()
        spec = CommandSpec(argv=shell(f"echo {turn} >> log{number}\n{line}"))
        result = await executor.run(spec, output_limit_bytes=draw.choice([10_000, 8_000_000]))
        assert result.ending == Exited(code=0)
        if result.complete:
            assert sha256(result.stdout).digest() == whole
        assert sha256(await read_all(executor, result.command.id)).digest() == whole
        data = draw.randbytes(draw.randrange(300_000))
        fed = await executor.start(CommandSpec(argv=("cat",), stdin=StdinMode.OPEN))
        assert await executor.write_stdin(fed.id, data, offset=0, close=True) == len(data)
        assert sha256(await read_all(executor, fed.id)).digest() == sha256(data).digest()
        await executor.write_file(f"file{number}", data)
        assert (await executor.read_file(f"file{number}")).content == data
        await executor.delete(f"file{number}")


async def test_killed_clients_go_on_where_their_files_end(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    line = "\n".join(["seq 1 400000", *(f"{script(draw)}\nsleep 0.1" for _ in range(10))])
    copy = tmp_path / "copy"
    copy.touch()
    async with workspace(tmp_path) as (_, executor):
        command = await executor.start(CommandSpec(argv=shell(line)))
        reader = (sys.executable, "-m", "tests.support.reading_client", str(tmp_path / "sidecar.sock"), command.id)
        kills = 0
        async with asyncio.timeout(100):
            while True:
                process = await asyncio.create_subprocess_exec(*reader, str(copy), cwd=Path(__file__).parents[2])
                ended = asyncio.create_task(process.wait())
                before, more = copy.stat().st_size, draw.randrange(1, 400_000)
                if kills < 4:
                    await until(lambda: ended.done() or copy.stat().st_size > before + more, within_s=30)  # noqa: B023
                    if not ended.done():
                        process.kill()
                        kills += 1
                if await ended == 0:
                    break
                assert process.returncode == -signal.SIGKILL
    assert kills > 0
    assert sha256(copy.read_bytes()).digest() == sha256(written_by(line)).digest()


async def test_a_killed_holder_loses_its_commands_and_not_what_they_wrote(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    lines = [f"{script(draw)}\nsleep 1000" for _ in range(4)]
    async with workspace(tmp_path, resilience=PATIENT) as (holder, executor):
        commands = [await executor.start(CommandSpec(argv=shell(line))) for line in lines]
        ended = await executor.run(CommandSpec(argv=shell("echo ended; exit 3")))
        await until(lambda: seen(executor, commands[-1].id, at_least=draw.randrange(1, 300)))
        had = [(await executor.get_command(command.id)).output_end for command in commands]
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
    async with workspace(tmp_path, resilience=PATIENT) as (_, executor):
        for command, line, end in zip(commands, lines, had, strict=True):
            after = await executor.get_command(command.id)
            assert isinstance(after.ending, Lost)
            output = await read_all(executor, command.id)
            assert len(output) == after.output_end >= end
            assert written_by(line.removesuffix("sleep 1000")).startswith(output)
        again = await executor.get_command(ended.command.id)
        assert again.ending == Exited(code=3)
        assert await read_all(executor, again.id) == b"ended\n"


async def seen(executor: SidecarClient, id_: CommandId, *, at_least: int) -> bool:
    command = await executor.get_command(id_)
    return command.output_end >= at_least


@pytest.mark.slow
async def test_256_megabytes_in_one_line_over_killed_sidecars(tmp_path: Path) -> None:
    size = 256 * 1024 * 1024
    line = f"yes abcdefg | tr '\\n' ' ' | head -c {size}"
    digest = sha256()
    async with workspace(tmp_path, resilience=PATIENT) as (holder, executor):
        command = await executor.start(CommandSpec(argv=shell(line), log_limit_bytes=1 << 30))
        async with killing_sidecars(holder, executor, random.Random(SEED)):
            read = 0
            async for item in executor.read_output(command.id):
                assert isinstance(item, Output)
                read += len(item.data)
                digest.update(item.data)
    expected = sha256()
    for _ in range(size // (8 * 1024 * 1024)):
        expected.update(b"abcdefg " * 1024 * 1024)
    assert (read, digest.digest()) == (size, expected.digest())
