"""Dead processes are collected by the holder, also as PID 1: by its subreapers, and by itself where one of those was killed."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, shell
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution.holder.config import holder_argv
from shadow.execution.interface import ToolExecutor
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
from tests.support.local_workspaces import local_manager, skip_without_sandbox
from tests.support.sidecar_processes import holder_config
from tests.support.sidecars import client, listen
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

DAEMONS = "for i in 1 2 3 4 5; do (setsid sh -c 'sleep 0.1; true & sleep 0.1' > /dev/null 2>&1 &); done"
ZOMBIES = "cat /proc/[0-9]*/stat 2> /dev/null | grep -c ') Z ' || true"
DAEMONS_LEFT = "cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\\0' ' ' | grep -c 'sleep [0]' || true"


async def number(executor: ToolExecutor, line: str) -> int:
    return int((await executor.run(CommandSpec(argv=shell(line)))).stdout)


async def nothing_is_left(executor: ToolExecutor) -> None:
    for line in (DAEMONS_LEFT, ZOMBIES):

        async def none(line: str = line) -> bool:
            return await number(executor, line) == 0

        await until(none, within_s=20)


async def leave_orphans(executor: ToolExecutor) -> None:
    # One that nobody collects is seen: what a program that becomes another one had started.
    assert await number(executor, f"(sleep 0 & exec sleep 5) & sleep 0.5; {ZOMBIES}") > 0
    for _ in range(5):
        await executor.run(CommandSpec(argv=shell(DAEMONS)))
        # Its parent is its subreaper: whoever the daemons had has gone, so that the holder gets them.
        await executor.run(CommandSpec(argv=shell(f"{DAEMONS}; kill -9 $PPID; sleep 0.1")))


async def test_in_a_sandbox(tmp_path: Path) -> None:
    await skip_without_sandbox(tmp_path)
    manager = local_manager(tmp_path, Isolation.SANDBOX)
    async with manager.open(WorkspaceSpec()) as executor:
        await leave_orphans(executor)
        await nothing_is_left(executor)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pid namespace without a sandbox")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
async def test_as_the_first_process_of_a_pod(tmp_path: Path) -> None:
    with listen(tmp_path / "sidecar.sock") as listener:
        config = holder_config(tmp_path, listener)
        first = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
        process = await asyncio.create_subprocess_exec(
            *first, *holder_argv(), stdin=asyncio.subprocess.PIPE, pass_fds=(listener.fileno(),), start_new_session=True
        )
        assert process.stdin is not None
        process.stdin.write(config.to_json())
        process.stdin.close()
        try:
            async with client(UnixEndpoint(tmp_path / "sidecar.sock")) as executor:
                name = await executor.run(CommandSpec(argv=shell("cat /proc/1/cmdline")))
                assert b"shadow.execution.holder" in name.stdout
                await leave_orphans(executor)
                await nothing_is_left(executor)
                sidecar = await number(executor, "pgrep -f shadow.sidecar.main | head -1")
                await executor.run(CommandSpec(argv=shell(f"kill -9 {sidecar}")))
                await nothing_is_left(executor)
                assert (await executor.health()).sidecar_restarts == 1
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
