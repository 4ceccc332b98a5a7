"""The engine as a machine: workers that stand still, die and come back, clocks that jump, answers that are lost.

Each move is judged by what the database holds before and after it. At the end everybody is well again, and everything must end.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sqlalchemy import select

from shadow.core.errors import Conflict, Unavailable
from shadow.core.jobs import OPEN_STATES, Job, JobId, JobLimits, JobState, NewJob
from shadow.core.tasks import QueuedMessage, Task, TaskId, TaskState
from shadow.db import claims, jobs, messages, tables, tasks
from shadow.db.database import Database, Fence, Transaction, open_database
from shadow.db.errors import LeaseLost
from shadow.engine.context import JobContext
from shadow.engine.retries import RetryPolicy

LEASE_S = 30.0
STEPS = 2
WORKERS = 3
LIMITS = JobLimits(total=3, per_owner=2, per_kind={"slow": 1})
TASKS = (TaskId("task_a"), TaskId("task_b"))
EFFECTS = TaskId("task_effects")
"""Its queue has one message for each effect of a step."""
ONCE = RetryPolicy(attempts=1)

JUMPS_S = (1.0, 10.0, LEASE_S, LEASE_S + 1, 3600.0)
MOVES = (
    *["claim"] * 5,
    *["step"] * 6,
    *["wait"] * 5,
    *["haunt"] * 3,
    *["renew", "done", "ask to stop", "pause", "resurrect", "lose"] * 2,
    *["add", "failed", "retry", "hand back", "crash", "cancel", "refuse"],
)
"""Each as often as it stands here."""
ENDS = ("step", "done", "failed", "retry", "hand back")

workers = st.integers(0, WORKERS - 1)
any_number = st.integers(0, 1000)


new_jobs = st.builds(
    NewJob,
    task_id=st.sampled_from([*TASKS, None]),
    kind=st.sampled_from(["quick", "slow"]),
    payload=st.just({}),
    owner=st.sampled_from(["ann", "bob"]),
    priority=st.integers(0, 1),
    host=st.sampled_from([None, None, "a", "b"]),
    delay_s=st.sampled_from([0.0, 0.0, 20.0]),
    max_attempts=st.integers(1, 3),
)


class Unreliable:
    """A database whose writes may fail: before they happened, or afterwards, when nobody says so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.refused = self.lost = 0

    @asynccontextmanager
    async def write(self, *, fence: Fence | None = None) -> AsyncGenerator[Transaction]:
        if self.refused:
            self.refused -= 1
            raise Unavailable("No answer.")
        async with self._database.write(fence=fence) as transaction:
            yield transaction
        if self.lost:
            self.lost -= 1
            raise Unavailable("No answer.")


@dataclass(eq=False)
class Held:
    job: Job
    context: JobContext
    done: int = 0

    @property
    def fence(self) -> Fence:
        return self.context.fence


