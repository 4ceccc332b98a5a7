"""What is to be done again and again: each time becomes one job, whichever of many workers sees that it is due."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update

from shadow.core.jobs import OPEN_STATES, Job, JobId, NewJob
from shadow.db.database import Transaction
from shadow.db.jobs import JOBS, add
from shadow.db.tables import jobs, schedules

_SCHEDULES = 0x5AAD2
"""The lock of those who make sure of a schedule: several servers start at once."""


async def ensure_schedule(
    transaction: Transaction, name: str, *, kind: str, payload: Mapping[str, Any], every_s: float
) -> None:
    """The first time is now. One that is there keeps its times, unless ``every_s`` would have it come sooner."""
    await transaction.lock(_SCHEDULES)
    now, encoded = transaction.now, json.dumps(dict(payload), sort_keys=True)
    named = schedules.c.name == name
    query = select(schedules.c.next_at).where(named).with_for_update()
    row = (await transaction.connection.execute(query)).one_or_none()
    values: dict[str, Any] = {"kind": kind, "payload": encoded, "every_s": every_s}
    if row is None:
        await transaction.connection.execute(insert(schedules).values(name=name, next_at=now, **values))
    else:
        next_at = min(row.next_at, now + every_s)
        await transaction.connection.execute(update(schedules).where(named).values(next_at=next_at, **values))
    transaction.tell(JOBS)


async def remove_schedule(transaction: Transaction, name: str) -> None:
    """Nothing happens where there is none."""
    await transaction.connection.execute(delete(schedules).where(schedules.c.name == name))


async def add_due(
    transaction: Transaction, *, kinds: Collection[str], make_job_id: Callable[[], JobId]
) -> Sequence[Job]:
    """One job for each schedule that is due, however many times were missed; none where its last one is still open."""
    due = select(schedules).where(schedules.c.kind.in_(kinds), schedules.c.next_at <= transaction.now)
    rows = (await transaction.connection.execute(due.with_for_update(skip_locked=True))).mappings().all()
    added: list[Job] = []
    for row in rows:
        missed = math.floor((transaction.now - row["next_at"]) / row["every_s"])
        next_at = max(row["next_at"] + (missed + 1) * row["every_s"], math.nextafter(transaction.now, math.inf))
        named = schedules.c.name == row["name"]
        await transaction.connection.execute(update(schedules).where(named).values(next_at=next_at))
        payload = json.loads(row["payload"])
        if not await _is_open(transaction, row["kind"], payload):
            added.append(await add(transaction, NewJob(kind=row["kind"], payload=payload), job_id=make_job_id()))
    return added


async def _is_open(transaction: Transaction, kind: str, payload: Mapping[str, Any]) -> bool:
    query = select(jobs.c.payload).where(
        jobs.c.kind == kind, jobs.c.task_id.is_(None), jobs.c.state.in_([state.value for state in OPEN_STATES])
    )
    return any(json.loads(text) == payload for (text,) in await transaction.connection.execute(query))
