"""The server in a process of its own: its start, its routes, a workspace through it, large files; many tasks and their readers.

The many tasks run in the server's own worker, with a model that says the time and mocked workspaces (``loaded_server``):
sandboxes for them all would measure sandboxes.
"""

import asyncio
import json
import os
import random
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.result import Result, median, percentile
from shadow.core.events import TextAdded
from shadow.core.tasks import TaskId
from shadow.db.database import open_database
from shadow.db.group import EventWriter
from shadow.wire.server_sent import EventDecoder
from tests.support.git_servers import make_repository
from tests.support.servers import Caller, Server, logged_in, running

GOALS = {
    "event_p99_ms": 250.0,
    "start_s": 2.0,
    "recovered_s": 10.0,
    "memory_grown_mib": 32.0,
    "large_file_grown_mib": 64.0,
}
SSE_EACH = 5
"""One reader in so many reads server-sent events."""
ENDLESS = aiohttp.ClientTimeout(total=None)
SCRIPT = """version: 1
steps:
- calls: [{tool: finish, arguments: {summary: Did it., success: true}}]
"""
WITHIN_S = 120.0
PIECE = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Sizes:
    starts: int = 3
    calls: int = 200
    readers: int = 500
    tasks: int = 200
    warm_s: float = 5.0
    measured_s: float = 10.0
    file_bytes: int = 1 << 30


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not done():
            await asyncio.sleep(0.02)


def _status(server: Server, name: str) -> int:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))


def _peak_mib(server: Server) -> float:
    """The most memory that it ever had."""
    return _status(server, "VmHWM") / 1024


def _memory_mib(server: Server) -> float:
    return _status(server, "VmRSS") / 1024


def _cpu_s(server: Server) -> float:
    assert server.process is not None
    times = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


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

    before, began = _peak_mib(server), time.perf_counter()
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
        "large_file_grown_mib": _peak_mib(server) - before,
    }


@dataclass
class Readers:
    """Each follows one log, most by WebSocket, through whatever happens to the server, and insists on an unbroken sequence."""

    caller: Caller
    url: str
    measuring: bool = False
    late_ms: list[float] = field(default_factory=list[float])
    """From a piece of what a model says to a reader of it."""
    stored_ms: list[float] = field(default_factory=list[float])
    """From the beginning of the transaction that stores an event."""
    seen: dict[int, int] = field(default_factory=dict[int, int])
    """By reader: the number of the last event."""
    connections: int = 0

    async def follow(self, reader: int, task_id: str) -> None:
        self.seen[reader] = 0
        read = self._by_events if reader % SSE_EACH == 0 else self._by_socket
        while True:
            with suppress(aiohttp.ClientError):
                await read(reader, f"{self.url}/v1/tasks/{task_id}/events")
            await asyncio.sleep(0.1 + 0.4 * random.random())

    async def _by_socket(self, reader: int, log: str) -> None:
        url = f"{log}/attach?after={self.seen[reader]}"
        async with self.caller.session.ws_connect(url, headers=self.caller.headers) as socket:
            self.connections += 1
            async for message in socket:
                self._take(reader, json.loads(message.data))

    async def _by_events(self, reader: int, log: str) -> None:
        url, decoder = f"{log}/stream?after={self.seen[reader]}", EventDecoder()
        async with self.caller.session.get(url, headers=self.caller.headers, timeout=ENDLESS) as response:
            response.raise_for_status()
            self.connections += 1
            async for data in response.content.iter_any():
                for _, told in decoder.feed(data):
                    self._take(reader, json.loads(told))

    def _take(self, reader: int, entry: dict[str, Any]) -> None:
        if entry["seq"] != self.seen[reader] + 1:
            raise RuntimeError(f"event {entry['seq']} came behind {self.seen[reader]}")
        self.seen[reader] = entry["seq"]
        if self.measuring:
            self.stored_ms.append((time.time() - entry["at"]) * 1e3)
            if entry["event"]["kind"] == "text_added":
                now = time.monotonic()
                self.late_ms += [(now - float(said)) * 1e3 for said in entry["event"]["text"].split()]


