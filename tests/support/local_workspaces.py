"""Local workspaces for tests: managers on a directory of the test, and a look at their processes from outside."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadow.core.errors import Unsupported
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution.local.directory import Workspaces
from shadow.execution.local.manager import LocalWorkspaceManager
from shadow.execution.local.manifest import read_holder

DEADLINE_S = 30.0


def local_manager(data_dir: Path, isolation: Isolation = Isolation.SANDBOX, **settings: Any) -> LocalWorkspaceManager:
    defaults: dict[str, Any] = {"default_lease_s": 120.0, "clock": time.time, "entropy": os.urandom}
    return LocalWorkspaceManager(data_dir=data_dir, isolation=isolation, **{**defaults, **settings})


async def skip_without_sandbox(data_dir: Path) -> None:
    """Skips with the reason where this host does not let us make one."""
    manager = local_manager(data_dir)
    try:
        status = await manager.create(WorkspaceSpec(lease_s=30))
    except Unsupported as reason:
        pytest.skip(str(reason))
    await manager.destroy(status.id)


def holder_pid(data_dir: Path, workspace_id: WorkspaceId) -> int:
    with Workspaces(data_dir).open(workspace_id) as directory:
        holder = read_holder(directory.fd)
    assert holder is not None
    return holder.pid


def status_field(pid: int, name: str) -> list[str]:
    """A line of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1:]
    raise AssertionError(f"no {name} of {pid}")


def processes_with(marker: str) -> list[int]:
    """Living processes of the host, also those in sandboxes, that have ``marker`` in their command line."""
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                if marker.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


async def eventually(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"still not true after {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.01)


def leftovers(data_dir: Path) -> list[str]:
    """What a data directory holds besides its lock."""
    return sorted(set(os.listdir(data_dir / "workspaces")) - {".lock"})
