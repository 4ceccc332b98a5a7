"""Appending in groups: each call has its own outcome, and shares only the transaction."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text, update

from shadow.core.errors import NotFound, ShadowError
from shadow.core.events import Recorded, TextAdded
from shadow.core.tasks import TaskId
from shadow.db.database import Database, Fence, open_database
from shadow.db.errors import LeaseLost
from shadow.db.group import MAX_EVENTS, EventWriter
from shadow.db.tables import jobs
from tests.support.databases import Place
from tests.support.rows import ID, add_job, add_task, append, assert_gapless, log_of, take_over, texts_of

pytestmark = pytest.mark.anyio
GONE = TaskId("task_gone")


def texts(*values: str) -> list[TextAdded]:
    return [TextAdded(text=value) for value in values]


async def test_a_group_numbers_each_log_by_itself_and_keeps_the_order_of_calls(database: Database) -> None:
    ids = [await add_task(database, f"task_{number}") for number in range(5)]
    writer = EventWriter(database)
    calls = [(id_, f"{round_} {part}") for round_ in range(20) for part in "ab" for id_ in ids]
    answers = await asyncio.gather(*(writer.append(id_, texts(value)) for id_, value in calls))
    for id_ in ids:
        mine = [(answer, value) for answer, (to, value) in zip(answers, calls, strict=True) if to == id_]
        assert [answer[0].seq for answer, _ in mine] == list(range(1, 41))
        assert await log_of(database, id_) == [answer[0] for answer, _ in mine]
        assert await texts_of(database, id_) == [value for _, value in mine]
        await assert_gapless(database, 40, id_)


async def test_nothing_to_append_is_nothing(database: Database) -> None:
    assert await EventWriter(database).append(GONE, []) == []


async def test_what_one_call_may_not_write_no_neighbour_feels(database: Database) -> None:
    await add_task(database)
    kept, lost = await add_job(database, "job_kept"), await add_job(database, "job_lost", epoch=3)
    async with database.write() as transaction:
        await take_over(transaction.connection, "job_lost")
    writer = EventWriter(database)
    outcomes = await asyncio.gather(
        writer.append(ID, texts("first")),
        writer.append(GONE, texts("nobody")),
        writer.append(ID, texts("fenced off"), fence=lost),
        writer.append(TaskId("no\0such \ud800 id"), texts("nobody")),
        writer.append(GONE, texts("neither"), fence=lost),
        writer.append(ID, texts("second", "third"), fence=kept),
        writer.append(ID, texts("of nobody's job"), fence=Fence(job_id="job_none", epoch=1)),
        return_exceptions=True,
    )
    kinds = [type(o) if isinstance(o, BaseException) else [r.seq for r in o] for o in outcomes]
    assert kinds == [[1], NotFound, LeaseLost, NotFound, LeaseLost, [2, 3], LeaseLost]
    assert await texts_of(database) == ["first", "second", "third"]


async def test_more_than_a_transaction_takes_goes_into_several(database: Database) -> None:
    await add_task(database)
    writer = EventWriter(database)
    each = MAX_EVENTS // 3 + 1
    await asyncio.gather(*(writer.append(ID, texts(*["x"] * each)) for _ in range(5)))
    await assert_gapless(database, 5 * each)


async def test_a_call_that_is_cancelled_takes_nobody_with_it(database: Database) -> None:
    await add_task(database)
    writer = EventWriter(database)
    calls = [asyncio.create_task(writer.append(ID, texts(str(number)))) for number in range(30)]
    await asyncio.sleep(0)
    for call in calls[::3]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    found = await texts_of(database)
    assert {str(n) for n in range(30) if n % 3} <= set(found)
    assert found == sorted(set(found), key=int)
    await assert_gapless(database, len(found))
    assert (await writer.append(ID, texts("after")))[0].seq == len(found) + 1


async def test_a_database_that_fails_is_told_to_all_of_the_group_and_to_nobody_later(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await add_task(database)
        writer = EventWriter(database)
        async with database.write() as transaction:
            await transaction.connection.execute(text("ALTER TABLE events RENAME TO elsewhere"))
        outcomes = await asyncio.gather(*(writer.append(ID, texts(str(n))) for n in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, ShadowError) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 5
        async with database.write() as transaction:
            await transaction.connection.execute(text("ALTER TABLE elsewhere RENAME TO events"))
        assert (await writer.append(ID, texts("after")))[0].seq == 1
        await assert_gapless(database, 1)


async def test_a_job_that_is_taken_over_meanwhile_writes_nothing_more(shared_place: Place) -> None:
    """What was confirmed was written before the takeover; behind it there is nothing."""
    async with shared_place.open() as ours, shared_place.open() as others:
        await add_task(ours)
        fence = await add_job(ours, "job_one")
        writer = EventWriter(ours)
        confirmed: list[Recorded] = []

        async def write_until_lost() -> None:
            while True:
                confirmed.extend(await writer.append(ID, texts("x"), fence=fence))

        writing = asyncio.gather(*(write_until_lost() for _ in range(4)), return_exceptions=True)
        while len(confirmed) < 20:
            await asyncio.sleep(0.001)
        async with others.write() as transaction:
            await take_over(transaction.connection, "job_one")
            row = await transaction.connection.execute(text("SELECT events FROM tasks"))
            at_takeover = row.scalar_one()
        assert [type(error) for error in await writing] == [LeaseLost] * 4
        assert len(confirmed) == at_takeover
        await assert_gapless(ours, at_takeover)


async def test_groups_and_others_that_lock_the_same_rows_do_not_stop_each_other(shared_place: Place) -> None:
    """Writers in two processes' places, each with logs and jobs of both, in any order."""
    async with shared_place.open() as one, shared_place.open() as other:
        ids = [await add_task(one, f"task_{n}") for n in range(4)]
        fences = [await add_job(one, f"job_{n}", task_id=ids[n]) for n in range(4)]

        async def write(writer: EventWriter, start: int) -> None:
            for number in range(15):
                n = (start + number) % 4
                await writer.append(ids[n], texts("x"), fence=fences[n])

        async def alone(database: Database, start: int) -> None:
            for number in range(15):
                n = (start - number) % 4
                async with database.write(fence=fences[n]) as transaction:
                    await transaction.connection.execute(
                        update(jobs).where(jobs.c.id == f"job_{n}").values(attempts=jobs.c.attempts + 1)
                    )
                await append(database, "x", to=ids[n])

        writers = EventWriter(one), EventWriter(other)
        await asyncio.gather(*(write(writers[n % 2], n) for n in range(8)), alone(one, 0), alone(other, 2))
        counts = [len(await log_of(one, id_)) for id_ in ids]
        assert sum(counts) == 10 * 15
        for id_, count in zip(ids, counts, strict=True):
            await assert_gapless(one, count, id_)


