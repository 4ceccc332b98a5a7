"""A terminal to a WebSocket reader, against a bare loop that reads the same program's PTY; echo, reconnect, idle readers."""

import asyncio
import os
import pty
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.memory import kib_of, workspace_pids
from benchmarks.result import Result, median, percentile
from benchmarks.workspaces import workspace
from shadow.core.terminals import TerminalOutput, TerminalSpec
from shadow.execution.interface import TerminalAttachment, TerminalEvent, ToolExecutor

SIZE = 60_000_000
PRODUCER = ("bash", "-c", f"stty raw -echo; yes 0123456789abcdefghijklmnopqrstuvwxyz | head -c {SIZE}")
FLOOD = ("bash", "-c", "stty raw -echo; yes 0123456789abcdefghijklmnopqrstuvwxyz & read -N 1000000")
LOG_BYTES = 512 * 1024 * 1024
ROUNDS = 3
ECHOES = 300
MISSED = 1024 * 1024
IDLE_READERS = 500
GOAL = 0.6
GOAL_RECONNECT_S = 0.1


def _bare_mb_s() -> float:
    master, slave = pty.openpty()
    started = time.perf_counter()
    with subprocess.Popen(PRODUCER, stdin=slave, stdout=slave, stderr=slave, start_new_session=True):
        os.close(slave)
        total = 0
        try:
            while piece := os.read(master, 1 << 20):
                total += len(piece)
        except OSError:  # how a PTY ends
            pass
    os.close(master)
    if total != SIZE:
        raise RuntimeError("the producer stopped early")
    return SIZE / 1e6 / (time.perf_counter() - started)


async def _ours_mb_s(executor: ToolExecutor) -> float:
    started = time.perf_counter()
    terminal = await executor.create_terminal(TerminalSpec(argv=PRODUCER, log_limit_bytes=LOG_BYTES))
    total = 0
    async with executor.attach_terminal(terminal.id, lag_bytes=None) as attachment:
        async for event in attachment:
            total += len(event.data) if isinstance(event, TerminalOutput) else 0
    took = time.perf_counter() - started
    if total != SIZE:
        raise RuntimeError(f"{SIZE - total} bytes were lost")
    await executor.close_terminal(terminal.id)
    return SIZE / 1e6 / took


async def _shown(events: AsyncIterator[TerminalEvent], wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        event = await anext(events)
        seen = seen[-len(wanted) :] + (event.data if isinstance(event, TerminalOutput) else b"")


async def _echoes_ms(attachment: TerminalAttachment) -> list[float]:
    """From a keystroke to its echo."""
    events = aiter(attachment)
    times: list[float] = []
    for number in range(ECHOES):
        key = b"%06d" % number
        started = time.perf_counter()
        await attachment.write(key)
        await _shown(events, key)
        times.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.02)  # as somebody types: not within the frame before
    return times


async def _echo_ms(executor: ToolExecutor) -> list[float]:
    terminal = await executor.create_terminal(TerminalSpec(argv=("bash", "-c", "stty raw -echo; cat")))
    await asyncio.sleep(0.3)
    async with executor.attach_terminal(terminal.id) as attachment:
        times = await _echoes_ms(attachment)
    await executor.close_terminal(terminal.id)
    return times


async def _echo_beside_a_flood_ms(executor: ToolExecutor) -> list[float]:
    """Keystrokes in one terminal, while another writes as fast as it can to a reader of its own."""
    flood = await executor.create_terminal(TerminalSpec(argv=FLOOD))

    async def drain() -> None:
        async with executor.attach_terminal(flood.id) as attachment:
            async for _ in attachment:
                pass

    draining = asyncio.create_task(drain())
    try:
        return await _echo_ms(executor)
    finally:
        draining.cancel()
        await asyncio.wait((draining,))
        await executor.close_terminal(flood.id)


async def _reconnect_s(executor: ToolExecutor) -> list[float]:
    """From attaching with an offset until the megabyte that was missed is complete."""
    line = f"stty raw -echo; head -c {2 * MISSED} /dev/zero | tr '\\0' x; cat"
    terminal = await executor.create_terminal(TerminalSpec(argv=("bash", "-c", line)))
    while (await executor.get_terminal(terminal.id)).output_end < 2 * MISSED:
        await asyncio.sleep(0.05)
    times: list[float] = []
    for _ in range(20):
        started = time.perf_counter()
        missing = MISSED
        async with executor.attach_terminal(terminal.id, after=MISSED) as attachment:
            async for event in attachment:
                missing -= len(event.data) if isinstance(event, TerminalOutput) else 0
                if not missing:
                    times.append(time.perf_counter() - started)
                    break
    await executor.close_terminal(terminal.id)
    return times


async def _echo_beside_idle_readers_ms(executor: ToolExecutor) -> list[float]:
    terminal = await executor.create_terminal(TerminalSpec(argv=("cat",)))
    async with AsyncExitStack() as readers:
        for _ in range(IDLE_READERS):
            await readers.enter_async_context(executor.attach_terminal(terminal.id))
        return await _echo_ms(executor)


async def measure() -> Result:
    async with workspace() as (executor, directory):
        idle_kib, kind = kib_of(workspace_pids(directory))
        ours: list[float] = []
        floor: list[float] = []
        for _ in range(ROUNDS):
            ours.append(await _ours_mb_s(executor))
            floor.append(await asyncio.to_thread(_bare_mb_s))
        after_kib, _ = kib_of(workspace_pids(directory))
        echo, flooded = await _echo_ms(executor), await _echo_beside_a_flood_ms(executor)
        reconnect = await _reconnect_s(executor)
        crowded = await _echo_beside_idle_readers_ms(executor)
    ratio = median(ours) / median(floor)
    return Result(
        name="terminal",
        unit="MB/s, PTY to WebSocket reader",
        ours=median(ours),
        floor=median(floor),
        floor_is="a bare loop that reads the same program's PTY",
        better="higher",
        goal=f"ratio at least {GOAL}, a megabyte missed within {GOAL_RECONNECT_S} s",
        reached=ratio >= GOAL and median(reconnect) <= GOAL_RECONNECT_S,
        details={
            "echo_p50_ms": median(echo),
            "echo_p99_ms": percentile(echo, 99),
            "echo_beside_a_flood_p50_ms": median(flooded),
            "echo_beside_a_flood_p99_ms": percentile(flooded, 99),
            f"echo_beside_{IDLE_READERS}_idle_readers_p50_ms": median(crowded),
            f"echo_beside_{IDLE_READERS}_idle_readers_p99_ms": percentile(crowded, 99),
            "reconnect_after_1_mib_s": median(reconnect),
            "memory_is": kind,
            "holder_and_sidecar_before_mib": idle_kib / 1024,
            "holder_and_sidecar_after_mib": after_kib / 1024,
        },
    )
