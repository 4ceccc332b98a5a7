"""The log of each task: append-only, numbered from 1 without gaps; the one source for everybody who reads."""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.events import Recorded, TaskEvent
from shadow.core.tasks import TaskId
from shadow.db import spending
from shadow.db.codec import decode_event, encode_event
from shadow.db.database import Database, Transaction
from shadow.db.feed import READER_LOOKS_S
from shadow.db.tables import events, tasks
from shadow.db.tasks import is_storable, no_task

PAGE = 1000


async def append(transaction: Transaction, task_id: TaskId, new: Sequence[TaskEvent]) -> Sequence[Recorded]:
    """Add events to the end of a task's log. Raises: NotFound."""
    if not new:
        return []
    if not is_storable(task_id):
        raise no_task(task_id)
    at = transaction.now
    # The row of the task is written first: it makes writers of one log wait for each other.
    grow = update(tasks).where(tasks.c.id == task_id).values(events=tasks.c.events + len(new), updated_at=at)
    end = (await transaction.connection.execute(grow.returning(tasks.c.events))).scalar_one_or_none()
    if end is None:
        raise no_task(task_id)
    first = end - len(new) + 1
    recorded = [Recorded(seq=first + number, at=at, event=e) for number, e in enumerate(new)]
    rows = [
        {"task_id": task_id, "seq": r.seq, "at": at, "kind": r.event.kind, "body": encode_event(r.event)}
        for r in recorded
    ]
    await transaction.connection.execute(insert(events), rows)
    await spending.note(transaction, [(task_id, recorded)])
    transaction.tell(task_id, recorded)
    return recorded


async def page(
    connection: AsyncConnection, task_id: TaskId, *, after: int = 0, limit: int = PAGE
) -> Sequence[Recorded]:
    """At most ``limit`` events behind number ``after``, in order."""
    query = select(events).where(events.c.task_id == task_id, events.c.seq > after).order_by(events.c.seq).limit(limit)
    rows = (await connection.execute(query)).mappings().all()
    return [_recorded(row) for row in rows]


async def all_of(connection: AsyncConnection, task_id: TaskId) -> Sequence[Recorded]:
    found: list[Recorded] = []
    while more := await page(connection, task_id, after=found[-1].seq if found else 0):
        found.extend(more)
    return found


async def of_kinds(
    connection: AsyncConnection, task_id: TaskId, kinds: Collection[str], *, after: int = 0, limit: int | None = None
) -> Sequence[Recorded]:
    """Of these kinds, behind number ``after``, in order. Ask for such as are few, or for at most ``limit``."""
    query = select(events).where(events.c.task_id == task_id, events.c.kind.in_(kinds), events.c.seq > after)
    rows = (await connection.execute(query.order_by(events.c.seq).limit(limit))).mappings().all()
    return [_recorded(row) for row in rows]


async def last_of(connection: AsyncConnection, task_id: TaskId, kind: str) -> Recorded | None:
    query = select(events).where(events.c.task_id == task_id, events.c.kind == kind).order_by(events.c.seq.desc())
    row = (await connection.execute(query.limit(1))).mappings().one_or_none()
    return None if row is None else _recorded(row)


async def follow(database: Database, task_id: TaskId, *, after: int = 0) -> AsyncGenerator[Recorded]:
    """What is there behind ``after``, then what comes, without end. Raises: NotFound: the task is not, or no more, there."""
    async with aclosing(follow_together(database, task_id, after=after)) as pieces:
        async for piece in pieces:
            for recorded in piece:
                yield recorded


async def follow_together(database: Database, task_id: TaskId, *, after: int = 0) -> AsyncGenerator[Sequence[Recorded]]:
    """As ``follow``, all that is there at a time together: at most a page. The database is asked for what this process did not
    write, or what its reader came too late for; who stands at the end of a log is told from memory.
    """
    look = True
    with database.feed.subscribe(task_id) as news:
        news.stands_at = after
        while True:
            found, is_more = await _look(database, task_id, after) if look else (news.take(after), False)
            # A slow reader holds no connection while it thinks.
            if found:
                yield found
                news.stands_at = after = found[-1].seq
            look = is_more or found is None
            if not look:
                await news.wait(READER_LOOKS_S)


async def _look(database: Database, task_id: TaskId, after: int) -> tuple[Sequence[Recorded], bool]:
    """A page of what is behind ``after``, and whether there is more behind that. Raises: NotFound."""
    async with database.read() as connection:
        query = select(tasks.c.events).where(tasks.c.id == task_id)
        end: int | None = (await connection.execute(query)).scalar_one_or_none() if is_storable(task_id) else None
        if end is None:
            raise no_task(task_id)
        if end <= after:
            return (), False
        found = await page(connection, task_id, after=after)
        return found, bool(found) and found[-1].seq < end


def _recorded(row: Mapping[Any, Any]) -> Recorded:
    return Recorded(seq=row["seq"], at=row["at"], event=decode_event(row["kind"], row["body"]))
