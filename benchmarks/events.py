"""What the event log carries: events a second, how long one takes to its reader; and listing tasks."""

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.databases import postgresql as postgresql_url
from benchmarks.result import Result, median, percentile
from shadow.core.events import TextAdded
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db import events, tasks
from shadow.db.codec import encode_event
from shadow.db.database import Database, open_database
from shadow.db.group import EventWriter

TEXT = "a piece of what a model says, as long as they are; " * 2
EVENTS, LOGS, BATCH = 40_000, 20, 50
LATENCIES = 300
TASKS, PAGE = 10_000, 1000
GOAL_LISTING_MS = 50.0

_READER = """
import asyncio, sys, time
from pathlib import Path
from shadow.db import events
from shadow.db.database import open_database

async def main():
    async with open_database(Path(sys.argv[1]), url=sys.argv[2] or None) as database:
        print("open", flush=True)
        async for recorded in events.follow(database, "task_across"):
            took = time.monotonic_ns() - int(recorded.event.text)
            print(took / 1e6, flush=True)

asyncio.run(main())
"""


def _task(task_id: TaskId, *, created_at: float = 0) -> Task:
    return Task(
        id=task_id,
        title="Mend the opening hours of the shop on public holidays",
        state=TaskState.IDLE,
        model="bench",
        repository="/srv/repositories/openhours",
        created_at=created_at,
        updated_at=created_at,
    )


async def _add(database: Database, task_id: TaskId) -> None:
    async with database.write() as transaction:
        await tasks.add(transaction, _task(task_id))


async def _append_rate(database: Database) -> float:
    """Events a second, many logs in batches."""
    writer = EventWriter(database)
    batch = [TextAdded(text=TEXT)] * BATCH

    async def write(number: int) -> None:
        for _ in range(EVENTS // LOGS // BATCH):
            await writer.append(TaskId(f"task_{number}"), batch)

    started = time.perf_counter()
    await asyncio.gather(*(write(number) for number in range(LOGS)))
    return EVENTS / (time.perf_counter() - started)


def _bare_rate(path: Path) -> float:
    """The same rows by SQLite's own module, in transactions as large as ours are."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(
            "CREATE TABLE events (task_id TEXT, seq INTEGER, at REAL, kind TEXT, body TEXT, PRIMARY KEY (task_id, seq)) "
            "WITHOUT ROWID"
        )
        started = time.perf_counter()
        for round_ in range(EVENTS // LOGS // BATCH):
            connection.execute("BEGIN IMMEDIATE")
            for log in range(LOGS):
                rows = [
                    (f"task_{log}", round_ * BATCH + n, 1.0, "text_added", encode_event(TextAdded(text=TEXT)))
                    for n in range(BATCH)
                ]
                connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        return EVENTS / (time.perf_counter() - started)


async def _here_ms(database: Database) -> list[float]:
    """From before an append to its reader, in one process."""
    took: list[float] = []
    task_id = TaskId("task_inside")
    await _add(database, task_id)
    writer = EventWriter(database)
    reader = asyncio.create_task(_read(database, task_id, took))
    for number in range(1, LATENCIES + 1):
        await writer.append(task_id, [TextAdded(text=str(time.monotonic_ns()))])
        while len(took) < number:
            await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait({reader})
    return took


async def _read(database: Database, task_id: TaskId, took: list[float]) -> None:
    async for recorded in events.follow(database, task_id):
        assert isinstance(recorded.event, TextAdded)
        took.append((time.monotonic_ns() - int(recorded.event.text)) / 1e6)


async def _across_ms(database: Database, directory: Path, url: str | None) -> list[float]:
    """From before an append to a reader in another process."""
    task_id = TaskId("task_across")
    await _add(database, task_id)
    argv = [sys.executable, "-c", _READER, str(directory), url or ""]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.readline)
    took: list[float] = []
    writer = EventWriter(database)
    for _ in range(LATENCIES):
        await writer.append(task_id, [TextAdded(text=str(time.monotonic_ns()))])
        took.append(float(await asyncio.to_thread(process.stdout.readline)))
    process.kill()
    process.communicate()
    return took[20:]  # without those before it listens


async def _listing_ms(database: Database, limit: int) -> float:
    took: list[float] = []
    for _ in range(10):
        started = time.perf_counter()
        async with database.read() as connection:
            found = await tasks.newest(connection, limit=limit)
        took.append((time.perf_counter() - started) * 1e3)
        assert len(found) == limit
    return median(took)


async def _on(directory: Path, url: str | None) -> dict[str, float]:
    async with open_database(directory, url=url) as database:
        for number in range(LOGS):
            await _add(database, TaskId(f"task_{number}"))
        rate = await _append_rate(database)
        here = await _here_ms(database)
        across = await _across_ms(database, directory, url)
        async with database.write() as transaction:
            for number in range(TASKS):
                await tasks.add(transaction, _task(TaskId(f"task_listed{number}"), created_at=1 + number))
        return {
            "events_per_s": rate,
            "inside_p50_ms": median(here),
            "inside_p99_ms": percentile(here, 99),
            "across_p50_ms": median(across),
            "across_p99_ms": percentile(across, 99),
            "list_page_ms": await _listing_ms(database, PAGE),
            "list_all_ms": await _listing_ms(database, TASKS),
        }


async def measure() -> Result:
    with tempfile.TemporaryDirectory(prefix="shadow-bench-") as name:
        directory = Path(name)
        bare = _bare_rate(directory / "bare.db")
        sqlite = await _on(directory / "sqlite", None)
        url = postgresql_url()
        postgresql = {} if url is None else await _on(directory / "postgresql", url)
    return Result(
        name="events",
        unit=f"events/s, {LOGS} logs, batches of {BATCH}, SQLite",
        ours=sqlite["events_per_s"],
        floor=bare,
        floor_is="the same rows by Python's own sqlite3",
        better="higher",
        goal=f"a page of {PAGE} of {TASKS} tasks within {GOAL_LISTING_MS:.0f} ms",
        reached=all(found["list_page_ms"] <= GOAL_LISTING_MS for found in (sqlite, postgresql) if found),
        details={
            f"{kind}_{what}": value
            for kind, found in (("sqlite", sqlite), ("postgresql", postgresql))
            for what, value in found.items()
        },
    )
