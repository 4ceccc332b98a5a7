"""A task's log, followed as it grows."""

from collections.abc import AsyncGenerator

from shadow.core.events import (
    QueueChanged,
    Recorded,
    RolledBack,
    RunFinished,
    StateChanged,
)
from shadow.core.tasks import TaskId
from shadow.db import events, jobs, tasks
from shadow.db.database import Database

_MAY_BE_LAST = (StateChanged, RunFinished, RolledBack, QueueChanged)
"""Events that a job tells as it ends."""


async def follow(database: Database, task_id: TaskId, *, after: int = 0) -> AsyncGenerator[Recorded]:
    look = at_work = True
    with database.feed.subscribe(task_id) as news:
        news.stands_at = after
        while True:
            if look:
                async with database.read() as connection:
                    await tasks.get(connection, task_id)
                    # In this order: what a job tells at its end is there when the job is gone.
                    at_work = bool(await jobs.of_task(connection, task_id, open_only=True))
                    found = await events.page(connection, task_id, after=after)
            else:
                found = news.take(after) or ()
            for recorded in found:
                yield recorded
                news.stands_at = after = recorded.seq
            if look and found:
                continue
            if look and not at_work:
                return
            if not look and (not found or isinstance(found[-1].event, _MAY_BE_LAST)):
                look = True
                continue
            await news.wait()
            look = False
