"""Workers as processes: killed at any moment, paused while others take over, drained."""

import asyncio
import random
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shadow.core.jobs import Job, JobId, JobState, NewJob
from shadow.db import jobs, messages
from shadow.db.database import Database
from tests.support.databases import Place
from tests.support.job_worker import EFFECTS, KIND
from tests.support.jobs import add_task, ended, job_of
from tests.support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
LEASE_S = 1.0
STEPS = 4
TASKS = 4


class Processes:
    """Worker processes on one database; all of them are dead at the end."""

    def __init__(self, place: Place, log: Path) -> None:
        self._place = place
        self._log = log
        self.alive: list[asyncio.subprocess.Process] = []
        self._started = 0

    async def start(self, *, lease_s: float = LEASE_S) -> asyncio.subprocess.Process:
        self._started += 1
        arguments = (str(self._place.data_dir), self._place.url or "", f"worker-{self._started}", str(lease_s))
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.job_worker", *arguments, stdout=log, stderr=log
            )
        self.alive.append(process)
        return process

    async def end(self, process: asyncio.subprocess.Process, number: signal.Signals) -> int:
        process.send_signal(number)
        self.alive.remove(process)
        async with asyncio.timeout(60):
            return await process.wait()


@asynccontextmanager
async def processes(place: Place, tmp_path: Path) -> AsyncGenerator[Processes]:
    made = Processes(place, tmp_path / "workers.log")
    try:
        yield made
    finally:
        for process in list(made.alive):
            await made.end(process, signal.SIGKILL)


async def add_marking(database: Database, tmp_path: Path, *, number: int, step_s: float) -> list[JobId]:
    """Half of them belong to tasks."""
    directory = tmp_path / "marks"
    directory.mkdir()
    await add_task(database, EFFECTS)
    for task in range(TASKS):
        await add_task(database, f"task_{task}")
    payload = {"directory": str(directory), "steps": STEPS, "step_s": step_s}
    async with database.write() as transaction:
        added = [
            await jobs.add(
                transaction,
                NewJob(
                    kind=KIND,
                    payload=payload,
                    task_id=f"task_{each % TASKS}" if each % 2 else None,
                    max_attempts=1000,
                ),
                job_id=JobId(f"job_{each}"),
            )
            for each in range(number)
        ]
    return [job.id for job in added]


async def check_effects(database: Database, tmp_path: Path, done: list[Job]) -> None:
    """Each step was recorded once, with its effect in the database; no worker ran one that was recorded before it came."""
    async with database.read() as connection:
        effects = Counter(message.text for message in await messages.queue(connection, EFFECTS))
    names = [*(f"step-{number}" for number in range(STEPS)), "end"]
    assert effects == Counter(f"{job.id}/{name}" for job in done for name in names)
    ran: dict[str, list[int]] = defaultdict(list)
    for mark in (tmp_path / "marks").iterdir():
        job_id, name, epoch = mark.name.split(".")
        ran[f"{job_id}/{name}"].append(int(epoch))
    for job in done:
        assert job.state is JobState.DONE
        assert job.result is not None
        for number, epoch in enumerate(job.result["took"]):
            assert max(ran[f"{job.id}/step-{number}"]) == epoch, "run again after it was recorded"


async def kill_at_random(place: Place, tmp_path: Path, *, kills: int, number: int, seed: int) -> None:
    chance = random.Random(seed)
    async with place.open() as database, processes(place, tmp_path) as workers:
        job_ids = await add_marking(database, tmp_path, number=number, step_s=0.05)
        for _ in range(3):
            await workers.start()
        ending = asyncio.create_task(ended(database, *job_ids, within_s=500))
        killed = 0
        while killed < kills and not ending.done():
            await asyncio.sleep(chance.uniform(0.0, 0.6))
            victim = chance.choice(workers.alive)
            if chance.random() < 0.3:
                # Stands still for longer than its lease, and comes back while others are at its work.
                victim.send_signal(signal.SIGSTOP)
                await asyncio.sleep(LEASE_S * 1.2)
                victim.send_signal(signal.SIGCONT)
            else:
                await workers.end(victim, signal.SIGKILL)
                await workers.start()
                killed += 1
        done = await ending
        await check_effects(database, tmp_path, done)
        assert max(job.epoch for job in done) > 1, "nobody was killed at work"


async def test_workers_that_are_killed_and_paused_do_no_step_twice(shared_place: Place, tmp_path: Path) -> None:
    await kill_at_random(shared_place, tmp_path, kills=20, number=60, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_many_workers_that_are_killed_and_paused_do_no_step_twice(
    shared_place: Place, tmp_path: Path, seed: int
) -> None:
    await kill_at_random(shared_place, tmp_path, kills=60, number=300, seed=seed)


async def test_several_workers_share_the_work(shared_place: Place, tmp_path: Path) -> None:
    async with shared_place.open() as database, processes(shared_place, tmp_path) as workers:
        job_ids = await add_marking(database, tmp_path, number=24, step_s=0.1)
        for _ in range(2):
            await workers.start(lease_s=30)
        done = await ended(database, *job_ids, within_s=60)
        await check_effects(database, tmp_path, done)
        assert {job.worker for job in done} == {"worker-1", "worker-2"}
        assert all(job.attempts == 1 for job in done)


async def test_a_drained_worker_hands_its_jobs_over_at_once(shared_place: Place, tmp_path: Path) -> None:
    async with shared_place.open() as database, processes(shared_place, tmp_path) as workers:
        (job_id, *_) = await add_marking(database, tmp_path, number=1, step_s=0.5)
        first = await workers.start(lease_s=300)

        async def began() -> bool:
            return (await job_of(database, job_id)).state is JobState.RUNNING

        await until(began, within_s=30)
        assert await workers.end(first, signal.SIGTERM) == 0
        job = await job_of(database, job_id)
        assert (job.state, job.attempts) == (JobState.WAITING, 0)
        await workers.start(lease_s=300)
        done = await ended(database, job_id, within_s=60)
        await check_effects(database, tmp_path, done)
        assert (done[0].attempts, done[0].epoch) == (1, 2)


async def test_a_killed_worker_s_jobs_go_on_within_the_lease(shared_place: Place, tmp_path: Path) -> None:
    async with shared_place.open() as database, processes(shared_place, tmp_path) as workers:
        (job_id, *_) = await add_marking(database, tmp_path, number=1, step_s=1.0)
        first = await workers.start(lease_s=2)

        async def began() -> bool:
            return (await job_of(database, job_id)).state is JobState.RUNNING

        await until(began, within_s=30)
        second = await workers.start(lease_s=2)
        await workers.end(first, signal.SIGKILL)
        lease_until = (await job_of(database, job_id)).lease_until or 0

        async def taken_over() -> bool:
            return (await job_of(database, job_id)).epoch == 2

        await until(taken_over, within_s=30)
        async with database.read() as connection:
            late_s = await database.now(connection) - lease_until
        await check_effects(database, tmp_path, await ended(database, job_id, within_s=60))
        assert second in workers.alive
        assert late_s < 2.5
