"""The record of operations in each database: one chain for all writers, and any change of it is found."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from shadow.core.audit import FIRST_HASH, PRUNED, AuditContent, AuditHead
from shadow.core.errors import Rejected
from shadow.db import audit
from shadow.db.database import Database
from tests.support.database_processes import DatabaseProcess
from tests.support.databases import Place

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600.0
KEPT_S = 30 * DAY_S


def content(number: int, **values: Any) -> AuditContent:
    return AuditContent(
        **{
            "request": f"req_{number}",
            "phase": "ended",
            "user_id": "local",
            "credential_id": None,
            "method": "POST",
            "route": "/v1/tasks",
            "object": f"task_{number}",
            "source": "127.0.0.1",
            "status": 201,
        }
        | values
    )


async def write(database: Database, count: int, *, age_s: float = 0.0) -> None:
    for number in range(count):
        async with database.write() as transaction:
            transaction.now -= age_s
            await audit.append(transaction, content(number))


async def prune(database: Database, **given: Any) -> int:
    async with database.write() as transaction:
        return await audit.prune(transaction, **{"keep_s": KEPT_S, "request": "job_1"} | given)


async def change(database: Database, statement: str) -> None:
    async with database.write() as transaction:
        await transaction.connection.execute(text(statement))


async def test_odd_texts_come_back_as_they_were(database: Database) -> None:
    async with database.write() as transaction:
        written = await audit.append(transaction, content(1, object="a\0b\ud800 \\ \\u0041 日本", source="\\"))
    async with database.read() as connection:
        assert await audit.page(connection) == [written]
    assert (await audit.verify(database)).broken_at is None


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        pytest.param("UPDATE audit SET at = at + 0.001 WHERE seq = 3", 3, id="time"),
        pytest.param("UPDATE audit SET phase = 'begun' WHERE seq = 3", 3, id="phase"),
        pytest.param("UPDATE audit SET phase = 'other' WHERE seq = 3", 3, id="no phase"),
        pytest.param("UPDATE audit SET user_id = 'another' WHERE seq = 3", 3, id="user"),
        pytest.param("UPDATE audit SET user_id = NULL WHERE seq = 1", 1, id="nobody"),
        pytest.param("UPDATE audit SET credential_id = 'cred_1' WHERE seq = 3", 3, id="credential"),
        pytest.param("UPDATE audit SET method = 'PUT' WHERE seq = 3", 3, id="method"),
        pytest.param("UPDATE audit SET route = '/v1/users' WHERE seq = 3", 3, id="route"),
        pytest.param("UPDATE audit SET object = '' WHERE seq = 3", 3, id="object"),
        pytest.param("UPDATE audit SET source = '127.0.0.2' WHERE seq = 3", 3, id="source"),
        pytest.param("UPDATE audit SET status = 403 WHERE seq = 3", 3, id="status"),
        pytest.param("UPDATE audit SET code = 'denied' WHERE seq = 5", 5, id="code"),
        pytest.param("UPDATE audit SET request = 'req_9' WHERE seq = 3", 3, id="request"),
        pytest.param("UPDATE audit SET hash = previous WHERE seq = 3", 3, id="hash"),
        pytest.param("UPDATE audit SET previous = hash WHERE seq = 3", 3, id="previous"),
        pytest.param("DELETE FROM audit WHERE seq = 1", 1, id="the first is gone"),
        pytest.param("DELETE FROM audit WHERE seq = 3", 3, id="one is gone"),
        pytest.param("DELETE FROM audit WHERE seq = 5", 5, id="the last is gone"),
        pytest.param("DELETE FROM audit", 1, id="all are gone"),
        pytest.param("UPDATE audit SET seq = 6 WHERE seq = 3", 3, id="moved"),
        pytest.param("DELETE FROM audit_head", 1, id="the head is gone"),
        pytest.param(
            "INSERT INTO audit SELECT 6, at, request, phase, user_id, credential_id, method, route, object, source, status, "
            "code, previous, hash FROM audit WHERE seq = 5",
            6,
            id="one too many",
        ),
    ],
)
async def test_a_change_is_found_and_named(database: Database, statement: str, broken_at: int) -> None:
    await write(database, 5)
    assert (await audit.verify(database)).broken_at is None
    await change(database, statement)
    verdict = await audit.verify(database)
    assert (verdict.broken_at, verdict.head.seq) == (broken_at, broken_at - 1)


async def test_swapped_rows_are_found(database: Database) -> None:
    await write(database, 5)
    for statement in ("SET seq = 9 WHERE seq = 2", "SET seq = 2 WHERE seq = 3", "SET seq = 3 WHERE seq = 9"):
        await change(database, f"UPDATE audit {statement}")
    assert (await audit.verify(database)).broken_at == 2


async def test_a_record_that_was_made_anew_does_not_have_the_end_that_was_kept(database: Database) -> None:
    await write(database, 3)
    kept = (await audit.verify(database)).head
    await write(database, 2)
    assert (await audit.verify(database, expected=kept)).broken_at is None
    await change(database, "DELETE FROM audit")
    await change(database, f"UPDATE audit_head SET seq = 0, hash = '{AuditHead().hash}'")
    await write(database, 2)
    assert (await audit.verify(database)).broken_at is None  # it fits
    assert (await audit.verify(database, expected=kept)).broken_at == 3
    await write(database, 3)
    assert (await audit.verify(database, expected=kept)).broken_at == 3


async def test_pages_of_what_is_asked_for(database: Database) -> None:
    for number in range(7):
        async with database.write() as transaction:
            await audit.append(transaction, content(number, user_id="a" if number % 2 else "b"))
    async with database.read() as connection:
        newest = await audit.page(connection, limit=3)
        assert [entry.seq for entry in newest] == [7, 6, 5]
        assert [entry.seq for entry in await audit.page(connection, before=newest[-1].seq, limit=9)] == [4, 3, 2, 1]
        assert [entry.seq for entry in await audit.page(connection, user_id="a")] == [6, 4, 2]
        assert [entry.seq for entry in await audit.page(connection, object_="task_3")] == [4]
        assert list(await audit.page(connection, object_="task%")) == []
        assert list(await audit.page(connection, until=newest[-1].at - 3600)) == []


# Pruned


async def test_what_is_pruned_leaves_a_record_that_is_whole_from_there_on(database: Database) -> None:
    await write(database, 4, age_s=KEPT_S + 2 * DAY_S)
    oldest = (await audit.verify(database)).head
    await write(database, 3)
    kept = (await audit.verify(database)).head
    assert await prune(database) == 4
    verdict = await audit.verify(database, expected=kept)
    assert (verdict.broken_at, verdict.fault) == (None, None)
    assert (verdict.start, verdict.head.seq) == (oldest, 8)
    async with database.read() as connection:
        last, *_, first = await audit.page(connection)
    assert (first.seq, verdict.since) == (5, first.at)
    assert (last.content.method, last.content.object, last.content.request) == (PRUNED, str(oldest), "job_1")
    assert (await audit.verify(database, expected=oldest)).broken_at is None
    assert (await audit.verify(database, expected=AuditHead(seq=4, hash=FIRST_HASH))).broken_at == 4
    with pytest.raises(Rejected, match="Entry 3 was pruned"):
        await audit.verify(database, expected=AuditHead(seq=3, hash=FIRST_HASH))
    assert await prune(database) == 0


async def test_nothing_is_pruned_before_a_day_of_it_is_too_old(database: Database) -> None:
    assert await prune(database) == 0
    await write(database, 2, age_s=KEPT_S + DAY_S / 2)
    assert await prune(database) == 0
    assert (await audit.verify(database)).head.seq == 2


async def test_only_a_beginning_is_pruned_whatever_clocks_say(database: Database) -> None:
    await write(database, 2, age_s=KEPT_S + 2 * DAY_S)
    await write(database, 1)
    await write(database, 2, age_s=KEPT_S + 2 * DAY_S)
    assert await prune(database) == 2
    verdict = await audit.verify(database)
    assert (verdict.start.seq, verdict.broken_at) == (2, None)


async def test_it_is_pruned_bit_by_bit_to_its_end(database: Database) -> None:
    await write(database, 7, age_s=KEPT_S + 2 * DAY_S)
    assert [await prune(database, at_once=3) for _ in range(4)] == [3, 3, 1, 0]
    verdict = await audit.verify(database)
    assert (verdict.start.seq, verdict.head.seq, verdict.broken_at) == (7, 10, None)


@pytest.mark.parametrize(
    ("statements", "broken_at"),
    [
        pytest.param(["DELETE FROM audit WHERE seq = 4"], 4, id="the first that was kept"),
        pytest.param(["DELETE FROM audit WHERE seq = 5"], 5, id="one that was kept"),
        pytest.param(["DELETE FROM audit WHERE seq = 7"], 7, id="that it was pruned"),
        pytest.param(["DELETE FROM audit"], 4, id="all"),
        pytest.param(["DELETE FROM audit_head WHERE id = 2"], 1, id="where it begins"),
        pytest.param([f"UPDATE audit_head SET hash = '{FIRST_HASH}' WHERE id = 2"], 4, id="what it is bound to"),
        pytest.param(
            [
                "UPDATE audit_head SET seq = 5, hash = (SELECT hash FROM audit WHERE seq = 5) WHERE id = 2",
                "DELETE FROM audit WHERE seq <= 5",
            ],
            5,
            id="more, as if it were pruned",
        ),
        pytest.param(
            [
                "UPDATE audit_head SET seq = 7, hash = (SELECT hash FROM audit WHERE seq = 7) WHERE id = 2",
                "DELETE FROM audit",
            ],
            8,
            id="all, as if it were pruned",
        ),
    ],
)
async def test_what_somebody_else_removes_is_found(database: Database, statements: list[str], broken_at: int) -> None:
    await write(database, 3, age_s=KEPT_S + 2 * DAY_S)
    await write(database, 3)
    assert await prune(database) == 3
    assert (await audit.verify(database)).broken_at is None
    for statement in statements:
        await change(database, statement)
    assert (await audit.verify(database)).broken_at == broken_at


async def test_who_never_pruned_has_no_beginning_removed(database: Database) -> None:
    await write(database, 5)
    await change(database, "INSERT INTO audit_head SELECT 2, seq, hash FROM audit WHERE seq = 2")
    await change(database, "DELETE FROM audit WHERE seq <= 2")
    verdict = await audit.verify(database)
    assert (verdict.broken_at, verdict.fault) == (2, "nothing is on record of why the entries up to here were removed")


async def test_it_can_be_verified_while_it_is_written_and_pruned(place: Place) -> None:
    async with place.open() as database:
        await write(database, 40, age_s=KEPT_S + 2 * DAY_S)

        async def go_on() -> None:
            for _ in range(10):
                assert await prune(database, at_once=4) == 4
                await write(database, 1)

        going = asyncio.create_task(go_on())
        looks = 0
        while not going.done():
            assert (await audit.verify(database)).fault is None
            looks += 1
        await going
        assert looks > 1
        assert (await audit.verify(database)).start.seq == 40


_WRITE = """
from shadow.core.audit import AuditContent
from shadow.db import audit

async def main():
    async with place() as database:
        say("open")
        input()
        for number in range(int(sys.argv[3])):
            content = AuditContent(request=f"req_{number}", phase="ended", user_id=sys.argv[4], credential_id=None, method="PUT",
                route="/", object="", source="")
            async with database.write() as transaction:
                await audit.append(transaction, content)
        say("done")
"""


async def test_several_processes_write_one_chain(shared_place: Place) -> None:
    async with shared_place.open() as database:
        writers = [DatabaseProcess(_WRITE, shared_place, 40, name) for name in ("one", "two")]
        try:
            for writer in writers:
                assert await asyncio.to_thread(writer.line) == "open"
            for writer in writers:
                writer.go_on()
            await asyncio.gather(write(database, 40), *(asyncio.to_thread(writer.line) for writer in writers))
        finally:
            for writer in writers:
                writer.kill()
        verdict = await audit.verify(database)
        assert (verdict.broken_at, verdict.head.seq) == (None, 120)
        async with database.read() as connection:
            assert {entry.content.user_id for entry in await audit.page(connection)} == {"local", "one", "two"}
