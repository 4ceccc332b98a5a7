"""What a task's log has to say of its runs and of what it delivered."""

from collections.abc import Sequence

from shadow.core.errors import NotFound
from shadow.core.events import WorkDelivered
from shadow.core.runs import Run, runs_of
from shadow.core.tasks import TaskId
from shadow.db import events
from shadow.db.database import Database

_ENDS = ("run_finished", "rolled_back")


async def runs(database: Database, task_id: TaskId, *, after: int = 0, limit: int) -> Sequence[Run]:
    """At most ``limit`` that began behind event ``after``, in order."""
    async with database.read() as connection:
        begun = await events.of_kinds(connection, task_id, ["run_started"], after=after, limit=limit)
        if not begun:
            return []
        ends = await events.of_kinds(connection, task_id, _ENDS, after=begun[0].seq)
    return runs_of(sorted([*begun, *ends], key=lambda one: one.seq))


async def delivered(database: Database, task_id: TaskId) -> WorkDelivered:
    """The last delivery. Raises: NotFound: there is none."""
    async with database.read() as connection:
        last = await events.last_of(connection, task_id, "work_delivered")
    if last is None:
        raise NotFound("The task has delivered nothing.", mend="`shadow task diff` shows what its workspace holds.")
    assert isinstance(last.event, WorkDelivered)
    return last.event


def patch_of(work: WorkDelivered) -> bytes:
    """What ``git apply`` takes, from the difference that is on record.

    Raises: NotFound: the record does not have all of it (too large, binary files, bytes that are no UTF-8).
    """
    lines = work.diff.split("\n")
    if work.diff and "\ufffd" not in work.diff and not any(line.startswith("Binary files ") for line in lines):
        return work.diff.encode("utf-8", "surrogateescape")
    raise NotFound(
        "The record does not have all of the work: it is too large, or holds binary files.",
        mend=f"Fetch {work.where}; with `deliver` set to `patch` the next run keeps one.",
    )
