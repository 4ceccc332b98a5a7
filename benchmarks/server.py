"""The server in a process of its own: its start, its routes, a workspace through it, many readers, a restart, large files.

The 200 tasks are logs that another process over the same database writes, as another replica would: sandboxes for them all would
measure sandboxes.
"""

import asyncio
import json
import random
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.result import Result, median, percentile
from shadow.core.events import TextAdded
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db import tasks
from shadow.db.database import Database, open_database
from shadow.db.group import EventWriter
from tests.support.git_servers import make_repository
from tests.support.servers import Caller, Server, logged_in, running

GOAL_START_S, GOAL_RECOVERS_S, GOAL_P99_MS, GOAL_GROWN_MIB = 2.0, 10.0, 250.0, 64.0
SCRIPT = """version: 1
steps:
- calls: [{tool: finish, arguments: {summary: Did it., success: true}}]
"""
WITHIN_S = 120.0
PIECE = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Sizes:
    starts: int = 5
    calls: int = 500
    readers: int = 500
    logs: int = 200
    streams_s: float = 20.0
    every_s: float = 0.2
    file_bytes: int = 1 << 30


@dataclass
class Readers:
    """Each follows one log by WebSocket, through whatever happens to the server, and insists on an unbroken sequence."""

    caller: Caller
    url: str
    late_ms: list[float] = field(default_factory=list[float])
    seen: dict[int, int] = field(default_factory=dict[int, int])
    """By reader: the number of the last event."""
    connections: int = 0

    async def follow(self, reader: int, task_id: TaskId) -> None:
        self.seen[reader] = 0
        while True:
            url = f"{self.url}/v1/tasks/{task_id}/events/attach?after={self.seen[reader]}"
            try:
                async with self.caller.session.ws_connect(url, headers=self.caller.headers) as socket:
                    self.connections += 1
                    async for message in socket:
                        self._take(reader, json.loads(message.data))
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1 + 0.4 * random.random())

    def _take(self, reader: int, entry: dict[str, Any]) -> None:
        if entry["seq"] != self.seen[reader] + 1:
            raise RuntimeError(f"event {entry['seq']} came behind {self.seen[reader]}")
        self.seen[reader] = entry["seq"]
        self.late_ms.append((time.monotonic() - float(entry["event"]["text"])) * 1e3)


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not done():
            await asyncio.sleep(0.02)


def _memory_mib(server: Server) -> float:
    """The most that it ever had."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


async def _starts(server: Server, count: int) -> list[float]:
    """Seconds from the start of the process to the first 200."""
    took: list[float] = []
    for _ in range(count):
        server.end()
        began = time.perf_counter()
        starting = asyncio.create_task(server.start())
        await _first_answer(server.url)
        took.append(time.perf_counter() - began)
        await starting
    return took


async def _first_answer(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(WITHIN_S):
        while True:
            try:
                async with session.get(f"{url}/v1/health/live") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.002)


async def _timed(count: int, call: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds."""
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1e3)
    return took


