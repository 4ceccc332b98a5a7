"""Jobs in the database: what is to be done, and what has been done of it so far; who gets which, ``claims.py`` says.

Whoever writes for a job writes under its fence, in one transaction: a worker that lost it changes nothing any more. The topic
``JOBS`` tells workers that there may be something to do, or to stop.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.errors import NotFound, ShadowError
from shadow.core.jobs import OPEN_STATES, Job, JobId, JobState, NewJob
from shadow.core.tasks import TaskId
from shadow.db.database import Fence, Transaction, held_by
from shadow.db.errors import lease_lost
from shadow.db.tables import job_steps, jobs
from shadow.db.tasks import no_task
from shadow.db.tasks import tasks as tasks_table

JOBS = "jobs"
_OPEN = tuple(state.value for state in OPEN_STATES)


async def add(transaction: Transaction, new: NewJob, *, job_id: JobId) -> Job:
    """A repeat with the same id gives the job that there is. Raises: NotFound: there is no such task."""
    there = await _find(transaction.connection, job_id)
    if there is not None:
        return there
    number = 0 if new.task_id is None else await _next_number(transaction.connection, new.task_id)
    row = {
        "id": job_id,
        "kind": new.kind,
        "payload": _encode(new.payload),
        "task_id": new.task_id,
        "owner": new.owner,
        "state": JobState.WAITING.value,
        "priority": new.priority,
        "number": number,
        "host": new.host,
        "run_at": transaction.now + new.delay_s,
        "max_attempts": new.max_attempts,
        "attempts": 0,
        "epoch": 0,
        "stop_requested": False,
        "created_at": transaction.now,
    }
    await transaction.connection.execute(insert(jobs).values(row))
    transaction.tell(JOBS)
    return await get(transaction.connection, job_id)


async def get(connection: AsyncConnection, job_id: JobId) -> Job:
    """Raises: NotFound."""
    job = await _find(connection, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return job


async def of_task(connection: AsyncConnection, task_id: TaskId, *, open_only: bool = False) -> Sequence[Job]:
    """In their order."""
    query = select(jobs).where(jobs.c.task_id == task_id).order_by(jobs.c.number)
    if open_only:
        query = query.where(jobs.c.state.in_(_OPEN))
    return [as_job(row) for row in (await connection.execute(query)).mappings()]


async def renew(transaction: Transaction, fences: Collection[Fence], lease_s: float) -> frozenset[Fence]:
    """Those that still hold, whose leases now last ``lease_s`` from here. One that ran out counts as long as nobody took over."""
    if not fences:
        return frozenset()
    held = tuple_(jobs.c.id, jobs.c.epoch).in_([(fence.job_id, fence.epoch) for fence in fences])
    done = await transaction.connection.execute(
        update(jobs)
        .where(held, jobs.c.state == JobState.RUNNING.value)
        .values(lease_until=transaction.now + lease_s)
        .returning(jobs.c.id, jobs.c.epoch)
    )
    return frozenset(Fence(job_id=job_id, epoch=epoch) for job_id, epoch in done)


async def signs(connection: AsyncConnection, job_ids: Collection[str]) -> Mapping[str, tuple[int, bool]]:
    """Of each job that is still there: its epoch, and whether a stop was asked for."""
    query = select(jobs.c.id, jobs.c.epoch, jobs.c.stop_requested).where(jobs.c.id.in_(job_ids))
    return {job_id: (epoch, stop) for job_id, epoch, stop in await connection.execute(query)}


# What a job's worker says about it; each raises LeaseLost


async def recorded_steps(connection: AsyncConnection, job_id: str) -> Mapping[str, Any]:
    """The results of the steps that are finished, by name."""
    query = select(job_steps.c.name, job_steps.c.result).where(job_steps.c.job_id == job_id)
    return {name: json.loads(result) for name, result in await connection.execute(query)}


async def record_step(transaction: Transaction, fence: Fence, name: str, result: str, attempts: int) -> bool:
    """``result``: JSON. False: it is recorded already, and stays as it is. Raises: LeaseLost."""
    row = {"name": name, "result": result, "attempts": attempts, "finished_at": transaction.now}
    # As ``Transaction.check`` does it, but in one statement with the rest.
    held = select(jobs.c.id, *map(literal, row.values())).where(held_by(fence))
    held = held.with_for_update(read=True, key_share=True, of=jobs)
    connection = transaction.connection
    insert_into = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = insert_into(job_steps).from_select(["job_id", *row], held).on_conflict_do_nothing()
    done = await connection.execute(new)
    if done.rowcount == 0:
        await transaction.check(fence)
    return done.rowcount == 1


async def came_on(transaction: Transaction, fence: Fence) -> None:
    """A job that has done a step has its attempts anew."""
    await transaction.connection.execute(update(jobs).where(held_by(fence)).values(attempts=1))


async def finish(
    transaction: Transaction,
    fence: Fence,
    state: JobState,
    *,
    result: Mapping[str, Any] | None = None,
    error: ShadowError | None = None,
) -> None:
    """Raises: LeaseLost."""
    values: dict[str, Any] = {"state": state.value, "ended_at": transaction.now, "lease_until": None}
    if result is not None:
        values["result"] = _encode(result)
    if error is not None:
        values["error"] = encode_error(error, final=True)
    await _write_held(transaction, fence, values)
    transaction.tell(JOBS)
    task_id = select(jobs.c.task_id).where(jobs.c.id == fence.job_id)
    if (task := (await transaction.connection.execute(task_id)).scalar_one_or_none()) is not None:
        transaction.tell(task)  # who follows it sees that nothing goes on any more


async def detach(transaction: Transaction, fence: Fence) -> None:
    """It outlives its task, which it is about to delete. Raises: LeaseLost."""
    await _write_held(transaction, fence, {"task_id": None})


async def begin_failing(transaction: Transaction, fence: Fence, error: ShadowError) -> None:
    """From here on, whoever has it only makes good for what it did. Raises: LeaseLost."""
    await _write_held(transaction, fence, {"error": encode_error(error, final=True)})


async def retry_later(transaction: Transaction, fence: Fence, delay_s: float, error: ShadowError) -> None:
    """Raises: LeaseLost."""
    waits = _waits_until(transaction.now + delay_s)
    await _write_held(transaction, fence, {**waits, "error": encode_error(error, final=False)})
    transaction.tell(JOBS)


async def hand_back(transaction: Transaction, fence: Fence) -> None:
    """For anybody to take at once; that it began is not counted. Raises: LeaseLost."""
    await _write_held(transaction, fence, {**_waits_until(transaction.now), "attempts": jobs.c.attempts - 1})
    transaction.tell(JOBS)


# What others want of a job


async def request_stop(transaction: Transaction, job_id: JobId) -> None:
    """Its handler is told, and decides how to end; one that waits begins at once, for that. One that ended stays so."""
    now = transaction.now
    await transaction.connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state.in_(_OPEN))
        .values(stop_requested=True, run_at=case((jobs.c.run_at > now, now), else_=jobs.c.run_at))
    )
    transaction.tell(JOBS)


async def pin(transaction: Transaction, task_id: TaskId, host: str | None) -> None:
    """What is still to be done for a task only workers of ``host`` may do from now on; ``None``: any may."""
    await transaction.connection.execute(
        update(jobs).where(jobs.c.task_id == task_id, jobs.c.state.in_(_OPEN)).values(host=host)
    )


async def give_up(transaction: Transaction, job: Job) -> None:
    """End the lease of a worker that is surely gone: somebody else takes the job over at once."""
    held = (jobs.c.id == job.id) & (jobs.c.epoch == job.epoch) & (jobs.c.state == JobState.RUNNING.value)
    await transaction.connection.execute(update(jobs).where(held).values(lease_until=transaction.now))
    transaction.tell(JOBS)


async def revive(transaction: Transaction, job: Job, payload: Mapping[str, Any]) -> None:
    """Let one that has failed begin again, with what it has on record."""
    await transaction.connection.execute(
        update(jobs)
        .where(jobs.c.id == job.id, jobs.c.state.not_in(_OPEN))
        .values(
            **_waits_until(transaction.now),
            payload=_encode(payload),
            attempts=0,
            stop_requested=False,
            error=None,
            ended_at=None,
        )
    )
    transaction.tell(JOBS)


async def cancel_waiting(transaction: Transaction, job_id: JobId) -> bool:
    """End one of which nothing has been done yet. False: somebody has begun it, or it has ended."""
    done = await transaction.connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state == JobState.WAITING.value, jobs.c.epoch == 0)
        .values(state=JobState.CANCELLED.value, ended_at=transaction.now)
    )
    transaction.tell(JOBS)
    return done.rowcount == 1


async def cancel_forgotten(transaction: Transaction, kind: str, older_than_s: float) -> int:
    """End those of ``kind`` that were added so long ago and that nobody does; how many there were."""
    nobodys = or_(jobs.c.lease_until.is_(None), jobs.c.lease_until <= transaction.now)
    old = and_(
        jobs.c.kind == kind, jobs.c.state.in_(_OPEN), jobs.c.created_at < transaction.now - older_than_s, nobodys
    )
    ended = update(jobs).where(old).values(state=JobState.CANCELLED.value, ended_at=transaction.now, lease_until=None)
    return (await transaction.connection.execute(ended)).rowcount


async def prune(transaction: Transaction, older_than_s: float) -> int:
    """Forget jobs without a task that ended so long ago; how many there were. Those of a task go with it."""
    old = and_(jobs.c.task_id.is_(None), jobs.c.ended_at < transaction.now - older_than_s)
    return (await transaction.connection.execute(delete(jobs).where(old, jobs.c.state.not_in(_OPEN)))).rowcount


async def _find(connection: AsyncConnection, job_id: str) -> Job | None:
    row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).mappings().one_or_none()
    return None if row is None else as_job(row)


async def _next_number(connection: AsyncConnection, task_id: str) -> int:
    # Who adds to a task waits for whoever is about to: numbers become visible in their order.
    task = select(tasks_table.c.id).where(tasks_table.c.id == task_id).with_for_update(key_share=True)
    if (await connection.execute(task)).first() is None:
        raise no_task(task_id)
    last = select(func.max(jobs.c.number)).where(jobs.c.task_id == task_id)
    return ((await connection.execute(last)).scalar_one() or 0) + 1


async def _write_held(transaction: Transaction, fence: Fence, values: Mapping[str, Any]) -> None:
    done = await transaction.connection.execute(update(jobs).where(held_by(fence)).values(**values))
    if done.rowcount == 0:
        raise lease_lost()


def _waits_until(run_at: float) -> dict[str, Any]:
    return {"state": JobState.WAITING.value, "run_at": run_at, "lease_until": None, "worker": None}


def encode_error(error: ShadowError, *, final: bool) -> str:
    told = {"code": error.code, "message": error.message, "mend": error.mend}
    return _encode({**told, "final": True} if final else told)


def _encode(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=True, separators=(",", ":"))


def as_job(row: Mapping[Any, Any]) -> Job:
    values = {name: row[name] for name in row if name != "number"}
    values["state"] = JobState(values["state"])
    values["payload"] = json.loads(values["payload"])
    for name in ("error", "result"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return Job(**values)
