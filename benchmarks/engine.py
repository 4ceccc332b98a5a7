"""What a durable step costs: jobs of many steps on the real worker, against a bare transaction."""

import asyncio
import importlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import structlog
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.result import Result, median, percentile
from shadow.core.jobs import OPEN_STATES, JobId, NewJob
from shadow.db import jobs
from shadow.db.database import FILE, Database, open_database
from shadow.engine.context import Handler, JobContext
from shadow.engine.worker import Worker

STEPS = 600
"""In all, shared by the jobs that run at once."""
AT_ONCE = (1, 10, 50)
BARE = 300
GOAL = 3.0
"""A step looks whether its worker still holds the job and whether it is recorded, before it inserts."""
_BARE = Table("bare", MetaData(), Column("n", Integer, primary_key=True), Column("result", Text))


@dataclass(frozen=True, kw_only=True)
class Figures:
    step_ms: list[float]
    per_s: float


class _Steps(Handler):
    def __init__(self, floor: "_Floor | None") -> None:
        self._floor = floor
        self.took_ms: list[float] = []

    async def run(self, context: JobContext) -> None:
        for number in range(context.job.payload["steps"]):
            started = time.perf_counter()
            await context.step(f"step-{number}", _nothing)
            self.took_ms.append((time.perf_counter() - started) * 1e3)
            if self._floor is not None:
                await self._floor.insert()  # turn by turn: what slows one slows the other


async def _nothing() -> dict[str, int]:
    return {"exit": 0}


async def _run_jobs(database: Database, at_once: int, *, floor: "_Floor | None" = None) -> Figures:
    handler = _Steps(floor)
    log = structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger(50))
    worker = Worker(database, {"steps": handler}, host="here", name="bench", slots=at_once, entropy=os.urandom, log=log)
    payload = {"steps": STEPS // at_once}
    async with database.write() as transaction:
        added = [
            await jobs.add(transaction, NewJob(kind="steps", payload=payload), job_id=JobId(f"job_{at_once}_{number}"))
            for number in range(at_once)
        ]
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        with database.feed.subscribe(jobs.JOBS) as news:
            for job in added:
                while True:
                    async with database.read() as connection:
                        state = (await jobs.get(connection, job.id)).state
                    if state not in OPEN_STATES:
                        break
                    await news.wait()
        took_s = time.perf_counter() - started
        worker.drain()
    if len(handler.took_ms) != at_once * (STEPS // at_once):
        raise RuntimeError("steps are missing")
    return Figures(step_ms=handler.took_ms, per_s=len(handler.took_ms) / took_s)


async def _bare_sqlite_ms(directory: Path) -> list[float]:
    took: list[float] = []
    async with aiosqlite.connect(directory / FILE, isolation_level=None) as connection:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            await connection.execute(f"PRAGMA {pragma}")
        await connection.execute("CREATE TABLE bare (n INTEGER PRIMARY KEY, result TEXT)")
        for number in range(BARE):
            started = time.perf_counter()
            await connection.execute("BEGIN IMMEDIATE")
            await connection.execute("INSERT INTO bare VALUES (?, ?)", (number, '{"exit": 0}'))
            await connection.execute("COMMIT")
            took.append((time.perf_counter() - started) * 1e3)
    return took


async def _bare_postgresql_ms(url: str) -> list[float]:
    asyncpg: Any = importlib.import_module("asyncpg")  # it has no types, and may not be installed
    took: list[float] = []
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE bare (n INTEGER PRIMARY KEY, result TEXT)")
        for number in range(BARE):
            started = time.perf_counter()
            async with connection.transaction():
                await connection.execute("INSERT INTO bare VALUES ($1, $2)", number, '{"exit": 0}')
            took.append((time.perf_counter() - started) * 1e3)
    finally:
        await connection.close()
    return took


class _Floor:
    """One transaction after the other through SQLAlchemy, in a database of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.took_ms: list[float] = []

    async def insert(self) -> None:
        started = time.perf_counter()
        async with self._engine.begin() as connection:
            await connection.execute(insert(_BARE).values(n=len(self.took_ms), result='{"exit": 0}'))
        self.took_ms.append((time.perf_counter() - started) * 1e3)


@asynccontextmanager
async def _floor(directory: Path) -> AsyncGenerator[_Floor]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory / 'floor.db'}")
    try:
        async with engine.connect() as connection:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
                await connection.exec_driver_sql(f"PRAGMA {pragma}")
        async with engine.begin() as connection:
            await connection.run_sync(_BARE.create)
        yield _Floor(engine)
    finally:
        await engine.dispose()


@asynccontextmanager
async def _postgresql() -> AsyncGenerator[str | None]:
    """The URL of a private server that is as safe as it is by default; ``None``: it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield None
        return
    programs = found[-1].parent
    directory = Path(tempfile.mkdtemp(prefix="shadow-pg-", dir="/tmp"))  # a socket's path is short
    prefix: list[str] = []
    if os.geteuid() == 0:  # as which PostgreSQL refuses to run
        shutil.chown(directory, "postgres", "postgres")
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    control = [
        *prefix,
        str(programs / "pg_ctl"),
        "-s",
        "-w",
        "-D",
        str(directory / "data"),
        "-l",
        str(directory / "log"),
    ]
    try:
        made = [*prefix, str(programs / "initdb"), "-D", str(directory / "data"), "-U", "shadow", "-A", "trust", "-N"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/")
        options = f"-k {directory} -c listen_addresses="
        subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
        try:
            yield f"postgresql://shadow@/postgres?host={directory}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _measure(directory: Path, url: str | None) -> dict[int, Figures]:
    async with open_database(directory, url=url) as database:
        await _run_jobs(database, 2)  # warm
        return {at_once: await _run_jobs(database, at_once) for at_once in AT_ONCE}


async def measure() -> Result:
    details: dict[str, float | str] = {}

    def tell(name: str, figures: dict[int, Figures], bare: list[float]) -> None:
        details[f"{name}_bare_p50_ms"] = median(bare)
        for at_once, found in figures.items():
            details[f"{name}_{at_once}_at_once_step_p50_ms"] = median(found.step_ms)
            details[f"{name}_{at_once}_at_once_step_p99_ms"] = percentile(found.step_ms, 99)
            details[f"{name}_{at_once}_at_once_per_s"] = found.per_s

    with tempfile.TemporaryDirectory(prefix="shadow-engine-") as made:
        bare = await _bare_sqlite_ms(Path(made))
    with tempfile.TemporaryDirectory(prefix="shadow-engine-") as made:
        ours = await _measure(Path(made), None)
    with tempfile.TemporaryDirectory(prefix="shadow-engine-") as made:
        async with open_database(Path(made)) as database, _floor(Path(made)) as floor:
            beside = await _run_jobs(database, 1, floor=floor)
    tell("sqlite", ours, bare)
    async with _postgresql() as url:
        if url is None:
            details["postgresql"] = "not installed"
        else:
            bare_postgresql = await _bare_postgresql_ms(url)
            tell("postgresql", await _measure(Path("/nowhere"), url), bare_postgresql)
    ours_ms, floor_ms = median(beside.step_ms), median(floor.took_ms)
    return Result(
        name="engine",
        unit="ms a step, p50, one job on SQLite",
        ours=ours_ms,
        floor=floor_ms,
        floor_is="one INSERT and its transaction by SQLAlchemy on the same driver, turn by turn",
        better="lower",
        goal=f"ratio at most {GOAL}",
        reached=ours_ms / floor_ms <= GOAL,
        details=details,
    )
