"""A process that makes tasks: ``python -m tests.support.task_creator DATA_DIR URL LIMIT NUMBER``.

It says that it is ready, waits for a line, makes NUMBER at once for each of two users, and says how many of them it could.
"""

import asyncio
import os
import sys
from pathlib import Path

from shadow.core.errors import LimitExceeded
from shadow.core.repositories import LocalRepository, Repository
from shadow.db.database import Database, open_database
from shadow.tasks.service import TaskLimits, Tasks
from shadow.tasks.values import TaskSettings

OWNERS = ("ann", "bob")


def shown(repository: Repository) -> str:
    assert isinstance(repository, LocalRepository)
    return repository.path


def make_tasks(database: Database, *, limit: int | None) -> Tasks:
    return Tasks(database=database, shown=shown, entropy=os.urandom, limits=TaskLimits(live_per_owner=limit))


async def create(tasks: Tasks, owner: str) -> bool:
    """``False``: the limit is reached."""
    try:
        await tasks.create(
            LocalRepository(path="/project"), "Do it", model="scripted:x", settings=TaskSettings(), owner=owner
        )
    except LimitExceeded:
        return False
    return True


async def main(data_dir: str, url: str, limit: str, number: str) -> None:
    async with open_database(Path(data_dir), url=url or None) as database:
        tasks = make_tasks(database, limit=int(limit))
        print("ready", flush=True)
        sys.stdin.readline()
        made = await asyncio.gather(*(create(tasks, owner) for owner in OWNERS * int(number)))
        print(sum(made), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
