"""Hibernation, seen from the host: which processes are left, and what becomes of a starter that died."""

import asyncio
import os
import secrets
import signal
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.workspaces import Isolation, WorkspaceSpec, WorkspaceState
from shadow.execution.local.directory import Workspaces
from shadow.execution.local.manifest import PROXY, read_holder
from shadow.execution.local.process import is_alive
from tests.support.local_workspaces import eventually, local_manager, processes_with, skip_without_sandbox

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("isolation", [Isolation.SANDBOX, Isolation.NONE])
async def test_no_process_of_the_host_is_left(tmp_path: Path, isolation: Isolation) -> None:
    if isolation is Isolation.SANDBOX:
        await skip_without_sandbox(tmp_path)
    manager = local_manager(tmp_path, isolation)
    policy = EgressPolicy(rules=parse_rules(("allowed.example",))) if isolation is Isolation.SANDBOX else None
    marker = f"9{int.from_bytes(secrets.token_bytes(4))}"
    made = await manager.create(WorkspaceSpec(egress=policy))
    try:
        async with await manager.attach(made.id) as executor:
            await executor.start(CommandSpec(argv=("sh", "-c", f"setsid sleep {marker} & sleep {marker}")))
            await eventually(lambda: len(processes_with(marker)) >= 2, "the commands run")
        with Workspaces(tmp_path).open(made.id) as directory:
            first = [read_holder(directory.fd), *([read_holder(directory.fd, name=PROXY)] if policy else [])]
            assert all(process is not None and is_alive(process) for process in first)
            await manager.hibernate(made.id, keep_s=100.0)
            assert [process for process in first if process is not None and is_alive(process)] == []
            assert processes_with(marker) == []
            assert not directory.is_alive()
        # Any manager wakes it, also one that never heard of it.
        async with await local_manager(tmp_path, isolation).attach(made.id) as executor:
            assert (await executor.health()).epoch == 1
    finally:
        await manager.destroy(made.id)


async def test_a_holder_that_was_killed_meanwhile_is_as_good_as_hibernated(tmp_path: Path) -> None:
    manager = local_manager(tmp_path, Isolation.NONE)
    made = await manager.create(WorkspaceSpec())
    try:
        with Workspaces(tmp_path).open(made.id) as directory:
            holder = read_holder(directory.fd)
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
        await asyncio.gather(*(manager.hibernate(made.id, keep_s=100.0) for _ in range(3)))
        status = await manager.status(made.id)
        assert status.state is WorkspaceState.STOPPED
        assert await manager.reap() == []
        async with await manager.attach(made.id) as executor:
            await executor.health()
    finally:
        await manager.destroy(made.id)
