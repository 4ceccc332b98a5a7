"""Answers to creations that came with an idempotency key, kept for a day: written with what was created, or not at all."""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.errors import AlreadyExists
from shadow.db.database import Transaction
from shadow.db.tables import answers

KEPT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """``asked_hash``: of what was asked."""

    asked_hash: str
    body: str
    location: str | None = None


class KeyTaken(AlreadyExists):
    """Another request with the same key was faster; nothing of this one is to be done."""

    code = "key_taken"


async def add(transaction: Transaction, answer: KeptAnswer, *, user_id: str, key_hash: str) -> None:
    """Raises: KeyTaken. Until the transaction of another request with this key has ended, its outcome is waited for."""
    connection = transaction.connection
    await connection.execute(delete(answers).where(answers.c.created_at <= transaction.now - KEPT_S))
    try:
        await connection.execute(
            insert(answers).values(
                user_id=user_id,
                key_hash=key_hash,
                asked_hash=answer.asked_hash,
                body=answer.body,
                location=answer.location,
                created_at=transaction.now,
            )
        )
    except IntegrityError as error:
        raise KeyTaken("Another request with this idempotency key was faster.") from error


async def find(connection: AsyncConnection, *, user_id: str, key_hash: str, now: float) -> KeptAnswer | None:
    query = select(answers).where(
        answers.c.user_id == user_id, answers.c.key_hash == key_hash, answers.c.created_at > now - KEPT_S
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    return KeptAnswer(asked_hash=row["asked_hash"], body=row["body"], location=row["location"])
