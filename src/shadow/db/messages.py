"""What waits to be said to the agent of a task, in order."""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.errors import NotFound, Rejected
from shadow.core.tasks import QueuedMessage, TaskId
from shadow.db.database import Transaction
from shadow.db.tables import messages
from shadow.db.tasks import is_storable, lock

# Whoever changes a queue locks its task first: two that read it at once would both take the same message.


async def add(transaction: Transaction, message: QueuedMessage, *, first: bool = False) -> None:
    """Behind all others, or before them. Raises: NotFound: no such task."""
    await lock(transaction, message.task_id)
    lowest, highest = await _edges(transaction, message.task_id)
    await transaction.connection.execute(
        insert(messages).values(
            id=message.id,
            task_id=message.task_id,
            text=message.text,
            position=lowest - 1 if first else highest + 1,
            created_at=transaction.now,
        )
    )
    transaction.tell(message.task_id)


async def queue(connection: AsyncConnection, task_id: TaskId) -> Sequence[QueuedMessage]:
    if not is_storable(task_id):
        return []
    query = select(messages).where(messages.c.task_id == task_id).order_by(messages.c.position)
    rows = (await connection.execute(query)).mappings()
    return [QueuedMessage(id=row["id"], task_id=task_id, text=row["text"]) for row in rows]


async def take(transaction: Transaction, task_id: TaskId) -> QueuedMessage | None:
    """Remove the first one and give it. Raises: NotFound: no such task."""
    await lock(transaction, task_id)
    waiting = await queue(transaction.connection, task_id)
    if not waiting:
        return None
    await remove(transaction, task_id, waiting[0].id)
    return waiting[0]


async def edit(transaction: Transaction, task_id: TaskId, message_id: str, text: str) -> None:
    """Raises: NotFound: no such task, or the message waits no more."""
    await lock(transaction, task_id)
    _check(message_id)
    own = (messages.c.task_id == task_id) & (messages.c.id == message_id)
    if (await transaction.connection.execute(update(messages).where(own).values(text=text))).rowcount == 0:
        raise _no_message(message_id)
    transaction.tell(task_id)


async def remove(transaction: Transaction, task_id: TaskId, message_id: str) -> None:
    """Raises: NotFound: no such task, or the message waits no more."""
    await lock(transaction, task_id)
    _check(message_id)
    own = (messages.c.task_id == task_id) & (messages.c.id == message_id)
    if (await transaction.connection.execute(delete(messages).where(own))).rowcount == 0:
        raise _no_message(message_id)
    transaction.tell(task_id)


async def reorder(transaction: Transaction, task_id: TaskId, ids: Sequence[str]) -> None:
    """``ids``: those of all that wait. Raises: NotFound: no such task; Rejected: they are not."""
    await lock(transaction, task_id)
    waiting = await queue(transaction.connection, task_id)
    if sorted(ids) != sorted(message.id for message in waiting):
        raise Rejected("An order names every message of the queue once.", mend="Look at the queue and try again.")
    if not waiting:
        return
    _, highest = await _edges(transaction, task_id)
    # Behind the old positions, so that no two share one meanwhile.
    moved = [{"of": message_id, "to": highest + number} for number, message_id in enumerate(ids, start=1)]
    move = update(messages).where(messages.c.id == bindparam("of")).values(position=bindparam("to"))
    await transaction.connection.execute(move, moved)
    transaction.tell(task_id)


async def _edges(transaction: Transaction, task_id: TaskId) -> tuple[int, int]:
    """The lowest and the highest position."""
    query = select(func.min(messages.c.position), func.max(messages.c.position)).where(messages.c.task_id == task_id)
    lowest, highest = (await transaction.connection.execute(query)).one()
    return (0, 0) if lowest is None else (lowest, highest)


def _check(message_id: str) -> None:
    if not is_storable(message_id):
        raise _no_message(message_id)


def _no_message(message_id: str) -> NotFound:
    return NotFound(
        f"No message {message_id!r} waits.", mend="It was removed, or the agent has it by now: see the queue."
    )
