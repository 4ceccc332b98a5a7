"""200 tasks whose models stream at once, each with a reader: from a model's piece to its reader, and the memory that it takes."""

import asyncio
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.databases import postgresql
from benchmarks.result import Result, median, percentile
from shadow.agent.task_log import open_log
from shadow.core.events import ModelAsked, TaskEvent, TextAdded
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db import events, tasks
from shadow.db.database import Database, open_database
from shadow.db.group import EventWriter

TASKS = 200
STREAMS_S = 6.0
PACE_S = 0.05
GOAL_MS = 250.0
END = "end"


def _task(task_id: TaskId) -> Task:
    return Task(
        id=task_id,
        title="bench",
        state=TaskState.RUNNING,
        model="bench",
        repository="bench",
        created_at=0,
        updated_at=0,
    )


async def _stream(writer: EventWriter, task_id: TaskId, draw: random.Random) -> int:
    """How many pieces were told."""

    async def store(told: Sequence[TaskEvent]) -> None:
        await writer.append(task_id, told)

    pieces = 0
    async with open_log(store) as log:
        until = time.perf_counter() + STREAMS_S
        while time.perf_counter() < until:
            await asyncio.sleep(PACE_S * draw.uniform(0.5, 1.5))
            log.tell(TextAdded(text=f"{time.perf_counter()} "))
            pieces += 1
            if pieces % 30 == 0:
                log.tell(ModelAsked(step=pieces))
                await log.flush()
        log.tell(TextAdded(text=END, reasoning=True))
    return pieces


async def _read(database: Database, task_id: TaskId, late_ms: list[float]) -> int:
    """How many pieces came; how late each was."""
    pieces = 0
    seq = 0
    async for recorded in events.follow(database, task_id):
        seq += 1
        if recorded.seq != seq:
            raise RuntimeError(f"event {recorded.seq} came where {seq} was next")
        event = recorded.event
        if isinstance(event, TextAdded):
            if event.text == END:
                return pieces
            now = time.perf_counter()
            told = [float(word) for word in event.text.split()]
            late_ms += [(now - at) * 1e3 for at in told]
            pieces += len(told)
    raise RuntimeError("the log ended")


async def _on(directory: Path, url: str | None) -> dict[str, float]:
    async with open_database(directory, url=url) as database:
        ids = [TaskId(f"task_{number}") for number in range(TASKS)]
        async with database.write() as transaction:
            for id_ in ids:
                await tasks.add(transaction, _task(id_))
        writer = EventWriter(database)
        late_ms: list[float] = []
        reading = [asyncio.create_task(_read(database, id_, late_ms)) for id_ in ids]
        began = time.process_time()
        told = await asyncio.gather(*(_stream(writer, id_, random.Random(id_)) for id_ in ids))
        spent_s = time.process_time() - began
        came = await asyncio.gather(*reading)
    if list(told) != list(came):
        raise RuntimeError("pieces were lost or came twice")
    return {
        "p50_ms": median(late_ms),
        "p99_ms": percentile(late_ms, 99),
        "pieces_per_s": sum(told) / STREAMS_S,
        "cpu_share": spent_s / STREAMS_S,
    }


async def measure() -> Result:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(prefix="shadow-bench-") as directory:
        found = {"sqlite": await _on(Path(directory), None)}
        if (url := postgresql()) is not None:
            found["postgresql"] = await _on(Path(directory), url)
    p99_ms = found["sqlite"]["p99_ms"]
    return Result(
        name="streaming",
        unit=f"ms, p99, from a model's piece to its reader, {TASKS} tasks at once, SQLite",
        ours=p99_ms,
        floor=GOAL_MS,
        floor_is="the goal itself: there is no peer for it",
        better="lower",
        goal=f"at most {GOAL_MS:g} ms on each database, nothing lost",
        reached=all(figures["p99_ms"] <= GOAL_MS for figures in found.values()),
        details={
            **{f"{kind}_{what}": value for kind, figures in found.items() for what, value in figures.items()},
            "memory_grown_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        },
    )
