"""Checkpoints of tasks: where the conversation stood, and what the workspace held."""

from collections.abc import Sequence

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.errors import Conflict, NotFound
from shadow.core.tasks import Checkpoint, TaskId
from shadow.db.database import Transaction
from shadow.db.tables import checkpoints
from shadow.db.tasks import is_storable

_COLUMNS = ("id", "task_id", "seq", "run", "branch", "head", "tree_commit", "created_at")


async def add(transaction: Transaction, checkpoint: Checkpoint) -> None:
    await transaction.connection.execute(
        insert(checkpoints).values({name: getattr(checkpoint, name) for name in _COLUMNS})
    )


async def count(connection: AsyncConnection, task_id: TaskId) -> int:
    query = select(func.count()).where(checkpoints.c.task_id == task_id)
    return (await connection.execute(query)).scalar_one()


async def all_of(connection: AsyncConnection, task_id: TaskId) -> Sequence[Checkpoint]:
    """Oldest first."""
    if not is_storable(task_id):
        return []
    query = select(checkpoints).where(checkpoints.c.task_id == task_id).order_by(checkpoints.c.seq)
    return [Checkpoint(**row) for row in (await connection.execute(query)).mappings()]


async def find(connection: AsyncConnection, task_id: TaskId, reference: str) -> Checkpoint:
    """By its id, or a unique beginning of it. Raises: NotFound, Conflict."""
    found = [each for each in await all_of(connection, task_id) if reference and each.id.startswith(reference)]
    exact = [each for each in found if each.id == reference]
    if not found:
        raise NotFound(
            f"There is no checkpoint {reference!r} of this task.", mend="`shadow task show` lists those there are."
        )
    if len(found) > 1 and not exact:
        raise Conflict(f"{reference!r} may mean several checkpoints.", mend="Give more of the id.")
    return (exact or found)[0]
