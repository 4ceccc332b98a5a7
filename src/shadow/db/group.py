"""Appending to many logs at once: what arrives while a transaction runs goes into the next one, all of it together."""

import asyncio
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, bindparam, insert, select, update

from shadow.core.events import Recorded, TaskEvent
from shadow.core.jobs import JobState
from shadow.core.tasks import TaskId
from shadow.db import spending
from shadow.db.codec import encode_event
from shadow.db.database import Database, Fence, Transaction
from shadow.db.errors import Clashed, lease_lost
from shadow.db.tables import events, jobs, tasks
from shadow.db.tasks import is_storable, no_task

MAX_EVENTS = 2000
"""What a transaction takes before it leaves the rest to the next one."""
TRIES = 5

# Made once: to build a statement takes SQLAlchemy longer than to run it.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_FENCES = (
    # As ``Transaction.check``: against a takeover, and in nobody else's way.
    select(jobs.c.id, jobs.c.epoch)
    .where(jobs.c.id.in_(_IDS), jobs.c.state == JobState.RUNNING.value)
    .order_by(jobs.c.id)
    .with_for_update(read=True, key_share=True)
)
_ENDS = (
    select(tasks.c.id, tasks.c.events).where(tasks.c.id.in_(_IDS)).order_by(tasks.c.id).with_for_update(key_share=True)
)
_GROW = update(tasks).where(tasks.c.id == bindparam("of")).values(events=bindparam("end"), updated_at=bindparam("now"))
_INSERT = insert(events)

_Outcome = Sequence[Recorded] | Exception


def _future() -> "asyncio.Future[Sequence[Recorded]]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, kw_only=True, eq=False)
class _Entry:
    task_id: TaskId
    events: Sequence[TaskEvent]
    bodies: Sequence[str]
    fence: Fence | None
    done: "asyncio.Future[Sequence[Recorded]]" = field(default_factory=_future)


class EventWriter:
    """Use it on one event loop. It holds only what its callers wait for: each waits until its events are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Entry] = []
        self._writing: asyncio.Task[None] | None = None

    async def append(
        self, task_id: TaskId, events: Sequence[TaskEvent], *, fence: Fence | None = None
    ) -> Sequence[Recorded]:
        """Add events to the end of a log, all or none, behind everything that was given for it before.

        A caller that is cancelled may find them there or not.
        Raises: NotFound, LeaseLost: for this call alone. What a failing database raises, everybody gets who shared the
        transaction; nothing of it was kept, unless it is OutcomeUnknown.
        """
        if not events:
            return []
        if not is_storable(task_id):
            raise no_task(task_id)
        bodies = [encode_event(event) for event in events]
        entry = _Entry(task_id=task_id, events=tuple(events), bodies=bodies, fence=fence)
        self._waiting.append(entry)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_what_waits())
        return await entry.done

    async def _write_what_waits(self) -> None:
        """Raises nothing of the database's: those are told who wait."""
        batch: Sequence[_Entry] = ()
        try:
            while batch := self._next_batch():
                for entry, outcome in zip(batch, await self._outcomes(batch), strict=True):
                    _settle(entry, outcome)
        finally:
            self._writing = None
            for entry in (*batch, *self._waiting):  # left over only where this task was cancelled
                entry.done.cancel()

    def _next_batch(self) -> Sequence[_Entry]:
        """What waits, in its order and without what nobody waits for any more; it counts as waiting no longer."""
        batch: list[_Entry] = []
        size = taken = 0
        for entry in self._waiting:
            if size >= MAX_EVENTS:
                break
            taken += 1
            if not entry.done.done():
                batch.append(entry)
                size += len(entry.events)
        del self._waiting[:taken]
        return batch

    async def _outcomes(self, batch: Sequence[_Entry]) -> Sequence[_Outcome]:
        for left in reversed(range(TRIES)):
            try:
                async with self._database.write() as transaction:
                    outcomes = await _append(transaction, batch)
            except Clashed as error:
                if left:
                    continue
                return _for_each(error, batch)
            except Exception as error:  # noqa: BLE001 - raised by every call that is in the batch
                return _for_each(error, batch)
            return outcomes
        raise AssertionError("the last try returns")


async def _append(transaction: Transaction, batch: Sequence[_Entry]) -> Sequence[_Outcome]:
    """As ``events.append`` does for one, but with as many statements for all: four, and two where models answered."""
    held = await _lock_fences(transaction, {entry.fence for entry in batch if entry.fence is not None})
    ends = await _lock_logs(
        transaction, {entry.task_id for entry in batch if entry.fence is None or entry.fence in held}
    )
    outcomes: list[_Outcome] = []
    for entry in batch:
        if entry.fence is not None and entry.fence not in held:
            outcomes.append(lease_lost())
        elif (end := ends.get(entry.task_id)) is None:
            outcomes.append(no_task(entry.task_id))
        else:
            numbered = enumerate(entry.events, start=end + 1)
            outcomes.append([Recorded(seq=seq, at=transaction.now, event=event) for seq, event in numbered])
            ends[entry.task_id] = end + len(entry.events)
    kept = [
        (entry, recorded)
        for entry, recorded in zip(batch, outcomes, strict=True)
        if not isinstance(recorded, Exception)
    ]
    if kept:
        await _insert(transaction, kept, ends)
    return outcomes


async def _insert(
    transaction: Transaction, kept: Sequence[tuple[_Entry, Sequence[Recorded]]], ends: Mapping[TaskId, int]
) -> None:
    grown = sorted({entry.task_id for entry, _ in kept})
    grow = [{"of": task_id, "end": ends[task_id], "now": transaction.now} for task_id in grown]
    await transaction.connection.execute(_GROW, grow)
    rows = [
        {"task_id": entry.task_id, "seq": r.seq, "at": r.at, "kind": r.event.kind, "body": body}
        for entry, recorded in kept
        for r, body in zip(recorded, entry.bodies, strict=True)
    ]
    await transaction.connection.execute(_INSERT, rows)
    await spending.note(transaction, [(entry.task_id, recorded) for entry, recorded in kept])
    for entry, recorded in kept:
        transaction.tell(entry.task_id, recorded)


async def _lock_fences(transaction: Transaction, fences: set[Fence]) -> set[Fence]:
    """Those that hold, until the end of the transaction."""
    if not fences:
        return set()
    ids = sorted({fence.job_id for fence in fences})
    rows = (await transaction.connection.execute(_FENCES, {"ids": ids})).all()
    return fences & {Fence(job_id=job_id, epoch=epoch) for job_id, epoch in rows}


async def _lock_logs(transaction: Transaction, ids: set[TaskId]) -> dict[TaskId, int]:
    """The number of the last event of each task that is there."""
    if not ids:
        return {}
    rows = (await transaction.connection.execute(_ENDS, {"ids": sorted(ids)})).all()
    return {TaskId(id_): count for id_, count in rows}


def _for_each(error: Exception, batch: Sequence[_Entry]) -> Sequence[_Outcome]:
    """One error for each call: an exception that several raise would collect all their tracebacks."""
    copies = [copy.copy(error) for _ in batch]
    for own in copies:
        own.__cause__ = error
    return copies


def _settle(entry: _Entry, outcome: _Outcome) -> None:
    if entry.done.done():
        return  # its caller was cancelled
    if isinstance(outcome, Exception):
        entry.done.set_exception(outcome)
    else:
        entry.done.set_result(outcome)
