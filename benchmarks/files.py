"""Reading and writing 1 KB and 10 MB, against plain aiohttp moving the same bytes."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.result import Result, median
from benchmarks.workspaces import workspace
from shadow.execution.interface import ToolExecutor

SMALL, LARGE = 1000, 10_000_000
GOAL = 0.4


@asynccontextmanager
async def _peer() -> AsyncGenerator[aiohttp.ClientSession, None]:
    with tempfile.TemporaryDirectory(prefix="shadow-bench-") as directory:
        path = Path(directory) / "socket"
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.peer", str(path), directory)
        try:
            async with asyncio.timeout(20):
                while not path.exists():
                    await asyncio.sleep(0.01)
            connector = aiohttp.UnixConnector(str(path))
            async with aiohttp.ClientSession("http://peer", connector=connector, read_bufsize=1 << 20) as session:
                yield session
        finally:
            process.terminate()
            await process.wait()


async def _peer_write(session: aiohttp.ClientSession, data: bytes) -> None:
    async with session.put("/file", data=data) as response:
        response.raise_for_status()


async def _peer_read(session: aiohttp.ClientSession, size: int) -> None:
    async with session.get("/file") as response:
        if len(await response.read()) != size:
            raise RuntimeError("the peer lost bytes")


async def _read(executor: ToolExecutor, size: int) -> None:
    if len((await executor.read_file("file")).content) != size:
        raise RuntimeError("bytes were lost")


async def _median_ms(
    action: Callable[[], Awaitable[object]], other: Callable[[], Awaitable[object]], rounds: int
) -> tuple[float, float]:
    """Both in turn, so that a slow moment of the machine meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        for call, kept in zip((action, other), times, strict=True):
            started = time.perf_counter()
            await call()
            if number >= 2:
                kept.append((time.perf_counter() - started) * 1e3)
    return median(times[0]), median(times[1])


async def measure() -> Result:
    details: dict[str, float | str] = {}
    speeds: dict[str, float] = {}
    async with workspace() as (executor, _), _peer() as session:
        for label, size, rounds in (("1kb", SMALL, 150), ("10mb", LARGE, 15)):
            data = os.urandom(size)
            write_ms, peer_write_ms = await _median_ms(
                lambda data=data: executor.write_file("file", data),
                lambda data=data: _peer_write(session, data),
                rounds,
            )
            read_ms, peer_read_ms = await _median_ms(
                lambda size=size: _read(executor, size), lambda size=size: _peer_read(session, size), rounds
            )
            details |= {
                f"write_{label}_ms": write_ms,
                f"write_{label}_peer_ms": peer_write_ms,
                f"read_{label}_ms": read_ms,
                f"read_{label}_peer_ms": peer_read_ms,
            }
            speeds |= {f"write_{label}": peer_write_ms / write_ms, f"read_{label}": peer_read_ms / read_ms}
    both_ms = float(details["write_10mb_ms"]) + float(details["read_10mb_ms"])
    peer_ms = float(details["write_10mb_peer_ms"]) + float(details["read_10mb_peer_ms"])
    worst = min(speeds["write_10mb"], speeds["read_10mb"])
    return Result(
        name="files",
        unit="MB/s, 10 MB written and read",
        ours=2 * LARGE / both_ms / 1e3,
        floor=2 * LARGE / peer_ms / 1e3,
        floor_is="plain aiohttp server and client, unix socket, no checks",
        better="higher",
        goal=f"reading and writing 10 MB each at least {GOAL} of the peer's speed",
        reached=worst >= GOAL,
        details=details | {f"{name}_ratio": ratio for name, ratio in speeds.items()},
    )
