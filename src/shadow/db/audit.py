"""The record of operations in the database: one chain for all servers, which grows at its end and is pruned at its beginning.

What was pruned leaves its last hash behind, to which the rest is bound, and an entry of the chain that says so: for rows that
somebody else removed there is none.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.audit import PRUNED, AuditContent, AuditEntry, AuditHead, fault, pruned, sealed
from shadow.core.errors import Broken, Rejected
from shadow.db.database import Database, Transaction
from shadow.db.tables import audit, audit_head

PAGE = 1000
PRUNE_EVERY_S = 24 * 3600.0
PRUNED_AT_ONCE = 10_000
_END, _START = 1, 2
"""Ids of rows of ``audit_head``."""


async def append(transaction: Transaction, content: AuditContent) -> AuditEntry:
    entry = sealed(content, after=await _end(transaction), at=transaction.now)
    values = asdict(content) | {"seq": entry.seq, "at": entry.at, "previous": entry.previous, "hash": entry.hash}
    await transaction.connection.execute(insert(audit).values(values))
    end = update(audit_head).where(audit_head.c.id == _END)
    await transaction.connection.execute(end.values(seq=entry.seq, hash=entry.hash))
    return entry


async def _end(transaction: Transaction) -> AuditHead:
    """Nobody else adds anything until the transaction has ended. Raises: Broken."""
    query = select(audit_head).where(audit_head.c.id == _END).with_for_update()
    row = (await transaction.connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise Broken("Nothing says where the record of operations ends.", mend="See `shadow audit verify`.")
    return AuditHead(seq=row["seq"], hash=row["hash"])


async def prune(transaction: Transaction, *, keep_s: float, request: str, at_once: int = PRUNED_AT_ONCE) -> int:
    """Remove entries older than ``keep_s``, once the oldest is so by a day; how many were removed, ``at_once`` at most.

    They are a beginning of the record: the first that is not that old stays, and all behind it. Raises: Broken.
    """
    await _end(transaction)
    connection, limit = transaction.connection, transaction.now - keep_s
    oldest = (await connection.execute(select(audit.c.seq, audit.c.at).order_by(audit.c.seq).limit(1))).one_or_none()
    if oldest is None or oldest.at > limit - PRUNE_EVERY_S:
        return 0
    query = select(audit.c.seq).where(audit.c.at >= limit).order_by(audit.c.seq).limit(1)
    kept = (await connection.execute(query)).scalar_one_or_none()
    bound = audit.c.seq < oldest.seq + at_once
    query = select(audit.c.seq, audit.c.hash).where(bound if kept is None else bound & (audit.c.seq < kept))
    last = (await connection.execute(query.order_by(audit.c.seq.desc()).limit(1))).one()
    start = AuditHead(seq=last.seq, hash=last.hash)
    await append(transaction, pruned(start, request=request))
    removed = await connection.execute(delete(audit).where(audit.c.seq <= start.seq))
    await connection.execute(delete(audit_head).where(audit_head.c.id == _START))
    await connection.execute(insert(audit_head).values(id=_START, seq=start.seq, hash=start.hash))
    return removed.rowcount


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
    start: AuditHead = field(default_factory=AuditHead)
    """What it begins behind: all up to there was pruned."""
    since: float | None = None
    """When its first entry was written, in seconds since 1970; ``None``: it has none."""
    broken_at: int | None = None
    """The number of the first that is not."""
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """Of one moment. ``last``: the highest number. ``end``: ``None``: nothing says where the record was left."""

    start: AuditHead
    end: AuditHead | None
    last: int


async def verify(database: Database, *, expected: AuditHead | None = None) -> Verdict:
    """Walk the whole chain. ``expected``: an end that it had once, kept elsewhere: without one, who can write to the database
    can make another chain that fits.

    Raises: Rejected: nobody can tell any more whether it had that end, which was pruned.
    """
    ends = await _ends(database)
    verdict = await _walked(database, ends, expected)
    if verdict.broken_at is not None and (await _ends(database)).start != ends.start:
        return await verify(database, expected=expected)  # pruned while we walked
    return verdict


async def _walked(database: Database, ends: _Ends, expected: AuditHead | None) -> Verdict:
    start, end = ends.start, ends.end
    reached, since, is_on_record = start, None, start == AuditHead()

    def broken(told: str, at: int) -> Verdict:
        return Verdict(start=start, since=since, head=reached, broken_at=at, fault=told)

    if end is None:
        return broken("nothing says where the record was left", reached.seq + 1)
    if expected is not None and expected.seq == start.seq and expected.hash != start.hash:
        return broken("the entries up to here are not what they were", start.seq)
    async for entry in _all(database, up_to=end.seq):
        found = fault(entry, after=reached)
        if found is not None:
            return broken(found, reached.seq + 1)
        reached = AuditHead(seq=entry.seq, hash=entry.hash)
        since = entry.at if since is None else since
        is_on_record = is_on_record or (entry.content.method, entry.content.object) == (PRUNED, str(start))
        if expected is not None and reached.seq == expected.seq and reached.hash != expected.hash:
            return broken("the entries up to here are not what they were", reached.seq)
    if reached != end or ends.last != end.seq:
        return broken("the record does not end where it was left", reached.seq + 1)
    if not is_on_record:
        return broken("nothing is on record of why the entries up to here were removed", start.seq)
    if expected is not None and expected.seq < start.seq:
        raise Rejected(
            f"Entry {expected.seq} was pruned; the record begins behind {start.seq}.",
            mend="Expect an end that was printed later.",
        )
    if expected is not None and expected.seq > reached.seq:
        return broken(f"it went as far as {expected.seq} once", reached.seq + 1)
    return Verdict(start=start, since=since, head=reached)


async def _ends(database: Database) -> _Ends:
    highest = select(func.coalesce(func.max(audit.c.seq), 0)).scalar_subquery()
    query = select(audit_head.c.id, audit_head.c.seq, audit_head.c.hash, highest.label("last"))
    async with database.read() as connection:
        rows = (await connection.execute(query)).all()
    heads = {row.id: AuditHead(seq=row.seq, hash=row.hash) for row in rows}
    return _Ends(start=heads.get(_START, AuditHead()), end=heads.get(_END), last=rows[0].last if rows else 0)


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
