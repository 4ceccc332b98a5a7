"""The record of operations in the database: one chain for all servers, which only grows."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.audit import AuditContent, AuditEntry, AuditHead, fault, sealed
from shadow.core.errors import Broken
from shadow.db.database import Database, Transaction
from shadow.db.tables import audit, audit_head

PAGE = 1000


async def append(transaction: Transaction, content: AuditContent) -> AuditEntry:
    row = (await transaction.connection.execute(select(audit_head).with_for_update())).mappings().one_or_none()
    if row is None:
        raise Broken("Nothing says where the record of operations ends.", mend="See `shadow audit verify`.")
    entry = sealed(content, after=AuditHead(seq=row["seq"], hash=row["hash"]), at=transaction.now)
    values = asdict(content) | {"seq": entry.seq, "at": entry.at, "previous": entry.previous, "hash": entry.hash}
    await transaction.connection.execute(insert(audit).values(values))
    await transaction.connection.execute(update(audit_head).values(seq=entry.seq, hash=entry.hash))
    return entry


async def page(
    connection: AsyncConnection,
    *,
    before: int | None = None,
    limit: int = PAGE,
    user_id: str | None = None,
    object_: str | None = None,
    since: float | None = None,
    until: float | None = None,
) -> Sequence[AuditEntry]:
    """The newest first, below number ``before``. ``object_``: whatever begins with it."""
    query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.seq < before)
    if user_id is not None:
        query = query.where(audit.c.user_id == user_id)
    if object_ is not None:
        query = query.where(audit.c.object.startswith(object_, autoescape=True))
    if since is not None:
        query = query.where(audit.c.at >= since)
    if until is not None:
        query = query.where(audit.c.at < until)
    return [_entry(row) for row in (await connection.execute(query)).mappings()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    head: AuditHead
    """The last entry that is as it was written."""
    broken_at: int | None = None
    """The number of the first that is not."""
    fault: str | None = None


async def verify(database: Database, *, expected: AuditHead | None = None) -> Verdict:
    """Walk the whole chain. ``expected``: an end that it had once, kept elsewhere: without one, who can write to the database
    can make another chain that fits."""
    end, last = await _ends(database)
    if end is None:
        return Verdict(head=AuditHead(), broken_at=1, fault="nothing says where the record was left")
    reached = AuditHead()
    async for entry in _all(database, up_to=end.seq):
        found = fault(entry, after=reached)
        if found is not None:
            return Verdict(head=reached, broken_at=reached.seq + 1, fault=found)
        reached = AuditHead(seq=entry.seq, hash=entry.hash)
        if expected is not None and reached.seq == expected.seq and reached.hash != expected.hash:
            return Verdict(head=reached, broken_at=reached.seq, fault="the entries up to here are not what they were")
    if reached != end or last != end.seq:
        return Verdict(head=reached, broken_at=reached.seq + 1, fault="the record does not end where it was left")
    if expected is not None and expected.seq > reached.seq:
        return Verdict(head=reached, broken_at=reached.seq + 1, fault=f"it went as far as {expected.seq} once")
    return Verdict(head=reached)


async def _ends(database: Database) -> tuple[AuditHead | None, int]:
    """Where the record was left, and the highest number: of one moment."""
    highest = select(func.coalesce(func.max(audit.c.seq), 0)).scalar_subquery()
    async with database.read() as connection:
        row = (
            await connection.execute(select(audit_head.c.seq, audit_head.c.hash, highest.label("last")))
        ).one_or_none()
    if row is None:
        return None, 0
    return AuditHead(seq=row.seq, hash=row.hash), row.last


async def _all(database: Database, *, up_to: int) -> AsyncGenerator[AuditEntry]:
    after = None
    while True:
        query = select(audit).where(audit.c.seq <= up_to).order_by(audit.c.seq).limit(PAGE)
        if after is not None:
            query = query.where(audit.c.seq > after)
        async with database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        if not rows:
            return
        for row in rows:
            yield _entry(row)
        after = rows[-1]["seq"]


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(
        seq=row["seq"],
        at=row["at"],
        content=AuditContent(
            request=row["request"],
            phase=row["phase"],
            user_id=row["user_id"],
            credential_id=row["credential_id"],
            method=row["method"],
            route=row["route"],
            object=row["object"],
            source=row["source"],
            status=row["status"],
            code=row["code"],
        ),
        previous=row["previous"],
        hash=row["hash"],
    )
