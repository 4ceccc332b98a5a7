"""What limits cost a command: its round trip in a workspace with all of them, against one with none, turn by turn."""

import time

from benchmarks.result import Result, median, percentile
from benchmarks.workspaces import manager
from shadow.core.commands import CommandSpec
from shadow.core.limits import Limits
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.interface import ToolExecutor

ROUNDS = 300
GOAL = 1.1
LIMITS = Limits(
    memory_bytes=4 * 1024**3,
    processes=2000,
    cpus=64.0,
    open_files=65536,
    file_size_bytes=16 * 1024**3,
    workspace_bytes=32 * 1024**3,
    workspace_files=1_000_000,
    command_time_s=3600.0,
)


async def _round_trip_ms(executor: ToolExecutor) -> float:
    started = time.perf_counter()
    result = await executor.run(CommandSpec(argv=("/bin/true",)))
    took_ms = (time.perf_counter() - started) * 1e3
    if result.exit_code != 0:
        raise RuntimeError(f"the command ended as {result.ending}")
    return took_ms


async def measure() -> Result:
    limited: list[float] = []
    free: list[float] = []
    async with (
        manager() as (ours, _),
        ours.open(WorkspaceSpec(limits=LIMITS)) as with_limits,
        ours.open(WorkspaceSpec()) as without,
    ):
        # A command that stays makes the watch look all the time.
        await with_limits.start(CommandSpec(argv=("sleep", "1000")))
        await without.start(CommandSpec(argv=("sleep", "1000")))
        for round_ in range(20 + ROUNDS):
            for executor, times in ((with_limits, limited), (without, free)):
                took_ms = await _round_trip_ms(executor)
                if round_ >= 20:
                    times.append(took_ms)
    ours_ms, floor_ms = median(limited), median(free)
    return Result(
        name="limits",
        unit="ms, p50",
        ours=ours_ms,
        floor=floor_ms,
        floor_is="the same command in a workspace without limits",
        better="lower",
        goal=f"ratio at most {GOAL}",
        reached=ours_ms / floor_ms <= GOAL,
        details={"limited_p99_ms": percentile(limited, 99), "free_p99_ms": percentile(free, 99)},
    )
