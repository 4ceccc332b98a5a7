"""Limits outlive whoever keeps them: after a killed holder they hold again, and what is abandoned leaves nothing on the host."""

import os
import signal
import time
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, LimitReached, shell
from shadow.core.limits import LimitKind, Limits
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.local.cgroups import find_cgroups, groups
from tests.support.holders import gone
from tests.support.local_workspaces import holder_pid, leftovers, local_manager, skip_without_sandbox

pytestmark = pytest.mark.anyio


async def test_after_a_killed_holder_limits_hold_again_and_the_reaper_takes_groups_along(tmp_path: Path) -> None:
    await skip_without_sandbox(tmp_path)
    manager = local_manager(tmp_path)
    status = await manager.create(WorkspaceSpec(limits=Limits(processes=60, memory_bytes=128 << 20), lease_s=300.0))
    found = find_cgroups() if os.geteuid() == 0 else None
    places = groups(found, status.id) if found else {}
    assert all(place.is_dir() for place in places.values())

    pid = holder_pid(tmp_path, status.id)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    async with await manager.attach(status.id) as executor:
        result = await executor.run(
            CommandSpec(argv=shell("for i in {1..100}; do sleep 1000 & done; wait"), timeout_s=30)
        )
        assert result.ending == LimitReached(limit=LimitKind.PROCESSES)

    pid = holder_pid(tmp_path, status.id)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    later = local_manager(tmp_path, clock=lambda: time.time() + 1000)
    assert await later.reap() == [status.id]
    assert leftovers(tmp_path) == []
    assert not any(place.exists() for place in places.values())
