"""Who gets which job: the first of each task, by priority and age, within the limits of what may run at once."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, false, func, or_, select, true, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.jobs import OPEN_STATES, Job, JobLimits, JobState
from shadow.db.database import Fence, Transaction
from shadow.db.errors import WorkerLost
from shadow.db.jobs import as_job, encode_error, finish
from shadow.db.tables import jobs, schedules

PAGE = 100
_ANY_NUMBER = 2**31 - 1
_CLAIMS = 0x5AAD1
"""The lock around claims: two at once would each see a limit's last place free."""
_WORKER_LOST = WorkerLost(
    "Its worker was lost each time that it began.", mend="See the logs of the workers; try again."
)


async def claim(
    transaction: Transaction,
    *,
    worker: str,
    host: str,
    kinds: Collection[str],
    lease_s: float,
    limits: JobLimits,
    wanted: int,
    task_id: str | None = None,
) -> Sequence[Job]:
    """Take at most ``wanted`` jobs whose time has come, or whose worker's lease ran out: by priority, then by age.

    Of a task only the first open job; with ``task_id`` of that task alone. None beyond the limits, which count the jobs with a
    live lease. A job that was taken as often as it may begin is ``is_failing``; if its worker is lost even then, it has failed
    (``worker_lost``).
    """
    connection, now = transaction.connection, transaction.now
    await transaction.lock(_CLAIMS)
    await _end_lost(transaction)
    room = await _Room.measure(connection, now, limits)
    taken: list[Job] = []
    is_more = True
    while is_more and (places := min(wanted - len(taken), room.total, PAGE)) > 0:
        query = _due(now, host, kinds, task_id).where(room.condition()).order_by(*_BY_TURN).limit(places)
        rows = (await connection.execute(query.with_for_update(skip_locked=True, of=jobs))).mappings().all()
        found = [job for job in map(as_job, rows) if room.take(job)]
        if found:
            taken.extend(await _take(transaction, found, worker=worker, lease_s=lease_s))
        is_more = len(rows) == places
    return taken


async def upcoming(
    connection: AsyncConnection, now: float, *, host: str, kinds: Collection[str], task_id: str | None = None
) -> tuple[bool, float | None]:
    """Whether a claim may find something now, limits aside, or a schedule is due; and when there may be more to do."""
    mine = _reachable(host, kinds, task_id)
    waiting, running = jobs.c.state == JobState.WAITING.value, jobs.c.state == JobState.RUNNING.value
    scheduled = and_(schedules.c.kind.in_(kinds), true() if task_id is None else false())
    is_due = or_(
        _due(now, host, kinds, task_id).exists(),
        select(schedules).where(scheduled, schedules.c.next_at <= now).exists(),
    )
    times = union_all(
        select(func.min(jobs.c.run_at).label("at")).where(mine, waiting, jobs.c.run_at > now),
        select(func.min(jobs.c.lease_until)).where(mine, running, jobs.c.lease_until > now),
        select(func.min(schedules.c.next_at)).where(scheduled, schedules.c.next_at > now),
    ).subquery()
    due, next_at = (await connection.execute(select(is_due, select(func.min(times.c.at)).scalar_subquery()))).one()
    return bool(due), next_at


_BY_TURN = (jobs.c.priority.desc(), jobs.c.created_at, jobs.c.number, jobs.c.id)


def _reachable(host: str, kinds: Collection[str], task_id: str | None) -> ColumnElement[bool]:
    task = true() if task_id is None else jobs.c.task_id == task_id
    return and_(jobs.c.kind.in_(kinds), or_(jobs.c.host.is_(None), jobs.c.host == host), task)


def _due(now: float, host: str, kinds: Collection[str], task_id: str | None) -> Select[Any]:
    earlier = jobs.alias("earlier")
    first_of_task = ~(
        select(earlier.c.id)
        .where(
            earlier.c.task_id == jobs.c.task_id,
            earlier.c.number < jobs.c.number,
            earlier.c.state.in_([state.value for state in OPEN_STATES]),
        )
        .exists()
    )
    waits = and_(jobs.c.state == JobState.WAITING.value, jobs.c.run_at <= now)
    lost = and_(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_until <= now)
    return select(jobs).where(_reachable(host, kinds, task_id), or_(waits, lost), first_of_task)


@dataclass(slots=True)
class _Room:
    """How many more jobs may run within the limits."""

    limits: JobLimits
    owners: Counter[str]
    kinds: Counter[str]
    total: int

    @classmethod
    async def measure(cls, connection: AsyncConnection, now: float, limits: JobLimits) -> "_Room":
        query = (
            select(jobs.c.owner, jobs.c.kind, func.count())
            .where(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_until > now)
            .group_by(jobs.c.owner, jobs.c.kind)
        )
        owners: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for owner, kind, count in await connection.execute(query):
            owners[owner] += count
            kinds[kind] += count
        total = _ANY_NUMBER if limits.total is None else limits.total - owners.total()
        return cls(limits, owners, kinds, total)

    def take(self, job: Job) -> bool:
        if job.owner in self._full_owners() or job.kind in self._full_kinds():
            return False
        self.owners[job.owner] += 1
        self.kinds[job.kind] += 1
        self.total -= 1
        return True

    def condition(self) -> ColumnElement[bool]:
        return and_(jobs.c.owner.not_in(self._full_owners()), jobs.c.kind.not_in(self._full_kinds()))

    def _full_owners(self) -> Sequence[str]:
        most = self.limits.per_owner
        return [] if most is None else [owner for owner, count in self.owners.items() if count >= most]

    def _full_kinds(self) -> Sequence[str]:
        return [kind for kind, most in (self.limits.per_kind or {}).items() if self.kinds[kind] >= most]


async def _take(transaction: Transaction, found: Sequence[Job], *, worker: str, lease_s: float) -> Sequence[Job]:
    used_up = [
        job.id
        for job in found
        if job.state is JobState.RUNNING and job.attempts >= job.max_attempts and not job.is_failing
    ]
    taking = (
        update(jobs)
        .where(jobs.c.id.in_([job.id for job in found]))
        .values(
            state=JobState.RUNNING.value,
            worker=worker,
            lease_until=transaction.now + lease_s,
            epoch=jobs.c.epoch + 1,
            attempts=jobs.c.attempts + 1,
            error=case((jobs.c.id.in_(used_up), encode_error(_WORKER_LOST, final=True)), else_=jobs.c.error),
        )
        .returning(jobs)
    )
    taken = {job.id: job for job in map(as_job, (await transaction.connection.execute(taking)).mappings())}
    return [taken[job.id] for job in found]


async def _end_lost(transaction: Transaction) -> None:
    lost = and_(
        jobs.c.state == JobState.RUNNING.value,
        jobs.c.lease_until <= transaction.now,
        jobs.c.attempts > jobs.c.max_attempts,
    )
    # A row that somebody has locked is in use, whatever its lease says.
    query = select(jobs).where(lost).limit(PAGE).with_for_update(skip_locked=True)
    for job in map(as_job, (await transaction.connection.execute(query)).mappings().all()):
        error = None if job.is_failing else _WORKER_LOST
        await finish(transaction, Fence(job_id=job.id, epoch=job.epoch), JobState.FAILED, error=error)
