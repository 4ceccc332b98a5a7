"""What tasks' workspaces take: CPU time, counted for their owners by the day, and bytes on disk, as measured last.

A meter only ever goes up, and a row has where it stood last: whoever reads it adds what is new since, so that repeats, crashes
and readers beside each other count nothing twice. What is on it is counted on the day on which it was read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.quota import Periods, periods
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.core.workspaces import CpuTime
from shadow.db import tasks
from shadow.db.database import Transaction
from shadow.db.tables import cpu_spending, measurements
from shadow.db.tables import tasks as task_table

_MOST = 2**50
"""More than one task takes, of milliseconds and of bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Of a user. Seconds of CPU time in the day and the month that it is."""

    day_s: float = 0.0
    month_s: float = 0.0
    storage_bytes: int = 0


async def has_news(connection: AsyncConnection, task_id: TaskId, read: CpuTime) -> bool:
    """Whether there is anything on the meter that is not counted yet."""
    query = select(measurements.c.meter_since, measurements.c.cpu_ms).where(measurements.c.task_id == task_id)
    row = (await connection.execute(query)).one_or_none()
    return _new_ms(None if row is None else row.meter_since, 0 if row is None else row.cpu_ms, read) > 0


async def note_cpu(transaction: Transaction, task_id: TaskId, read: CpuTime) -> None:
    """What is new on the meter since it was read last is the owner's. Raises: NotFound: the task is gone."""
    task = await tasks.get(transaction.connection, task_id, for_update=True)  # one reader after the other
    row = await _row(transaction, task_id)
    new_ms = _new_ms(row.meter_since, row.cpu_ms, read)
    if new_ms <= 0:
        return
    await _change(transaction, task_id, meter_since=read.since, cpu_ms=_whole_ms(read))
    day = periods(transaction.now).day
    values = {"task_id": task_id, "day": day, "user_id": task.owner, "cpu_ms": new_ms}
    added = _insert_into(transaction, cpu_spending).values(values)
    added = added.on_conflict_do_update(
        index_elements=["task_id", "day"], set_={"cpu_ms": cpu_spending.c.cpu_ms + added.excluded.cpu_ms}
    )
    await transaction.connection.execute(added)


async def note_size(transaction: Transaction, task_id: TaskId, *, workspace_bytes: int, artifact_bytes: int) -> None:
    """Raises: NotFound: the task is gone."""
    await tasks.lock(transaction, task_id)
    await _row(transaction, task_id)
    sizes = {"workspace_bytes": min(workspace_bytes, _MOST), "artifact_bytes": min(artifact_bytes, _MOST)}
    await _change(transaction, task_id, **sizes, sized_at=transaction.now)


async def unsized(
    connection: AsyncConnection, *, host: str | None, now: float, older_than_s: float, limit: int
) -> Sequence[Task]:
    """Those with a workspace on ``host`` with which something has happened since it was measured, and those that are awake and
    were measured longer than ``older_than_s`` ago; first those that were not for the longest time."""
    at = measurements.c.sized_at
    awake = task_table.c.state.in_([TaskState.IDLE.value, TaskState.RUNNING.value])
    query = (
        select(task_table)
        .join(measurements, measurements.c.task_id == task_table.c.id, isouter=True)
        .where(
            task_table.c.workspace_id.is_not(None),
            task_table.c.host.is_not_distinct_from(host),
            or_(at.is_(None), at < task_table.c.updated_at, awake & (at < now - older_than_s)),
        )
        .order_by(func.coalesce(at, 0.0), task_table.c.id)
        .limit(limit)
    )
    return tasks.as_tasks(await connection.execute(query))


async def used_by(connection: AsyncConnection, *, now: float, user_id: str | None = None) -> Mapping[str, Used]:
    """By user, where they used anything. ``user_id``: of that one alone."""
    spent = await _cpu_of(connection, periods(now), user_id)
    kept = await _storage_of(connection, user_id)
    return {
        user: Used(
            day_s=spent.get(user, (0, 0))[0] / 1000,
            month_s=spent.get(user, (0, 0))[1] / 1000,
            storage_bytes=kept.get(user, 0),
        )
        for user in spent.keys() | kept.keys()
    }


async def forget_old(transaction: Transaction, *, older_than_s: float) -> None:
    old = cpu_spending.c.day < transaction.now - older_than_s
    await transaction.connection.execute(delete(cpu_spending).where(old))


async def _cpu_of(connection: AsyncConnection, of: Periods, user_id: str | None) -> Mapping[str, tuple[int, int]]:
    today = func.sum(case((cpu_spending.c.day >= of.day, cpu_spending.c.cpu_ms), else_=0))
    query = select(cpu_spending.c.user_id, today, func.sum(cpu_spending.c.cpu_ms))
    query = query.where(cpu_spending.c.day >= of.month).group_by(cpu_spending.c.user_id)
    if user_id is not None:
        query = query.where(cpu_spending.c.user_id == user_id)
    return {user: (int(day), int(month)) for user, day, month in await connection.execute(query)}


async def _storage_of(connection: AsyncConnection, user_id: str | None) -> Mapping[str, int]:
    both = func.sum(measurements.c.workspace_bytes + measurements.c.artifact_bytes)
    query = select(task_table.c.owner, both).join(measurements, measurements.c.task_id == task_table.c.id)
    query = query.group_by(task_table.c.owner)
    if user_id is not None:
        query = query.where(task_table.c.owner == user_id)
    return {owner: int(size_bytes) for owner, size_bytes in await connection.execute(query)}


def _new_ms(since: float | None, counted_ms: int, read: CpuTime) -> int:
    """An older meter was counted to its end, or as far as anybody can know, when the newer one was read."""
    if since is None or read.since > since:
        return _whole_ms(read)
    return _whole_ms(read) - counted_ms if read.since == since else 0


def _whole_ms(read: CpuTime) -> int:
    return min(int(read.used_s * 1000), _MOST)


async def _row(transaction: Transaction, task_id: TaskId) -> Any:
    """Of a task that is locked."""
    new = {"task_id": task_id, "cpu_ms": 0, "workspace_bytes": 0, "artifact_bytes": 0}
    await transaction.connection.execute(_insert_into(transaction, measurements).values(new).on_conflict_do_nothing())
    query = select(measurements).where(measurements.c.task_id == task_id)
    return (await transaction.connection.execute(query)).one()


async def _change(transaction: Transaction, task_id: TaskId, **values: Any) -> None:
    change = update(measurements).where(measurements.c.task_id == task_id).values(values)
    await transaction.connection.execute(change)


def _insert_into(transaction: Transaction, table: Any) -> Any:
    insert = postgresql.insert if transaction.connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table)
