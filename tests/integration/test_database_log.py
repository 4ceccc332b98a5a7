"""The log of a task: gapless under everybody at once, and each reader sees each event once, in order, soon."""

import asyncio
import gc
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from shadow.core.errors import NotFound
from shadow.core.events import TextAdded
from shadow.core.tasks import TaskId
from shadow.db import events, tasks
from shadow.db.database import Database
from shadow.db.feed import SAFETY_NET_S
from shadow.db.group import EventWriter
from tests.support.database_processes import appending, following
from tests.support.databases import POSTGRESQL, Place, cluster, make_place
from tests.support.rows import ID, add_task, append, assert_gapless, log_of, texts_of
from tests.support.waiting import until

pytestmark = pytest.mark.anyio
WITHIN_S = SAFETY_NET_S / 2
"""Who is told reads well before it would look by itself."""


async def follow_into(database: Database, seen: list[int], *, after: int = 0) -> None:
    async for recorded in events.follow(database, ID, after=after):
        seen.append(recorded.seq)  # noqa: PERF401 - it has no end


class Follower:
    """A reader in a task of its own."""

    def __init__(self, database: Database, *, after: int = 0) -> None:
        self.seen: list[int] = []
        self.task = asyncio.create_task(follow_into(database, self.seen, after=after))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


# Writing


async def test_a_log_is_numbered_from_one_and_read_in_pages(place: Place) -> None:
    async with place.open(clock=lambda: 7.0) as database:
        await add_task(database)
        first = await append(database, "a", "b")
        assert [r.seq for r in first] == [1, 2]
        assert first[0].at == first[1].at
        if place.kind != POSTGRESQL:  # which has a clock of its own
            assert first[0].at == 7.0
        assert await append(database) == []
        for _ in range(3):
            await append(database, "x")
        async with database.read() as connection:
            assert [r.seq for r in await events.page(connection, ID, after=1, limit=2)] == [2, 3]
            assert await events.page(connection, ID, after=5) == []
            assert await events.page(connection, TaskId("task_none")) == []
        await assert_gapless(database, 5)


async def test_nothing_is_appended_to_a_task_that_is_not_there(database: Database) -> None:
    for nobody in ("task_none", "", "task\0", "\ud800"):
        with pytest.raises(NotFound):
            await append(database, "a", to=TaskId(nobody))
        with pytest.raises(NotFound):
            async with database.write() as transaction:
                await tasks.change(transaction, TaskId(nobody), title="x")


async def test_the_time_is_the_databases_and_one_for_a_transaction(place: Place) -> None:
    async with place.open() as database:
        before = time.time()
        await add_task(database)
        async with database.write() as transaction:
            first = await events.append(transaction, ID, [TextAdded(text="a")])
            second = await events.append(transaction, ID, [TextAdded(text="b")])
        assert before - 1 <= first[0].at == second[0].at <= time.time() + 1


async def test_a_transaction_that_fails_leaves_nothing_and_tells_nobody(database: Database) -> None:
    await add_task(database)
    with database.feed.subscribe(ID) as news:
        with pytest.raises(ZeroDivisionError):
            await _write_and_fail(database)
        await news.wait(0.01)
    await assert_gapless(database, 0)
    async with database.read() as connection:
        assert (await tasks.get(connection, ID)).title == "Mend it"


async def _write_and_fail(database: Database) -> None:
    async with database.write() as transaction:
        await events.append(transaction, ID, [TextAdded(text="a")])
        await tasks.change(transaction, ID, title="other")
        raise ZeroDivisionError


async def test_many_writers_of_one_log_leave_no_gap(place: Place) -> None:
    async with place.open() as one, place.open() as other:
        await add_task(one)
        both = (one, one) if place.kind == "memory" else (one, other)
        writers = [EventWriter(database) for database in both]

        async def write(number: int) -> None:
            for _ in range(10):
                await append(both[number % 2], "a", "b", "c")
                await writers[number % 2].append(ID, [TextAdded(text="d")])

        await asyncio.gather(*(write(number) for number in range(4)))
        await assert_gapless(one, 4 * 10 * 4)


async def test_many_processes_write_one_log_without_a_gap(shared_place: Place) -> None:
    async with shared_place.open() as database:
        await add_task(database)
        processes = [appending(shared_place, 15) for _ in range(3)]
        for process in processes:
            process.go_on()
        for _ in range(15):
            await append(database, "a", "b")
        assert [await asyncio.to_thread(process.end) for process in processes] == [0] * 3
        await assert_gapless(database, 4 * 15 * 2)