async def _routes(caller: Caller, task: str, workspace: str, count: int) -> dict[str, float | str]:
    """Medians and p99 as ratios to those of the route that does nothing."""
    of_task, of_workspace = f"/v1/tasks/{task}", f"/v1/workspaces/{workspace}"
    live = await _timed(count, lambda: caller.call("GET", "/v1/health/live"))
    told: dict[str, float | str] = {"live_p50_ms": median(live), "live_p99_ms": percentile(live, 99)}
    for name, path in {
        "me": "/v1/me",
        "tasks": "/v1/tasks",
        "task": of_task,
        "events": f"{of_task}/events",
        "queue": f"{of_task}/queue",
        "checkpoints": f"{of_task}/checkpoints",
        "commands": f"{of_workspace}/commands",
        "files_list": f"{of_workspace}/files/list",
        "files_stat": f"{of_workspace}/files/stat?path=a.txt",
        "files_lines": f"{of_workspace}/files/lines?path=a.txt",
    }.items():
        took = await _timed(count, lambda path=path: caller.call("GET", path))
        told[f"{name}_p50_ratio"] = median(took) / median(live)
        told[f"{name}_p99_ratio"] = percentile(took, 99) / percentile(live, 99)
    command = {"argv": ["/bin/true"]}
    took = await _timed(count // 5, lambda: caller.call("POST", f"{of_workspace}/commands?wait_s=20", command))
    told["command_p50_ms"] = median(took)
    return told


async def _large_file(caller: Caller, server: Server, workspace: str, size: int) -> dict[str, float | str]:
    """Up and down again, through the server; how its memory grew meanwhile."""
    url = f"{server.url}/v1/workspaces/{workspace}/files?path=large"
    piece = secrets.token_bytes(PIECE)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // PIECE):
            yield piece

    before, began = _memory_mib(server), time.perf_counter()
    headers = {**caller.headers, "Content-Type": "application/octet-stream"}
    patient = aiohttp.ClientTimeout(total=WITHIN_S * 5)
    async with caller.session.put(url, data=body(), headers=headers, timeout=patient) as response:
        if response.status != 200:
            raise RuntimeError(await response.text())
    up_s, began = time.perf_counter() - began, time.perf_counter()
    came = 0
    async with caller.session.get(url, headers=caller.headers, timeout=patient) as response:
        async for part in response.content.iter_any():
            came += len(part)
    down_s = time.perf_counter() - began
    if came != size // PIECE * PIECE:
        raise RuntimeError(f"{came} bytes came back")
    return {
        "upload_mb_per_s": size / up_s / 1e6,
        "download_mb_per_s": size / down_s / 1e6,
        "large_file_grown_mib": _memory_mib(server) - before,
    }


async def _logs(database: Database, count: int) -> list[TaskId]:
    ids = [TaskId(f"task_bench{number}") for number in range(count)]
    async with database.write() as transaction:
        for id_ in ids:
            row = Task(
                id=id_,
                title="bench",
                state=TaskState.RUNNING,
                model="bench",
                repository="bench",
                created_at=0,
                updated_at=0,
            )
            await tasks.add(transaction, row)
    return ids


async def _write(writer: EventWriter, ids: Sequence[TaskId], sizes: Sizes) -> int:
    """How many events each log has in the end."""
    rounds = int(sizes.streams_s / sizes.every_s)

    async def write(task_id: TaskId) -> None:
        await asyncio.sleep(random.random() * sizes.every_s)
        for _ in range(rounds):
            await writer.append(task_id, [TextAdded(text=repr(time.monotonic()))])
            await asyncio.sleep(sizes.every_s)

    await asyncio.gather(*(write(id_) for id_ in ids))
    return rounds


async def _many_readers(server: Server, caller: Caller, sizes: Sizes) -> dict[str, float | str]:
    """How late events are, and how long after a restart all have caught up with what was written while it was away."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(server.home / "data"))
        writer = EventWriter(database)
        ids = await _logs(database, sizes.logs)
        readers = Readers(await stack.enter_async_context(_many_connections(caller)), server.url)
        following = [
            asyncio.create_task(readers.follow(number, ids[number % len(ids)])) for number in range(sizes.readers)
        ]
        try:
            await _until(lambda: readers.connections == sizes.readers)
            wanted = await _write(writer, ids, sizes)
            await _until(lambda: all(seq == wanted for seq in readers.seen.values()))
            late_ms, memory_mib = list(readers.late_ms), _memory_mib(server)
            server.end()
            for id_ in ids:
                await writer.append(id_, [TextAdded(text=repr(time.monotonic()))])
            await server.start()
            began = time.perf_counter()
            await _until(lambda: all(seq == wanted + 1 for seq in readers.seen.values()))
            recovered_s = time.perf_counter() - began
        finally:
            for one in following:
                one.cancel()
            for outcome in await asyncio.gather(*following, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome
    return {
        "event_p50_ms": median(late_ms),
        "event_p99_ms": percentile(late_ms, 99),
        "events_per_s": len(late_ms) / sizes.streams_s,
        "recovered_s": recovered_s,
        "memory_mib": memory_mib,
    }


@asynccontextmanager
async def _many_connections(caller: Caller) -> AsyncGenerator[Caller]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Caller(session, caller.url, caller.token)


async def _make_task(caller: Caller, home: Path) -> tuple[str, str]:
    """Its id, and that of its workspace."""
    script = home / "script.yaml"
    script.write_text(SCRIPT)
    source = make_repository(home / "project", {"a.txt": b"one\n"})
    asked = {"repository": str(source), "instruction": "Do it.", "model": f"scripted:{script}"}
    task = (await caller.call("POST", "/v1/tasks", asked))["id"]
    async for entry in caller.events(task):
        if entry["event"]["kind"] == "run_finished":
            break
    return task, (await caller.call("GET", f"/v1/tasks/{task}"))["workspace_id"]


async def measure(sizes: Sizes | None = None) -> Result:
    sizes = sizes or Sizes()
    with tempfile.TemporaryDirectory(prefix="shadow-bench-") as directory:
        home = Path(directory)
        async with running(home) as server:
            starts = await _starts(server, sizes.starts)
            async with logged_in(server) as caller:
                task, workspace = await _make_task(caller, home)
                told = await _routes(caller, task, workspace, sizes.calls)
                told |= await _large_file(caller, server, workspace, sizes.file_bytes)
                await caller.call("DELETE", f"/v1/tasks/{task}")
                told |= await _many_readers(server, caller, sizes)
    told["start_s"] = median(starts)
    reached = (
        median(starts) <= GOAL_START_S
        and float(told["event_p99_ms"]) <= GOAL_P99_MS
        and float(told["recovered_s"]) <= GOAL_RECOVERS_S
        and float(told["large_file_grown_mib"]) <= GOAL_GROWN_MIB
    )
    return Result(
        name="server",
        unit=f"ms, p99, from an event to its reader, {sizes.readers} readers of {sizes.logs} logs of another process",
        ours=float(told["event_p99_ms"]),
        floor=GOAL_P99_MS,
        floor_is="the goal itself: there is no peer for it",
        better="lower",
        goal=f"that; a start in {GOAL_START_S:g} s; all readers caught up {GOAL_RECOVERS_S:g} s after a restart; "
        f"memory grows by {GOAL_GROWN_MIB:g} MiB at most for a large file",
        reached=reached,
        details=told,
    )
