"""The sidecar as a process under a real holder: it is restarted, it is stopped, it never outlives the holder."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Output, shell
from shadow.execution.holder.config import sidecar_argv
from tests.support.holders import gone
from tests.support.sidecar_processes import sidecar_pid, workspace
from tests.support.sidecars import TOKEN, listen

pytestmark = pytest.mark.anyio


async def test_the_first_call_waits_in_the_backlog(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (_, executor):
        health = await executor.health()
        assert (health.epoch, health.sidecar_restarts) == (1, 0)


@pytest.mark.parametrize(("number", "total"), [(signal.SIGKILL, 12_500_000), (signal.SIGTERM, 2_500_000)])
async def test_a_sidecar_that_ends_amid_much_output_costs_no_byte(tmp_path: Path, number: int, total: int) -> None:
    async with workspace(tmp_path) as (holder, executor):
        spec = CommandSpec(argv=shell(f"seq -f '%015.0f' {total}"), log_limit_bytes=1 << 30)  # 16 bytes a line
        command = await executor.start(spec)
        pid = await sidecar_pid(holder)
        expected, size, partial = 1, 0, b""
        async for item in executor.read_output(command.id):
            assert isinstance(item, Output)
            if any(size < at <= size + len(item.data) for at in (total, 8 * total)):
                os.kill(pid, number)
                pid = await sidecar_pid(holder, other_than=pid)
            size += len(item.data)
            lines = (partial + item.data).split(b"\n")
            partial = lines.pop()
            assert not lines or (int(lines[0]), int(lines[-1])) == (expected, expected + len(lines) - 1)
            expected += len(lines)
        assert (size, expected - 1) == (16 * total, total)
        assert (await executor.health()).sidecar_restarts == 2


async def test_a_sidecar_ends_with_its_holder(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (holder, executor):
        await executor.health()
        pid = await sidecar_pid(holder)
        holder.send_signal(signal.SIGKILL)
        await gone(pid)


async def test_a_sidecar_may_open_as_many_files_as_the_system_lets_it(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (holder, executor):
        await executor.health()
        soft, hard = resource.prlimit(await sidecar_pid(holder), resource.RLIMIT_NOFILE)
        assert soft == hard


async def test_the_log_holds_no_output_of_a_command(tmp_path: Path) -> None:
    async with workspace(tmp_path) as (_, executor):
        result = await executor.run(CommandSpec(argv=shell("echo a-secret-word; echo a-secret-word >&2")))
        assert b"a-secret-word" in result.stdout
    logs = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("*.log"))
    assert b"sidecar.started" in logs
    assert b"a-secret-word" not in logs
    assert TOKEN.encode() not in logs


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="lacks all"),
        pytest.param(b'{"token": "short-secret"}', id="a short token"),
    ],
)
async def test_settings_that_are_not_right_are_refused_without_their_values(told: bytes) -> None:
    process = await asyncio.create_subprocess_exec(
        *sidecar_argv(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={}
    )
    async with asyncio.timeout(20):
        _, stderr = await process.communicate(told)
    assert process.returncode == 2
    assert b"sidecar.settings_refused" in stderr
    assert b"short-secret" not in stderr


def test_importing_the_sidecar_brings_no_client_and_no_cli() -> None:
    code = "import sys, shadow.sidecar.main; print(*sys.modules)"  # click: uvicorn's command line; tarfile: trees
    listed = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True, text=True).stdout
    heavy = {"aiohttp", "typer", "rich", "pydantic_settings", "structlog", "click", "multiprocessing", "tarfile"}
    heavy |= {"prometheus_client", "shadow.http.openapi", "pyavt", "websockets", "pathspec"}
    assert not heavy & set(listed.split())


def test_a_listening_socket_is_left_open_for_the_next_sidecar(tmp_path: Path) -> None:
    # What a holder relies on: closing a duplicate does not end the listening.
    with listen(tmp_path / "x.sock") as listener:
        listener.dup().close()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "x.sock"))
