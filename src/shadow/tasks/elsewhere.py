"""Tasks whose workspace is on another host, or below another data directory: what can be done with them from here.

Only workers of that host do what needs the workspace. Where the database is this host's alone none will ever come: then nothing
is begun that would wait for one. Letting go of a task needs none; its workspace is removed when one comes all the same.
"""

import asyncio
from collections.abc import Callable
from typing import NoReturn

from shadow.core.errors import Conflict
from shadow.core.ids import make_id
from shadow.core.jobs import JobId, NewJob
from shadow.core.tasks import Task, TaskId
from shadow.db import jobs
from shadow.db.database import Database, Transaction
from shadow.tasks.kinds import FREE

COMES_WITHIN_S = 10.0
"""How long nobody of another host need be at work with a task before we say so."""
_LOOK_EVERY_S = 0.5
FORGET_AFTER_S = 31 * 24 * 3600.0
"""When the lease of what is left is surely over: see ``KEPT_LEASE_S``."""


class OtherHost(Conflict):
    """``details["host"]``: whose workers alone could do it."""

    code = "other_host"


def is_elsewhere(task: Task, host: str | None) -> bool:
    """``host``: ours; ``None``: we do what any may do."""
    return host is not None and task.host not in (None, host)


def other_host(task_id: TaskId, host: str | None) -> OtherHost:
    return OtherHost(
        f"The workspace of {task_id} is on the host {host}, of which no worker is here.",
        mend="Do it there: with SHADOW_DATA_DIR set to the directory whose file `host` says that name. "
        f"`shadow task archive {task_id}` lets go of the task; its log and its delivered branch stay.",
        details={"task_id": task_id, "host": host},
    )


async def watch_for_its_host(
    database: Database, task_id: TaskId, host: str | None, *, within_s: float = COMES_WITHIN_S
) -> NoReturn:
    """While somebody waits for a task that workers of another host may have to bring forward.

    Raises: OtherHost: nobody is at it, and nobody will be or has been for a while.
    """
    waited_s = 0.0
    while True:
        async with database.read() as connection:
            open_jobs = await jobs.of_task(connection, task_id, open_only=True)
            now = await database.now(connection)
        first = open_jobs[0] if open_jobs else None
        if host is None or first is None or first.host in (None, host) or (first.lease_until or 0) > now:
            waited_s = 0.0
        elif waited_s >= within_s or not database.is_shared:
            raise other_host(task_id, first.host)
        await asyncio.sleep(_LOOK_EVERY_S)
        waited_s += _LOOK_EVERY_S


async def leave_to_its_host(
    transaction: Transaction, task: Task, *, artifacts_too: bool, entropy: Callable[[int], bytes]
) -> None:
    """Have the workspace removed when a worker of its host comes; if none ever does, it ends with its lease, and nobody waits for
    one any longer (``FORGET_AFTER_S``)."""
    payload = {"workspace_id": task.workspace_id, "artifacts_of": task.id if artifacts_too else None}
    new = NewJob(kind=FREE, payload=payload, owner=task.owner, host=task.host)
    await jobs.add(transaction, new, job_id=JobId(make_id("job", entropy=entropy(12))))
