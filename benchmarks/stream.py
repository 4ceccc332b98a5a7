"""200 MB of a command's output to our client, against reading the same producer's pipe."""

import asyncio
import subprocess
import time

from benchmarks.memory import kib_of, workspace_pids
from benchmarks.result import Result, median
from benchmarks.workspaces import workspace
from shadow.core.commands import CommandSpec, Output, Overflow

SIZE = 200_000_000
PRODUCER = ("bash", "-c", f"yes 0123456789abcdefghijklmnopqrstuvwxyz | head -c {SIZE}")
ROUNDS = 3
GOAL_MB_S = 150.0


def _bare_mb_s() -> float:
    started = time.perf_counter()
    total = 0
    with subprocess.Popen(PRODUCER, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 20):
            total += len(piece)
    if total != SIZE:
        raise RuntimeError("the producer stopped early")
    return SIZE / 1e6 / (time.perf_counter() - started)


async def measure() -> Result:
    ours: list[float] = []
    floor: list[float] = []
    peak_kib = 0
    async with workspace() as (executor, directory):
        before_kib, kind = kib_of(workspace_pids(directory))
        for _ in range(ROUNDS):
            started = time.perf_counter()
            command = await executor.start(CommandSpec(argv=PRODUCER, overflow=Overflow.WAIT))
            total = 0
            next_look = SIZE // 4
            async for piece in executor.read_output(command.id):
                if not isinstance(piece, Output):
                    raise TypeError(f"bytes were lost: {piece}")
                total += len(piece.data)
                if total >= next_look:
                    next_look += SIZE // 4
                    peak_kib = max(peak_kib, kib_of(workspace_pids(directory))[0])
            ours.append(SIZE / 1e6 / (time.perf_counter() - started))
            if total != SIZE:
                raise RuntimeError(f"{SIZE - total} bytes were lost")
            floor.append(await asyncio.to_thread(_bare_mb_s))
    return Result(
        name="stream",
        unit="MB/s, raw frames over a unix socket",
        ours=median(ours),
        floor=median(floor),
        floor_is="the same producer read from a bare pipe",
        better="higher",
        goal=f"at least {GOAL_MB_S:.0f} MB/s",
        reached=median(ours) >= GOAL_MB_S,
        details={
            "memory_is": kind,
            "holder_and_sidecar_idle_mib": before_kib / 1024,
            "holder_and_sidecar_peak_mib": peak_kib / 1024,
        },
    )
