"""Round trip of a command that does nothing, against a bare spawn and wait of the same program."""

import os
import random
import time
from typing import Literal

from benchmarks.result import Result, median, percentile
from benchmarks.workspaces import workspace
from shadow.core.commands import CommandSpec
from shadow.execution.interface import ToolExecutor
from shadow.execution.sidecar_client.breaker import Breaker, BreakerPolicy
from shadow.execution.sidecar_client.retries import Repeats, RetryPolicy

ROUNDS = 300
BREAKER_ROUNDS = 20_000
GOAL = 4.0


def spawn_and_wait_ms() -> float:
    started = time.perf_counter()
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return (time.perf_counter() - started) * 1e3


async def _round_trip_ms(executor: ToolExecutor, spec: CommandSpec) -> float:
    started = time.perf_counter()
    result = await executor.run(spec)
    took_ms = (time.perf_counter() - started) * 1e3
    if result.exit_code != 0:
        raise RuntimeError(f"the command ended as {result.ending}")
    return took_ms


def breaker_us() -> float:
    """What a closed breaker and a policy for repeats add to a call that is answered."""
    breaker, policy = Breaker(BreakerPolicy()), RetryPolicy()
    started = time.perf_counter()
    for _ in range(BREAKER_ROUNDS):
        breaker.admit(time.monotonic())
        Repeats(policy, until=time.monotonic() + 90, randomness=random.random)
        breaker.answered()
        breaker.left(0)
    return (time.perf_counter() - started) / BREAKER_ROUNDS * 1e6


async def measure() -> Result:
    spec = CommandSpec(argv=("/bin/true",))
    ours: dict[str, list[float]] = {}
    floor: list[float] = []
    transports: tuple[Literal["unix", "tcp"], ...] = ("unix", "tcp")
    for transport in transports:
        async with workspace(transport) as (executor, _):
            for _ in range(20):
                await _round_trip_ms(executor, spec)
            times: list[float] = []
            for _ in range(ROUNDS):
                times.append(await _round_trip_ms(executor, spec))
                floor.append(spawn_and_wait_ms())
            ours[transport] = times
    p50_ms, floor_ms = median(ours["unix"]), median(floor)
    return Result(
        name="exec",
        unit="ms, p50, unix socket",
        ours=p50_ms,
        floor=floor_ms,
        floor_is="posix_spawn and waitpid of /bin/true",
        better="lower",
        goal=f"ratio at most {GOAL}",
        reached=p50_ms / floor_ms <= GOAL,
        details={
            "unix_p99_ms": percentile(ours["unix"], 99),
            "tcp_p50_ms": median(ours["tcp"]),
            "tcp_p99_ms": percentile(ours["tcp"], 99),
            "tcp_ratio": median(ours["tcp"]) / floor_ms,
            "breaker_us": breaker_us(),
        },
    )
