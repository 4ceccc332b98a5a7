"""Jobs and schedules in each kind of database: who gets which, when, and what a lost lease may still do."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import func, select

from shadow.core.errors import Conflict, NotFound, Unavailable
from shadow.core.jobs import JobId, JobLimits, JobState, NewJob
from shadow.db import claims, jobs, tables, tasks
from shadow.db.database import Database, Fence
from shadow.db.errors import LeaseLost
from shadow.db.schedules import add_due, ensure_schedule, remove_schedule
from tests.support.databases import Place
from tests.support.jobs import add_job, add_task, claim, job_of

pytestmark = pytest.mark.anyio
EXPIRED_S = -1.0
"""A lease that has run out when it is given."""


def fence_of(job_id: str, epoch: int) -> Fence:
    return Fence(job_id=job_id, epoch=epoch)


async def test_a_job_is_what_was_added(database: Database) -> None:
    task_id = await add_task(database)
    job_id = await add_job(database, payload={"nul": "\0", "half": "\ud800"}, task_id=task_id, priority=3, host="there")
    job = await job_of(database, job_id)
    assert (job.payload, job.task_id, job.priority, job.host) == ({"nul": "\0", "half": "\ud800"}, task_id, 3, "there")
    assert (job.state, job.attempts, job.epoch, job.worker, job.result) == (JobState.WAITING, 0, 0, None, None)


async def test_a_repeated_add_changes_nothing(database: Database) -> None:
    for priority in (1, 2):
        async with database.write() as transaction:
            new = NewJob(kind="work", payload={}, priority=priority)
            job = await jobs.add(transaction, new, job_id=JobId("job_same"))
    assert job.priority == 1


async def test_a_job_of_no_task_is_refused(database: Database) -> None:
    with pytest.raises(NotFound):
        await add_job(database, task_id="task_nowhere")
    with pytest.raises(NotFound):
        await job_of(database, JobId("job_nowhere"))


async def test_priority_goes_before_age(database: Database) -> None:
    added = [await add_job(database, priority=priority) for priority in (0, 1, 0, 2)]
    taken = [job.id for job in await claim(database)]
    assert taken == [added[3], added[1], added[0], added[2]]


async def test_no_more_than_wanted_and_none_twice(database: Database) -> None:
    added = {await add_job(database) for _ in range(5)}
    first = {job.id for job in await claim(database, wanted=3)}
    second = {job.id for job in await claim(database, wanted=3)}
    assert (len(first), first | second, first & second) == (3, added, set())


async def test_of_a_task_only_the_first_open_job(database: Database) -> None:
    task_id = await add_task(database)
    first, second = [await add_job(database, task_id=task_id, priority=priority) for priority in (0, 9)]
    assert [job.id for job in await claim(database)] == [first]
    assert await claim(database) == []
    async with database.write() as transaction:
        await jobs.retry_later(transaction, fence_of(first, 1), 1000.0, Unavailable("Not now."))
    assert await claim(database) == [], "the second one waits also while the first one does"
    async with database.write() as transaction:
        await jobs.request_stop(transaction, first)
    (again,) = await claim(database)
    assert (again.id, again.epoch, again.attempts, again.stop_requested) == (first, 2, 2, True)
    async with database.write() as transaction:
        await jobs.finish(transaction, fence_of(first, 2), JobState.DONE, result={"ok": True})
    assert [job.id for job in await claim(database)] == [second]
    async with database.read() as connection:
        assert [job.id for job in await jobs.of_task(connection, task_id)] == [first, second]
        assert [job.id for job in await jobs.of_task(connection, task_id, open_only=True)] == [second]


async def test_only_its_host_and_its_kinds(database: Database) -> None:
    await add_job(database, host="there")
    await add_job(database, "unknown")
    assert await claim(database, host="here") == []
    assert len(await claim(database, host="there")) == 1


async def test_a_job_waits_for_its_time(database: Database) -> None:
    await add_job(database, delay_s=1000.0)
    assert await claim(database) == []
    async with database.read() as connection:
        now = await database.now(connection)
        due, next_at = await claims.upcoming(connection, now, host="here", kinds=["work"])
    assert not due
    assert next_at == pytest.approx(now + 1000, abs=30)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (JobLimits(total=3), 3),
        (JobLimits(per_owner=1), 2),
        (JobLimits(per_owner=2), 4),
        (JobLimits(per_kind={"other": 1}), 5),
        (JobLimits(per_kind={"other": 0, "work": 1}), 1),
        (JobLimits(total=0), 0),
        (JobLimits(total=9, per_owner=3, per_kind={"work": 2}), 6),
        (JobLimits(), 8),
    ],
)
async def test_limits_count_what_runs(database: Database, limits: JobLimits, expected: int) -> None:
    for owner in ("ann", "bob"):
        for kind in ("other", "other", "work", "work"):
            await add_job(database, kind, owner=owner)
    taken = [job for _ in range(4) for job in await claim(database, limits=limits, wanted=2)]
    assert len(taken) == expected
    assert await claim(database, limits=limits) == []


async def test_a_full_owner_keeps_nobody_else_waiting(database: Database) -> None:
    for _ in range(150):
        await add_job(database, owner="ann", priority=1)
    other = await add_job(database, owner="bob")
    taken = await claim(database, limits=JobLimits(per_owner=2), wanted=10)
    assert Counter(job.owner for job in taken) == {"ann": 2, "bob": 1}
    assert taken[-1].id == other


async def test_an_expired_lease_is_taken_over_and_the_older_worker_writes_nothing(database: Database) -> None:
    job_id = await add_job(database)
    await claim(database, worker="one", lease_s=EXPIRED_S)
    (job,) = await claim(database, worker="two", limits=JobLimits(total=1))
    assert (job.id, job.epoch, job.attempts, job.worker) == (job_id, 2, 2, "two")
    older = fence_of(job_id, 1)
    changes = (
        lambda transaction: jobs.finish(transaction, older, JobState.DONE),
        lambda transaction: jobs.retry_later(transaction, older, 0.0, Unavailable("Not now.")),
        lambda transaction: jobs.hand_back(transaction, older),
        lambda transaction: jobs.begin_failing(transaction, older, Conflict("No.")),
        lambda transaction: jobs.record_step(transaction, older, "step", "null", 1),
        lambda transaction: transaction.check(older),
    )
    for change in changes:
        with pytest.raises(LeaseLost):
            async with database.write() as transaction:
                await change(transaction)
    async with database.write() as transaction:
        assert await jobs.renew(transaction, [older, fence_of(job_id, 2)], 30.0) == {fence_of(job_id, 2)}
    assert (await job_of(database, job_id)).worker == "two"


async def test_a_lease_that_ran_out_is_renewed_while_nobody_took_it(database: Database) -> None:
    job_id = await add_job(database)
    await claim(database, lease_s=EXPIRED_S)
    async with database.write() as transaction:
        assert await jobs.renew(transaction, [fence_of(job_id, 1)], 30.0) == {fence_of(job_id, 1)}
    assert await claim(database) == []


async def test_a_job_whose_workers_are_always_lost_fails(database: Database) -> None:
    job_id = await add_job(database, max_attempts=2)
    for attempt in (1, 2):
        (job,) = await claim(database, lease_s=EXPIRED_S)
        assert (job.attempts, job.is_failing) == (attempt, False)
    (job,) = await claim(database, lease_s=EXPIRED_S)
    assert job.is_failing, "it may begin no more, only make good"
    assert job == await job_of(database, job_id)
    assert await claim(database) == []
    job = await job_of(database, job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"


async def test_what_was_handed_back_was_no_attempt(database: Database) -> None:
    job_id = await add_job(database, max_attempts=1)
    for epoch in (1, 2, 3):
        (job,) = await claim(database)
        assert (job.epoch, job.attempts) == (epoch, 1)
        async with database.write() as transaction:
            await jobs.hand_back(transaction, fence_of(job_id, epoch))
    assert (await job_of(database, job_id)).attempts == 0


async def test_a_step_is_recorded_once(database: Database) -> None:
    job_id = await add_job(database)
    await claim(database)
    fence = fence_of(job_id, 1)
    async with database.write() as transaction:
        assert await jobs.record_step(transaction, fence, "step", '{"n": 1}', 1)
    async with database.write() as transaction:
        assert not await jobs.record_step(transaction, fence, "step", '{"n": 2}', 1)
    async with database.read() as connection:
        assert await jobs.recorded_steps(connection, job_id) == {"step": {"n": 1}}


async def test_only_what_nobody_began_is_cancelled(database: Database) -> None:
    waiting, begun = await add_job(database), await add_job(database, priority=1)
    await claim(database, wanted=1)
    async with database.write() as transaction:
        assert await jobs.cancel_waiting(transaction, waiting)
        assert not await jobs.cancel_waiting(transaction, begun)
        await jobs.hand_back(transaction, fence_of(begun, 1))
        assert not await jobs.cancel_waiting(transaction, begun)
    assert (await job_of(database, waiting)).state is JobState.CANCELLED
    async with database.write() as transaction:
        await jobs.request_stop(transaction, waiting)
    assert not (await job_of(database, waiting)).stop_requested


async def test_ended_jobs_without_a_task_are_forgotten_in_time(database: Database) -> None:
    task_id = await add_task(database)
    kept = [await add_job(database, task_id=task_id), await add_job(database, delay_s=1000)]
    gone = await add_job(database)
    for job in await claim(database):
        async with database.write() as transaction:
            fence = fence_of(job.id, job.epoch)
            await jobs.record_step(transaction, fence, "step", "null", 1)
            await jobs.finish(transaction, fence, JobState.DONE)
    async with database.write() as transaction:
        assert await jobs.prune(transaction, 1000.0) == 0
        assert await jobs.prune(transaction, -1000.0) == 1
    with pytest.raises(NotFound):
        await job_of(database, gone)
    assert [(await job_of(database, job_id)).id for job_id in kept] == kept
    async with database.read() as connection:
        assert await jobs.recorded_steps(connection, gone) == {}


async def test_a_deleted_task_takes_its_jobs_and_their_leases_with_it(database: Database) -> None:
    task_id = await add_task(database)
    job_id = await add_job(database, task_id=task_id)
    await claim(database)
    async with database.write() as transaction:
        await tasks.delete(transaction, task_id)
    with pytest.raises(LeaseLost):
        async with database.write() as transaction:
            await jobs.record_step(transaction, fence_of(job_id, 1), "step", "null", 1)


# Several at once


async def test_claims_at_the_same_time_share_jobs_and_keep_limits(shared_place: Place) -> None:
    limits = JobLimits(total=7, per_owner=4)
    async with shared_place.open() as first, shared_place.open() as second:
        for number in range(20):
            await add_job(first, owner=("ann", "bob")[number % 2])
        claims = [
            claim((first, second)[number % 2], worker=str(number), limits=limits, wanted=2) for number in range(12)
        ]
        taken = [job for found in await asyncio.gather(*claims) for job in found]
        assert len(taken) == len({job.id for job in taken}) == 7
        assert max(Counter(job.owner for job in taken).values()) <= 4


async def test_jobs_of_a_task_that_are_added_at_the_same_time_have_an_order(shared_place: Place) -> None:
    async with shared_place.open() as first, shared_place.open() as second:
        task_id = await add_task(first)
        await asyncio.gather(*(add_job((first, second)[number % 2], task_id=task_id) for number in range(10)))
        async with first.read() as connection:
            numbers = select(tables.jobs.c.number).order_by(tables.jobs.c.number)
            assert list((await connection.execute(numbers)).scalars()) == list(range(1, 11))


# Schedules


async def _due(database: Database, kind: str = "work") -> list[JobId]:
    ids = iter(f"job_due_{number}" for number in range(100))
    async with database.write() as transaction:
        before = (await transaction.connection.execute(select(func.count()).select_from(tables.jobs))).scalar_one()

        def make_job_id() -> JobId:
            return JobId(f"{next(ids)}_{before}")

        return [job.id for job in await add_due(transaction, kinds=[kind], make_job_id=make_job_id)]


async def _end_all(database: Database) -> None:
    for job in await claim(database):
        async with database.write() as transaction:
            await jobs.finish(transaction, fence_of(job.id, job.epoch), JobState.DONE)


async def test_a_schedule_adds_one_job_after_a_long_pause(place: Place) -> None:
    now = 1_000_000.0
    if place.url is not None and place.url.startswith("postgresql"):
        pytest.skip("its time is the server's own")
    async with place.open(clock=lambda: now) as database:
        async with database.write() as transaction:
            await ensure_schedule(transaction, "clean", kind="work", payload={"what": 1}, every_s=60.0)
        assert len(await _due(database)) == 1
        assert await _due(database) == []
        now += 60
        assert await _due(database) == [], "its last one is still open"
        await _end_all(database)
        now += 10_000
        assert len(await _due(database)) == 1
        await _end_all(database)
        assert await _due(database) == []
        now += 59.9  # the beat is kept: 60, 120, …
        assert len(await _due(database)) == 1


async def test_a_schedule_is_due_once_for_many_workers(shared_place: Place) -> None:
    async with shared_place.open() as first, shared_place.open() as second:
        ensured = []
        for number in range(6):
            database = (first, second)[number % 2]

            async def ensure(database: Database = database) -> None:
                async with database.write() as transaction:
                    await ensure_schedule(transaction, "clean", kind="work", payload={}, every_s=3600.0)

            ensured.append(ensure())
        await asyncio.gather(*ensured)
        added = await asyncio.gather(*(_due((first, second)[number % 2]) for number in range(6)))
        assert sum(map(len, added)) == 1


async def test_a_schedule_of_a_kind_that_nobody_here_does_is_left_alone(database: Database) -> None:
    async with database.write() as transaction:
        await ensure_schedule(transaction, "clean", kind="other", payload={}, every_s=60.0)
        await ensure_schedule(transaction, "clean", kind="other", payload={}, every_s=30.0)
    assert await _due(database, "work") == []
    async with database.write() as transaction:
        await remove_schedule(transaction, "clean")
    assert await _due(database, "other") == []