@asynccontextmanager
async def _reading(readers: Readers, ids: Sequence[str], count: int) -> AsyncGenerator[None]:
    following = [asyncio.create_task(readers.follow(number, ids[number % len(ids)])) for number in range(count)]

    def all_follow() -> bool:
        for one in following:
            if one.done():
                one.result()
        return readers.connections >= count

    try:
        await _until(all_follow)
        yield
    finally:
        for one in following:
            one.cancel()
        for outcome in await asyncio.gather(*following, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def _many(home: Path, sizes: Sizes) -> dict[str, float | str]:
    """So many tasks at work in the server, so many readers of them; and what a kill and a start in the middle are to these."""
    script, source = home / "script.yaml", make_repository(home / "project", {"a.txt": b"one\n"})
    script.write_text(SCRIPT)
    asked = {"repository": str(source), "instruction": "Tell the time.", "model": f"scripted:{script}"}
    here = {
        "AGENT_MODE": "mock",
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "SHADOW_LIMIT_TASKS": str(sizes.tasks),
        "SHADOW_WORKER_LEASE_S": "15",
    }
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running(home, module="benchmarks.loaded_server", **here))
        caller = await stack.enter_async_context(_many_connections(await stack.enter_async_context(logged_in(server))))
        began = time.perf_counter()
        ids = [(await caller.call("POST", "/v1/tasks", asked))["id"] for _ in range(sizes.tasks)]
        told: dict[str, float | str] = {"create_task_ms": (time.perf_counter() - began) * 1e3 / sizes.tasks}
        readers = Readers(caller, server.url)
        async with _reading(readers, ids, sizes.readers):
            (home / "go").touch()
            told |= await _loaded(server, readers, sizes)
            told["recovered_s"] = await _restarted(server, readers, ids, sizes)
    return told


async def _loaded(server: Server, readers: Readers, sizes: Sizes) -> dict[str, float | str]:
    """Memory is looked at after as long as is measured, and after three times as long."""
    await asyncio.sleep(sizes.warm_s)
    before, cpu_s, began = sum(readers.seen.values()), _cpu_s(server), time.perf_counter()
    readers.measuring = True
    await asyncio.sleep(sizes.measured_s)
    readers.measuring = False
    took_s = time.perf_counter() - began
    figures: dict[str, float | str] = {
        "event_p50_ms": median(readers.late_ms),
        "event_p99_ms": percentile(readers.late_ms, 99),
        "stored_p50_ms": median(readers.stored_ms),
        "stored_p99_ms": percentile(readers.stored_ms, 99),
        "deliveries_per_s": (sum(readers.seen.values()) - before) / took_s,
        "cpu_share": (_cpu_s(server) - cpu_s) / took_s,
    }
    memory_mib = _memory_mib(server)
    await asyncio.sleep(2 * sizes.measured_s)
    return figures | {"memory_mib": memory_mib, "memory_grown_mib": _memory_mib(server) - memory_mib}


async def _restarted(server: Server, readers: Readers, ids: Sequence[str], sizes: Sizes) -> float:
    """Seconds from the start after a kill until each reader has what was written into its log while nothing served it."""
    server.end()
    ends: dict[str, int] = {}
    async with open_database(server.home / "data") as database:
        writer = EventWriter(database)
        for id_ in ids:
            ends[id_] = (await writer.append(TaskId(id_), [TextAdded(text="", reasoning=True)]))[-1].seq
    began = time.perf_counter()
    await server.start()
    await _until(lambda: all(seq >= ends[ids[reader % len(ids)]] for reader, seq in readers.seen.items()))
    return time.perf_counter() - began


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
        home, other = Path(directory) / "local", Path(directory) / "mock"
        home.mkdir()
        other.mkdir()
        async with running(home) as server:
            starts = await _starts(server, sizes.starts)
            async with logged_in(server) as caller:
                task, workspace = await _make_task(caller, home)
                told = await _routes(caller, task, workspace, sizes.calls)
                told |= await _large_file(caller, server, workspace, sizes.file_bytes)
                await caller.call("DELETE", f"/v1/tasks/{task}")
        told |= await _many(other, sizes)
    told["start_s"] = median(starts)
    reached = all(float(told[name]) <= most for name, most in GOALS.items())
    return Result(
        name="server",
        unit=f"ms, p99, from a model's piece to its reader, {sizes.readers} readers of {sizes.tasks} tasks of its worker",
        ours=float(told["event_p99_ms"]),
        floor=GOALS["event_p99_ms"],
        floor_is="the goal itself: there is no peer for it",
        better="lower",
        goal=", ".join(f"{name} {most:g}" for name, most in GOALS.items()),
        reached=reached,
        details=told,
    )
