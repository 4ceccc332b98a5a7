"""The real worker, in this process, on the databases that several processes can share."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from shadow.core.errors import Broken, Conflict, ShadowError, Unavailable
from shadow.core.jobs import Job, JobLimits, JobState
from shadow.core.tasks import QueuedMessage, TaskId
from shadow.db import claims, jobs, messages, tasks
from shadow.db.database import Database, Fence, Transaction
from shadow.db.engines import PAUSED_S
from shadow.db.errors import LeaseLost
from shadow.db.schedules import ensure_schedule
from shadow.engine.context import JobContext, Stopped
from shadow.engine.retries import RetryPolicy
from tests.support.databases import POSTGRESQL, Place, make_place
from tests.support.jobs import Does, add_job, add_task, claim, ended, job_of, worker
from tests.support.waiting import until

pytestmark = pytest.mark.anyio
FAST = RetryPolicy(attempts=3, first_s=0.001)


@pytest.fixture
async def database(shared_place: Place) -> AsyncGenerator[Database]:
    async with shared_place.open() as opened:
        yield opened


async def said(database: Database, task_id: TaskId) -> list[str]:
    async with database.read() as connection:
        return [message.text for message in await messages.queue(connection, task_id)]


def says(task_id: TaskId, text: str, *, message_id: str = "message") -> Any:
    async def say(transaction: Transaction, _result: object = None) -> None:
        await messages.add(transaction, QueuedMessage(id=message_id, task_id=task_id, text=text))

    return say


async def test_the_result_of_a_handler_is_the_jobs(database: Database) -> None:
    async def run(context: JobContext) -> dict[str, Any]:
        return {"got": context.job.payload}

    async with worker(database, {"work": Does(run)}):
        (job,) = await ended(database, await add_job(database, payload={"n": 1}))
    assert (job.state, job.result, job.attempts, job.error) == (JobState.DONE, {"got": {"n": 1}}, 1, None)


async def test_a_job_begins_at_its_time(database: Database) -> None:
    async def run(context: JobContext) -> dict[str, Any]:
        async with database.read() as connection:
            return {"early_s": context.job.run_at - await database.now(connection)}

    async with worker(database, {"work": Does(run)}):
        (job,) = await ended(database, await add_job(database, delay_s=0.3))
    assert job.result is not None
    assert job.result["early_s"] <= 0


async def test_a_failed_step_is_tried_again_and_its_result_is_json(database: Database) -> None:
    tries: list[int] = []

    async def action() -> dict[str, Any]:
        tries.append(len(tries))
        if len(tries) < 3:
            raise Unavailable("Not yet.")
        return {"pair": (1, "\ud800\0")}

    async def run(context: JobContext) -> dict[str, Any]:
        first = await context.step("step", action, retries=FAST)
        second = await context.step("step", action, retries=FAST)
        assert first == second == {"pair": [1, "\ud800\0"]}
        return {}

    async with worker(database, {"work": Does(run)}):
        (job,) = await ended(database, await add_job(database))
    assert (job.state, len(tries)) == (JobState.DONE, 3)


async def test_what_goes_with_a_job_that_is_put_off_is_written_with_it(database: Database) -> None:
    task_id = await add_task(database)

    class Patient(Does):
        retries = RetryPolicy(attempts=3, first_s=0.001)

        async def put_off(self, transaction: Transaction, job: Job, error: ShadowError, wait_s: float) -> None:
            await says(task_id, f"{error.message} {job.attempts}", message_id=f"message-{job.attempts}")(transaction)
            assert 0 < wait_s < 0.01

    async def run(context: JobContext) -> None:
        raise Unavailable("Not now.")

    async with worker(database, {"work": Patient(run)}):
        (job,) = await ended(database, await add_job(database, max_attempts=20))
    assert (job.state, job.attempts) == (JobState.FAILED, 3)
    assert await said(database, task_id) == ["Not now. 1", "Not now. 2"]


async def test_a_job_that_is_tried_again_keeps_its_steps(database: Database) -> None:
    task_id = await add_task(database)
    ran: list[str] = []

    async def first() -> str:
        ran.append("first")
        return "kept"

    async def second() -> None:
        ran.append("second")
        if ran.count("second") == 1:
            raise Unavailable("Not now.")

    async def run(context: JobContext) -> dict[str, Any]:
        kept = await context.step("first", first, also=says(task_id, "once"))
        await context.step("second", second, retries=RetryPolicy(attempts=1))
        return {"kept": kept}

    async with worker(database, {"work": Does(run)}):
        job_id = await add_job(database)
        (job,) = await ended(database, job_id)
    assert (job.state, job.attempts, job.result) == (JobState.DONE, 1, {"kept": "kept"})  # counted anew with each step
    assert ran == ["first", "second", "second"]
    assert await said(database, task_id) == ["once"]


async def test_what_goes_with_a_step_is_written_with_it_or_not_at_all(database: Database) -> None:
    task_id = await add_task(database)

    async def action() -> None: ...

    async def also(transaction: Transaction, _result: object) -> None:
        await says(task_id, "half")(transaction)
        raise Conflict("No.")

    async def run(context: JobContext) -> None:
        await context.step("step", action, also=also)

    async with worker(database, {"work": Does(run)}):
        job_id = await add_job(database)
        (job,) = await ended(database, job_id)
    assert job.state is JobState.FAILED
    assert await said(database, task_id) == []
    async with database.read() as connection:
        assert await jobs.recorded_steps(connection, job_id) == {}


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (Conflict("It is there.", mend="Remove it."), "conflict"),
        (Unavailable("Nobody answers."), "unavailable"),
        (ValueError("a secret"), "broken"),
        (asyncio.CancelledError(), "broken"),
        (TimeoutError(), "broken"),
    ],
    ids=str,
)
async def test_a_failure_is_made_good_and_its_reason_kept(database: Database, raised: BaseException, code: str) -> None:
    task_id = await add_task(database)

    async def run(context: JobContext) -> None:
        context.finish_with(says(task_id, "done"))
        raise raised

    async def compensate(context: JobContext, error: ShadowError) -> None:
        assert context.job.attempts == 1
        context.finish_with(says(task_id, f"failed: {error.code}"))

    async with worker(database, {"work": Does(run, compensate)}):
        (job,) = await ended(database, await add_job(database, max_attempts=1))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == code
    assert "secret" not in job.error["message"]
    assert await said(database, task_id) == [f"failed: {code}"]


@pytest.mark.parametrize("raised", [Conflict("Nor that."), ValueError(), Stopped()], ids=repr)
async def test_a_failure_that_cannot_be_made_good_is_still_the_first_one(database: Database, raised: Exception) -> None:
    task_id = await add_task(database)

    async def run(context: JobContext) -> None:
        raise Broken("First.")

    async def compensate(context: JobContext, error: ShadowError) -> None:
        context.finish_with(says(task_id, "made good"))
        raise raised

    async with worker(database, {"work": Does(run, compensate)}):
        (job,) = await ended(database, await add_job(database))
    assert job.error is not None
    assert (job.state, job.error["message"]) == (JobState.FAILED, "First.")
    assert await said(database, task_id) == []


async def test_the_ending_belongs_to_the_job_s_end(database: Database) -> None:
    task_id = await add_task(database)

    async def run(context: JobContext) -> None:
        context.finish_with(says(task_id, "end"))
        if context.job.attempts == 1:
            raise Unavailable("Once more.")

    async with worker(database, {"work": Does(run)}):
        await ended(database, await add_job(database, task_id=task_id))
    assert await said(database, task_id) == ["end"]


async def test_an_ending_that_cannot_be_written_fails_the_job(database: Database) -> None:
    async def run(context: JobContext) -> None:
        async def ending(_: Transaction) -> None:
            raise Conflict("Not from here.")

        context.finish_with(ending)

    async with worker(database, {"work": Does(run)}):
        (job,) = await ended(database, await add_job(database))
    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "conflict")


async def test_a_handler_hears_of_a_stop_from_another_process_and_decides(
    database: Database, shared_place: Place
) -> None:
    began = asyncio.Event()

    async def run(context: JobContext) -> None:
        began.set()
        await context.stop.wait()
        raise Stopped

    async with worker(database, {"work": Does(run)}), shared_place.open() as elsewhere:
        job_id = await add_job(elsewhere)
        await began.wait()
        asked_at = asyncio.get_running_loop().time()
        async with elsewhere.write() as transaction:
            await jobs.request_stop(transaction, job_id)
        (job,) = await ended(database, job_id)
        took_s = asyncio.get_running_loop().time() - asked_at
    assert job.state is JobState.CANCELLED
    assert took_s < 1.5, "it came by the feed, not by the look each 2 s"


async def test_a_stop_ends_the_wait_for_another_attempt(database: Database) -> None:
    tried = asyncio.Event()

    async def action() -> None:
        tried.set()
        raise Unavailable("Not now.")

    async def run(context: JobContext) -> None:
        await context.step("step", action, retries=RetryPolicy(first_s=1000, most_s=1000))

    async with worker(database, {"work": Does(run)}):
        job_id = await add_job(database)
        await tried.wait()
        async with database.write() as transaction:
            await jobs.request_stop(transaction, job_id)
        (job,) = await ended(database, job_id)
    assert job.state is JobState.CANCELLED


async def test_a_stop_reaches_a_job_that_waits_to_be_tried_again(database: Database) -> None:
    async def run(context: JobContext) -> None:
        if context.stop.is_set():
            raise Stopped
        raise Unavailable("Not now.")

    async with worker(database, {"work": Does(run)}):
        job_id = await add_job(database)

        async def waits() -> bool:
            job = await job_of(database, job_id)
            return job.state is JobState.WAITING and job.attempts == 1

        await until(waits)
        async with database.write() as transaction:
            await jobs.request_stop(transaction, job_id)
        (job,) = await ended(database, job_id)
    assert job.state is JobState.CANCELLED


async def test_leases_are_renewed_while_handlers_run(database: Database) -> None:
    end = asyncio.Event()

    async def run(context: JobContext) -> None:
        await end.wait()

    async with worker(database, {"work": Does(run)}, lease_s=0.6):
        job_ids = [await add_job(database) for _ in range(3)]
        first: dict[str, float] = {}

        async def renewed() -> bool:
            found = [await job_of(database, job_id) for job_id in job_ids]
            leases = {job.id: job.lease_until for job in found if job.lease_until is not None}
            first.update({job_id: lease for job_id, lease in leases.items() if job_id not in first})
            return len(leases) == 3 and all(leases[job_id] > first[job_id] + 1.2 for job_id in job_ids)

        await until(renewed)
        end.set()
        found = await ended(database, *job_ids)
    assert [(job.epoch, job.state) for job in found] == [(1, JobState.DONE)] * 3


async def test_a_handler_whose_lease_was_taken_is_cancelled_and_writes_nothing(database: Database) -> None:
    task_id = await add_task(database)
    came_to: list[object] = []
    began = asyncio.Event()

    async def run(context: JobContext) -> None:
        began.set()
        try:
            await asyncio.sleep(1000)
        finally:
            try:
                async with context.write() as transaction:
                    await says(task_id, "late")(transaction)
            except LeaseLost as error:
                came_to.append(error.code)

    async with worker(database, {"work": Does(run)}):
        job_id = await add_job(database)
        await began.wait()
        # As if the lease had run out and another worker had come.
        async with database.write() as transaction:
            await jobs.hand_back(transaction, Fence(job_id=job_id, epoch=1))
            await claims.claim(
                transaction,
                worker="other",
                host="here",
                kinds=["work"],
                lease_s=30,
                limits=JobLimits(),
                wanted=1,
            )
        await until(lambda: bool(came_to))
        job = await job_of(database, job_id)
    assert came_to == ["lease_lost"]
    assert (job.worker, job.epoch, job.state) == ("other", 2, JobState.RUNNING)
    assert await said(database, task_id) == []


async def test_a_handler_that_cannot_renew_stops_before_its_lease_is_over(database: Database) -> None:
    stopped_at: list[float] = []
    began = asyncio.Event()

    async def run(context: JobContext) -> None:
        began.set()
        try:
            await asyncio.sleep(1000)
        finally:
            stopped_at.append(asyncio.get_running_loop().time())

    async with worker(database, {"work": Does(run)}, lease_s=1.5):
        loop = asyncio.get_running_loop()
        before = loop.time()
        job_id = await add_job(database)
        await began.wait()
        await _hold_writes(database, until_=lambda: bool(stopped_at))
        assert stopped_at[0] > before + 1.0, "not before it must"
        job = await job_of(database, job_id)
        assert (job.epoch, job.state) == (1, JobState.RUNNING)


async def _hold_writes(database: Database, *, until_: Any) -> None:
    """A write that takes long, and which all others wait for: also on PostgreSQL, where it has the rows of all jobs."""
    async with database.write() as transaction:
        await transaction.connection.exec_driver_sql("UPDATE jobs SET owner = owner")
        await until(until_)


async def test_draining_lets_end_what_ends_in_time_and_hands_back_the_rest(database: Database) -> None:
    began: list[str] = []
    end = asyncio.Event()

    async def run(context: JobContext) -> None:
        began.append(context.job.id)
        await (end.wait() if context.job.payload["short"] else asyncio.sleep(1000))

    async with worker(database, {"work": Does(run)}) as draining:
        short, long = [await add_job(database, payload={"short": short}, max_attempts=1) for short in (True, False)]
        await until(lambda: len(began) == 2)
        draining.drain(within_s=1000)
        late = await add_job(database, payload={"short": True})
        end.set()
        (job,) = await ended(database, short)
        assert job.state is JobState.DONE
        draining.drain(within_s=0)

        async def handed_back() -> bool:
            return (await job_of(database, long)).state is JobState.WAITING

        await until(handed_back)
    assert (await job_of(database, long)).attempts == 0
    assert (await job_of(database, late)).epoch == 0
    assert len(await claim(database)) == 2, "at once, for the next worker"


async def test_a_cancelled_worker_hands_back_what_it_did(database: Database) -> None:
    began = asyncio.Event()

    async def run(context: JobContext) -> None:
        began.set()
        await asyncio.sleep(1000)

    async def work() -> None:
        async with worker(database, {"work": Does(run)}) as cancelled:
            await began.wait()
            cancelled.drain(within_s=1000)

    working = asyncio.create_task(work())
    job_id = await add_job(database)
    await began.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    job = await job_of(database, job_id)
    assert (job.state, job.attempts) == (JobState.WAITING, 0)


async def test_a_lost_worker_s_job_is_made_good_by_the_next_one(database: Database) -> None:
    codes: list[str] = []

    async def run(context: JobContext) -> None:
        codes.append("ran")

    async def compensate(context: JobContext, error: ShadowError) -> None:
        codes.append(error.code)

    job_id = await add_job(database, max_attempts=1)
    await claim(database, lease_s=0.001)
    async with worker(database, {"work": Does(run, compensate)}):
        (job,) = await ended(database, job_id)
    assert (job.state, codes) == (JobState.FAILED, ["worker_lost"])


async def test_a_failure_that_was_being_made_good_is_not_tried_again(database: Database) -> None:
    done: list[str] = []

    async def run(context: JobContext) -> None:
        done.append("ran")

    async def compensate(context: JobContext, error: ShadowError) -> None:
        done.append(error.message)

    job_id = await add_job(database)
    await claim(database, lease_s=0.001)
    async with database.write() as transaction:
        await jobs.begin_failing(transaction, Fence(job_id=job_id, epoch=1), Conflict("The pod is gone."))
    async with worker(database, {"work": Does(run, compensate)}):
        (job,) = await ended(database, job_id)
    assert job.error is not None
    assert (done, job.error["code"]) == (["The pod is gone."], "conflict")


async def test_no_more_than_its_slots_at_once_and_in_the_end_all(database: Database) -> None:
    running = most = 0
    three = asyncio.Barrier(3)

    async def run(context: JobContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await three.wait()
        running -= 1

    async with worker(database, {"work": Does(run)}, slots=3):
        found = await ended(database, *[await add_job(database) for _ in range(21)])
    assert {job.state for job in found} == {JobState.DONE}
    assert most == 3


async def test_a_schedule_goes_on(database: Database) -> None:
    ran: list[str] = []

    async def run(context: JobContext) -> None:
        ran.append(context.job.id)

    async with worker(database, {"work": Does(run)}, name="one"), worker(database, {"work": Does(run)}, name="two"):
        async with database.write() as transaction:
            await ensure_schedule(transaction, "often", kind="work", payload={}, every_s=0.1)
        await until(lambda: len(ran) >= 4)
    assert len(set(ran)) == len(ran)


async def test_one_name_one_step_at_a_time(database: Database) -> None:
    async def action() -> None:
        await asyncio.sleep(0.01)

    async def run(context: JobContext) -> None:
        await asyncio.gather(context.step("same", action), context.step("same", action))

    async with worker(database, {"work": Does(run)}):
        (job,) = await ended(database, await add_job(database))
    assert job.error is not None
    assert job.error["code"] == "broken"


async def test_whoever_has_the_task_can_ask_its_ending_job_to_stop(tmp_path: Path) -> None:
    """On SQLite nobody writes beside the ending; here each has what the other wants, were they taken in another order."""
    entered, has_task = asyncio.Event(), asyncio.Event()

    async def run(context: JobContext) -> None:
        async def ending(transaction: Transaction) -> None:
            entered.set()
            await has_task.wait()
            await tasks.get(transaction.connection, TaskId("task_a"), for_update=True)

        context.finish_with(ending)

    async with make_place(POSTGRESQL, tmp_path).open() as database:
        task_id = await add_task(database)
        async with worker(database, {"work": Does(run)}):
            job_id = await add_job(database, task_id=task_id)
            await entered.wait()
            async with database.write() as transaction:
                await tasks.get(transaction.connection, task_id, for_update=True)
                has_task.set()
                await jobs.request_stop(transaction, job_id)
            (job,) = await ended(database, job_id)
    assert (job.state, job.attempts) == (JobState.DONE, 1)


async def test_who_stands_still_in_a_transaction_loses_it(tmp_path: Path) -> None:
    async with make_place(POSTGRESQL, tmp_path).open() as database:
        async with database.read() as connection:
            shown = await connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
            assert shown.scalar_one() == f"{PAUSED_S}s"
        fence = Fence(job_id=await add_job(database), epoch=1)
        await claim(database)

        async def stand_still() -> None:
            async with database.write(fence=fence) as transaction:
                await transaction.connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
                while True:
                    await asyncio.sleep(0.02)
                    await transaction.check(fence)

        with pytest.raises(Unavailable):
            await stand_still()
