"""What ``shadow doctor`` says of limits: by which mechanism each is kept here, and what would keep it better."""

import asyncio
import os
from collections.abc import Mapping

from shadow.cli.rows import Row, ok, warn
from shadow.cli.text import size
from shadow.core.workspaces import Isolation
from shadow.execution.registry import kernel_limits
from shadow.settings import Settings

_LACKING = (
    "As an ordinary user, log in to a session of systemd with cgroup v2 (not by su or sudo); "
    "in a container, have its control groups writable; as root they are used where they are mounted."
)


async def limit_of_memory(settings: Settings) -> Row:
    name, groups = "limit: memory", await _groups()
    limit = "none" if settings.limit_memory_bytes is None else size(settings.limit_memory_bytes)
    if "memory" in groups:
        return ok(name, f"{limit}, by {groups['memory']}; before that, a watch ends the largest command")
    return warn(name, f"{limit}, by a watch alone, which memory taken within a second escapes", _LACKING)


async def limit_of_processes(settings: Settings) -> Row:
    name, groups = "limit: processes", await _groups()
    means = [groups["pids"]] if "pids" in groups else []
    if settings.isolation is Isolation.SANDBOX:
        means.append("the sandbox's own RLIMIT_NPROC")
    found = f"{settings.limit_processes or 'none'}, by {' and '.join([*means, 'a watch'])}"
    return ok(name, found) if means else warn(name, found, _LACKING)


async def limit_of_cpus(settings: Settings) -> Row:
    name, groups = "limit: cpus", await _groups()
    limit = "none" if settings.limit_cpus is None else f"{settings.limit_cpus:g}"
    if "cpu" in groups:
        return ok(name, f"{limit}, by {groups['cpu']}")
    return warn(name, f"{limit}, in whole CPUs, by affinity, which code inside can undo", _LACKING)


async def limit_of_disk(settings: Settings) -> Row:
    room = settings.limit_workspace_bytes
    return ok(
        "limit: disk",
        f"{'none' if room is None else size(room)}, {settings.limit_workspace_files or 'any number of'} files, "
        f"by a watch; each file by RLIMIT_FSIZE",
    )


async def _groups() -> Mapping[str, str]:
    """By controller, the mechanism."""
    return await asyncio.to_thread(kernel_limits) if os.path.exists("/proc/self/mountinfo") else {}