@pytest.mark.parametrize("after", [1, 7])
async def test_a_killed_writer_leaves_what_it_was_told_was_kept_and_no_half(shared_place: Place, after: int) -> None:
    async with shared_place.open() as database:
        await add_task(database)
    process = appending(shared_place, 100_000)
    process.go_on()
    assert process.line() == "open"
    while int(process.line()) < after:
        pass
    process.kill()
    async with shared_place.open() as database:
        texts = await texts_of(database)
        assert len(texts) >= 2 * (after + 1)
        assert texts == [f"{n} {part}" for n in range(len(texts) // 2) for part in ("begins", "ends")]
        await append(database, "more")
        await assert_gapless(database, len(texts) + 1)


async def test_a_writer_that_is_cancelled_leaves_all_or_nothing_and_a_database_that_works(place: Place) -> None:
    async with place.open() as database:
        await add_task(database)
        for turns in range(40):
            before = len(await log_of(database))
            writing = asyncio.create_task(append(database, "a", "b", "c"))
            for _ in range(turns):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait({writing})
            after = len(await log_of(database))
            assert after - before in ((3,) if not writing.cancelled() else (0, 3))
            await append(database, "x")
            await assert_gapless(database, after + 1)


async def test_who_is_cancelled_while_a_connection_is_made_loses_none(place: Place) -> None:
    """One that is forgotten warns when it is collected, and the test fails."""
    for turns in (n * n for n in range(40)):
        async with place.open() as database:
            waiting = [asyncio.create_task(log_of(database)) for _ in range(4)]
            waiting += [asyncio.create_task(append(database, "x")) for _ in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for each in waiting:
                each.cancel()
            await asyncio.wait(waiting)
            await asyncio.gather(*(log_of(database) for _ in range(4)))
    gc.collect()


# Reading


async def test_readers_see_every_event_once_and_in_order(place: Place) -> None:
    async with place.open() as database:
        await add_task(database)
        await append(database, *map(str, range(events.PAGE + 5)))  # more than a page is there already
        readers = [Follower(database, after=after) for after in (0, 0, 3, events.PAGE + 5)]
        writer = EventWriter(database)
        await asyncio.gather(*(writer.append(ID, [TextAdded(text="x")] * 2) for _ in range(50)))
        end = events.PAGE + 5 + 100
        for reader, after in zip(readers, (0, 0, 3, events.PAGE + 5), strict=True):
            await until(lambda: bool(reader.seen) and reader.seen[-1] == end)  # noqa: B023
            assert reader.seen == list(range(after + 1, end + 1))
            await reader.stop()


async def test_a_reader_of_another_place_is_told(shared_place: Place) -> None:
    """As between two processes: nothing but the database is common to them."""
    async with shared_place.open() as ours, shared_place.open() as others:
        await add_task(ours)
        reader = Follower(others)
        await append(ours, "first")
        await until(lambda: reader.seen == [1])  # it listens by now, or soon
        for number in range(2, 12):
            await append(ours, "x")
            await until(lambda: reader.seen[-1] == number, within_s=WITHIN_S)  # noqa: B023
        assert reader.seen == list(range(1, 12))
        await reader.stop()


async def test_processes_follow_a_log_over_their_restarts(shared_place: Place) -> None:
    async with shared_place.open() as database:
        await add_task(database)
        seen = 0
        for _ in range(3):
            process = following(shared_place, after=seen)
            assert await asyncio.to_thread(process.line) == "open"
            for _ in range(5):
                await append(database, "a", "b")
                for _ in "ab":
                    line = await asyncio.to_thread(process.line)
                    assert int(line) == seen + 1
                    seen += 1
            await append(database, "while nobody reads")
            process.kill()
        assert seen == 30


async def test_a_slow_reader_costs_the_others_nothing(database: Database) -> None:
    await add_task(database)
    await append(database, "first")
    async with aclosing(events.follow(database, ID)) as slow:
        assert (await anext(slow)).seq == 1  # and then it is busy with it
        reader = Follower(database)
        for _ in range(50):
            await append(database, "x")
        await until(lambda: len(reader.seen) == 51, within_s=WITHIN_S)
        await reader.stop()
        assert [(await anext(slow)).seq for _ in range(50)] == list(range(2, 52))


async def test_readers_at_the_end_of_their_logs_ask_the_database_nothing(database: Database) -> None:
    await add_task(database)
    await add_task(database, "task_two")
    readers = [Follower(database) for _ in range(30)]
    writer = EventWriter(database)
    await writer.append(ID, [TextAdded(text="first")])
    await until(lambda: all(reader.seen == [1] for reader in readers))
    reads: list[str] = []
    database.observe = lambda kind, _took_s, _code: reads.append(kind) if kind == "read" else None
    for number in range(2, 22):
        await writer.append(ID, [TextAdded(text="x")])
        await writer.append(TaskId("task_two"), [TextAdded(text="x")])
        await until(lambda: all(reader.seen[-1] == number for reader in readers))  # noqa: B023
    assert reads == []
    for reader in readers:
        assert reader.seen == list(range(1, 22))
        await reader.stop()


async def test_what_nobody_told_of_is_looked_for_once_for_all_readers(shared_place: Place) -> None:
    """As where a notice is lost: the safety net is one query, and a reader that stands at the end is not woken."""
    async with shared_place.open() as database:
        await add_task(database)
        with database.feed.subscribe(ID) as behind, database.feed.subscribe(ID) as at_the_end:
            await append(database, "x")
            behind.stands_at, at_the_end.stands_at = 0, 1
            for news in (behind, at_the_end):
                news.take(0)
                await news.wait(0)
                news.take(1)
            resting = asyncio.create_task(at_the_end.wait(60))
            async with asyncio.timeout(5 * SAFETY_NET_S):
                await behind.wait(60)
            assert not resting.done() or shared_place.kind == POSTGRESQL  # whose listening begins with a word to all
            resting.cancel()
            await asyncio.wait({resting})


async def test_more_readers_than_connections_follow_at_once(shared_place: Place) -> None:
    async with shared_place.open() as database:
        await add_task(database)
        readers = [Follower(database) for _ in range(60)]
        for _ in range(10):
            await append(database, "a", "b")
        for reader in readers:
            await until(lambda: reader.seen == list(range(1, 21)))  # noqa: B023
            await reader.stop()


async def test_readers_that_are_up_to_date_are_not_woken_by_other_logs(shared_place: Place) -> None:
    async with shared_place.open() as database, shared_place.open() as others:
        await add_task(database)
        await add_task(database, "task_two")
        with database.feed.subscribe(ID) as news, database.feed.subscribe("task_two") as two:
            news.stands_at = 0
            await two.wait()  # the first look of whoever listens
            await append(others, "x", to=TaskId("task_two"))
            await two.wait(WITHIN_S)
            await append(database, "x", to=TaskId("task_two"))
            await two.wait(WITHIN_S)
            news_task = asyncio.create_task(news.wait(60))
            # The next look comes with the next write of others: it is then that a needless word would have been said.
            for _ in range(3):
                await append(others, "x", to=TaskId("task_two"))
                await two.wait(WITHIN_S)
            if shared_place.kind != POSTGRESQL:  # where the beginning of listening tells everybody
                assert not news_task.done()
            news_task.cancel()
            await asyncio.wait({news_task})


async def test_whoever_follows_a_task_is_told_that_it_is_gone(place: Place) -> None:
    async with place.open() as database:
        await add_task(database)
        await append(database, "a")
        reader = Follower(database)
        await until(lambda: reader.seen == [1])
        async with database.write() as transaction:
            await tasks.delete(transaction, ID)
        with pytest.raises(NotFound):
            async with asyncio.timeout(WITHIN_S):
                await reader.task
        with pytest.raises(NotFound):
            await anext(events.follow(database, ID))
        assert await log_of(database) == []


async def test_what_is_no_event_wakes_readers_too(shared_place: Place) -> None:
    async with shared_place.open() as database, shared_place.open() as others:
        await add_task(database)
        with database.feed.subscribe(ID) as news:
            await news.wait()  # the first look of whoever listens
            for number in range(5):
                async with others.write() as transaction:
                    await tasks.change(transaction, ID, title=str(number))
                    transaction.tell(ID)
                async with asyncio.timeout(WITHIN_S):
                    await news.wait(60)


async def _listening_pids(url: str) -> list[str]:
    name = url.partition("@/")[2].partition("?")[0]
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE 'LISTEN%'"
    return (await asyncio.to_thread(cluster().sql, query)).split()


async def test_readers_go_on_when_the_connection_that_listens_is_killed(tmp_path: Path) -> None:

    place = make_place(POSTGRESQL, tmp_path)
    assert place.url is not None
    async with place.open() as database, place.open() as others:
        await add_task(others)
        reader = Follower(database)
        number = 0
        for _ in range(3):
            pids: list[str] = []
            while not pids:
                pids = await _listening_pids(place.url)
            for pid in pids:
                await asyncio.to_thread(cluster().sql, f"SELECT pg_terminate_backend({pid})")
            for _ in range(3):
                await append(others, "x")
                number += 1
            await until(lambda: len(reader.seen) == number)  # noqa: B023
            # It listens again: what comes now is told, not found by the look that comes by itself.
            while not set(await _listening_pids(place.url)) - set(pids):
                await asyncio.sleep(0.01)
            await append(others, "told")
            number += 1
            await until(lambda: len(reader.seen) == number, within_s=WITHIN_S)  # noqa: B023
        assert reader.seen == list(range(1, number + 1))
        await reader.stop()