@dataclass(eq=False)
class SimulatedWorker:
    name: str
    host: str
    is_paused: bool = False
    held: list[Held] = field(default_factory=list)


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.time = 1_000_000.0
        self.stack = AsyncExitStack()
        self.sims = [SimulatedWorker(f"worker-{n}", "ab"[n % 2]) for n in range(WORKERS)]
        self.added: list[JobId] = []

    def run_async(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    @initialize(new=st.lists(new_jobs, min_size=3, max_size=8))
    def begin(self, new: list[NewJob]) -> None:
        self.run_async(self._begin())
        for job in new:
            self.add(job)

    async def _begin(self) -> None:
        opened = open_database(Path("/nowhere"), url="sqlite://", clock=lambda: self.time)
        self.database = await self.stack.enter_async_context(opened)
        self.unreliable = Unreliable(self.database)
        async with self.database.write() as transaction:
            for task_id in (*TASKS, EFFECTS):
                now = transaction.now
                made = Task(
                    id=task_id,
                    title="",
                    state=TaskState.IDLE,
                    model="",
                    repository="",
                    created_at=now,
                    updated_at=now,
                )
                await tasks.add(transaction, made)

    def teardown(self) -> None:
        try:
            self.run_async(self._heal())
        finally:
            self.run_async(self.stack.aclose())
            self.runner.close()

    # What the database holds

    async def _jobs(self) -> dict[str, Job]:
        async with self.database.read() as connection:
            found = [
                *(await jobs.of_task(connection, None)),
                *[job for task_id in TASKS for job in await jobs.of_task(connection, task_id)],
            ]
        return {job.id: job for job in found}

    async def _written(self) -> tuple[Counter[str], Counter[str]]:
        """The steps that are recorded, and the effects that came with them, as ``job/step``."""
        async with self.database.read() as connection:
            rows = await connection.execute(select(tables.job_steps.c.job_id, tables.job_steps.c.name))
            steps = Counter(f"{job_id}/{name}" for job_id, name in rows)
            effects = Counter(message.text for message in await messages.queue(connection, EFFECTS))
        return steps, effects

    # Moves

    def add(self, new: NewJob) -> None:
        job_id = JobId(f"job_{len(self.added)}")

        async def add() -> None:
            try:
                async with self.unreliable.write() as transaction:
                    await jobs.add(transaction, new, job_id=job_id)
            except Unavailable:
                async with self.database.write() as transaction:
                    await jobs.add(transaction, new, job_id=job_id)

        self.run_async(add())
        self.added.append(job_id)

    @rule(moves=st.lists(st.tuples(st.sampled_from(MOVES), workers, any_number, new_jobs), min_size=8, max_size=8))
    def go_on(self, moves: list[tuple[str, int, int, NewJob]]) -> None:
        """One rule for all moves: each comes as often as it matters, among the others."""
        for move in moves:
            self.move(*move)
            self.run_async(self._check())

    def move(self, what: str, worker: int, which: int, new: NewJob) -> None:
        sim, holders = self.sims[worker], self.holders()
        if what == "add":
            self.add(new)
        elif what == "claim" and not sim.is_paused:
            self.run_async(self._claim(sim, 1 + which % 3))
        elif what in ("pause", "resurrect", "crash"):
            self.disturb(sim, what)
        elif what in ("ask to stop", "cancel"):
            self.run_async(self._request(self.added[which % len(self.added)], cancel=what == "cancel"))
        elif what in ("lose", "refuse"):
            self.unreliable.lost, self.unreliable.refused = int(what == "lose"), int(what == "refuse")
        elif what == "wait":
            self.time += JUMPS_S[which % len(JUMPS_S)]
        elif what == "haunt" and holders:
            self.haunt(*holders[which % len(holders)], ENDS[which % len(ENDS)])
        elif holders:
            self.work(*holders[which % len(holders)], what)
        else:
            # Nobody has anything to do it with: let them have.
            self.disturb(sim, "resurrect")
            self.time += LEASE_S + 1
            self.run_async(self._claim(sim, 3))

    def haunt(self, sim: SimulatedWorker, held: Held, what: str) -> None:
        """Somebody takes the job over where that is possible; then its older worker tries to go on with it."""
        self.time += LEASE_S + 1
        for other in self.sims:
            if other is not sim and not other.is_paused:
                self.run_async(self._claim(other, 3))
        self.work(sim, held, what)

    async def _claim(self, sim: SimulatedWorker, wanted: int) -> None:
        before = await self._jobs()
        taken: list[Job] = []
        try:
            async with self.unreliable.write() as transaction:
                taken = list(
                    await claims.claim(
                        transaction,
                        worker=sim.name,
                        host=sim.host,
                        kinds=("quick", "slow"),
                        lease_s=LEASE_S,
                        limits=LIMITS,
                        wanted=wanted,
                    )
                )
        except Unavailable:
            taken = []
        after = await self._jobs()
        new = {job_id for job_id in after if after[job_id].epoch != before[job_id].epoch}
        assert new >= {job.id for job in taken}
        assert len(new) <= wanted
        for job_id in new:
            self._was_free(before[job_id])
            assert after[job_id].epoch == before[job_id].epoch + 1
            assert after[job_id].host in (None, sim.host)
        if new:
            self._within_limits(after)
        for job in taken:
            assert job == after[job.id]
            async with self.database.read() as connection:
                recorded = await jobs.recorded_steps(connection, job.id)
            context = JobContext(
                job,
                Fence(job_id=job.id, epoch=job.epoch),
                self.unreliable,  # type: ignore[arg-type]
                stop=asyncio.Event(),
                recorded=recorded,
            )
            sim.held.append(Held(job, context))

    def _was_free(self, job: Job) -> None:
        if job.state is JobState.RUNNING:
            assert job.lease_until is not None
            assert job.lease_until <= self.time, "taken from somebody whose lease holds"
        else:
            assert job.state is JobState.WAITING
            assert job.run_at <= self.time

    def _within_limits(self, now: dict[str, Job]) -> None:
        live = [job for job in now.values() if job.state is JobState.RUNNING and (job.lease_until or 0) > self.time]
        assert len(live) <= (LIMITS.total or 0)
        assert max(Counter(job.owner for job in live).values()) <= (LIMITS.per_owner or 0)
        assert sum(job.kind == "slow" for job in live) <= 1

    def holders(self) -> list[tuple[SimulatedWorker, Held]]:
        return [(sim, held) for sim in self.sims if not sim.is_paused for held in sim.held]

    def work(self, sim: SimulatedWorker, held: Held, what: str) -> None:
        if what == "renew":
            self.run_async(self._renew(sim))
            return
        does = {"step": self._next_step, "done": self._done, "failed": self._failed, "retry": self._retry}
        self.run_async(self._judged(sim, held, does.get(what, self._hand_back), ends=what != "step"))

    async def _next_step(self, held: Held) -> None:
        name = f"step-{held.done % STEPS}"

        async def act() -> tuple[int, str]:
            return (held.fence.epoch, name)

        async def also(transaction: Transaction, result: list[Any]) -> None:
            assert result == [held.fence.epoch, name]
            waiting = await messages.queue(transaction.connection, EFFECTS)
            text = f"{held.job.id}/{name}"
            await messages.add(transaction, QueuedMessage(id=f"message_{len(waiting)}", task_id=EFFECTS, text=text))

        result = await held.context.step(name, act, retries=ONCE, also=also)
        assert result[1] == name
        assert result[0] <= held.fence.epoch
        held.done += 1

    async def _done(self, held: Held) -> None:
        if held.job.is_failing:
            await self._failed(held)
            return
        while held.done < STEPS:
            await self._next_step(held)
        await self._write(lambda transaction: jobs.finish(transaction, held.fence, JobState.DONE, result={}))

    async def _failed(self, held: Held) -> None:
        error = Conflict("It cannot be.")
        await self._write(lambda transaction: jobs.begin_failing(transaction, held.fence, error))
        await self._write(lambda transaction: jobs.finish(transaction, held.fence, JobState.FAILED, error=error))

    async def _retry(self, held: Held) -> None:
        if held.job.is_failing or held.job.attempts >= held.job.max_attempts:
            await self._failed(held)
            return
        error = Unavailable("Not now.")
        await self._write(lambda transaction: jobs.retry_later(transaction, held.fence, 10.0, error))

    async def _hand_back(self, held: Held) -> None:
        await self._write(lambda transaction: jobs.hand_back(transaction, held.fence))

    async def _write(self, change: Callable[[Transaction], Awaitable[None]]) -> None:
        try:
            async with self.unreliable.write() as transaction:
                await change(transaction)
        except Unavailable:
            # Whether it was written nobody knows: if it was, the second time finds no lease.
            async with self.database.write() as transaction:
                await change(transaction)

    async def _judged(
        self, sim: SimulatedWorker, held: Held, do: Callable[[Held], Awaitable[None]], *, ends: bool
    ) -> None:
        """Who holds the lease may write; who does not, writes nothing at all."""
        jobs_before, written_before = await self._jobs(), await self._written()
        job = jobs_before[held.job.id]
        holds = job.state is JobState.RUNNING and job.epoch == held.fence.epoch
        may_lose = bool(self.unreliable.lost)
        try:
            await do(held)
        except LeaseLost:
            assert not holds or may_lose
            ends = True
        if not holds:
            assert (jobs_before, written_before) == (await self._jobs(), await self._written())
        if ends:
            sim.held.remove(held)

    async def _renew(self, sim: SimulatedWorker) -> None:
        now = await self._jobs()
        fences = {held.fence for held in sim.held}
        valid = {
            fence
            for fence in fences
            if now[fence.job_id].state is JobState.RUNNING and now[fence.job_id].epoch == fence.epoch
        }
        try:
            async with self.unreliable.write() as transaction:
                kept = await jobs.renew(transaction, fences, LEASE_S)
        except Unavailable:
            return
        assert kept == valid
        now = await self._jobs()
        assert all(now[fence.job_id].lease_until == self.time + LEASE_S for fence in kept)
        sim.held = [held for held in sim.held if held.fence in kept]

    @staticmethod
    def disturb(sim: SimulatedWorker, what: str) -> None:
        sim.is_paused = what == "pause"
        if what == "crash":
            sim.held.clear()

    async def _request(self, job_id: JobId, *, cancel: bool) -> None:
        before = (await self._jobs())[job_id]
        async with self.database.write() as transaction:
            if cancel:
                could = before.state is JobState.WAITING and before.epoch == 0
                assert await jobs.cancel_waiting(transaction, job_id) is could
            else:
                await jobs.request_stop(transaction, job_id)
        after = (await self._jobs())[job_id]
        if not cancel:
            assert after.stop_requested is (before.stop_requested or before.state in OPEN_STATES)
            assert (after.epoch, after.state) == (before.epoch, before.state)

    # What always holds

    async def _check(self) -> None:
        steps, effects = await self._written()
        assert steps == effects
        assert not [name for name, count in effects.items() if count != 1], "an effect without its step, or twice"
        now = await self._jobs()
        assert all(job.attempts <= job.max_attempts + 1 for job in now.values()), "begun too often"
        for task_id in TASKS:
            of_task = [now[job_id] for job_id in self.added if now[job_id].task_id == task_id]
            begun = [number for number, job in enumerate(of_task) if job.epoch > 0]
            earlier = of_task[: max(begun, default=0)]
            assert all(job.state not in OPEN_STATES for job in earlier), "two at once, or not in their order"
        fences = Counter(held.fence for sim in self.sims for held in sim.held)
        assert not [fence for fence, count in fences.items() if count != 1]

    async def _heal(self) -> None:
        """All workers die, new ones come: nothing is stuck."""
        self.unreliable.lost = self.unreliable.refused = 0
        ends_within = 4 * len(self.added) + 4
        for _ in range(ends_within):
            self.time += LEASE_S + 1
            for sim in self.sims:
                sim.held.clear()
                await self._claim(sim, 3)
                for held in list(sim.held):
                    await self._done(held)
            if all(job.state not in OPEN_STATES for job in (await self._jobs()).values()):
                break
        ended = await self._jobs()
        assert all(job.state not in OPEN_STATES for job in ended.values()), "stuck"
        steps, effects = await self._written()
        assert steps == effects
        for job in ended.values():
            if job.state is JobState.DONE:
                assert [steps[f"{job.id}/step-{number}"] for number in range(STEPS)] == [1] * STEPS


EXAMPLES = settings(
    max_examples=25, stateful_step_count=10, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class TestEngine(EngineMachine.TestCase):
    settings = EXAMPLES


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestEngineAtLength(EngineMachine.TestCase):
    settings = settings(EXAMPLES, max_examples=300, stateful_step_count=20)