@dataclass(frozen=True)
class Call:
    task: int
    events: int
    fence: int | None
    pauses: int
    cancelled: bool


CALLS = st.lists(
    st.builds(
        Call,
        task=st.integers(0, 3),  # the last one is not there
        events=st.integers(0, 4),
        fence=st.none() | st.integers(0, 2),  # the last one is lost
        pauses=st.integers(0, 3),
        cancelled=st.sampled_from([False, False, False, True]),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(CALLS)
def test_whatever_calls_meet_each_has_the_outcome_that_it_had_alone(calls: Sequence[Call]) -> None:
    asyncio.run(_check_calls(calls))


async def _check_calls(calls: Sequence[Call]) -> None:
    async with open_database(Path("/nowhere"), url="sqlite://") as database:
        ids = [*[await add_task(database, f"task_{n}") for n in range(3)], GONE]
        fences = [await add_job(database, f"job_{n}") for n in range(2)] + [Fence(job_id="job_1", epoch=0)]
        writer = EventWriter(database)

        async def do(number: int, call: Call) -> Sequence[Recorded]:
            for _ in range(call.pauses):
                await asyncio.sleep(0)
            fence = None if call.fence is None else fences[call.fence]
            wanted = texts(*(f"{number}.{part}" for part in range(call.events)))
            return await writer.append(ids[call.task], wanted, fence=fence)

        running = [asyncio.create_task(do(number, call)) for number, call in enumerate(calls)]
        await asyncio.sleep(0)
        for task, call in zip(running, calls, strict=True):
            if call.cancelled:
                task.cancel()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        logs = {id_: {r.seq: r for r in await log_of(database, id_)} for id_ in ids}
        promised = 0
        for call, outcome in zip(calls, outcomes, strict=True):
            if isinstance(outcome, asyncio.CancelledError):
                assert call.cancelled
            elif call.events == 0:
                assert outcome == []
            elif call.fence == 2:
                assert isinstance(outcome, LeaseLost)
            elif call.task == 3:
                assert isinstance(outcome, NotFound)
            else:
                assert not isinstance(outcome, BaseException)
                assert [logs[ids[call.task]][r.seq] for r in outcome] == list(outcome)
                promised += len(outcome)
        kept = sum(len(log) for log in logs.values())
        assert promised <= kept <= promised + sum(call.events for call in calls if call.cancelled)
        for id_ in ids[:3]:
            await assert_gapless(database, len(logs[id_]), id_)
