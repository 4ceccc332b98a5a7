"""Keys for providers of models in the database, encrypted: what is in them, ``accounts/sealing.py`` alone knows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.keys import KeyOwner, ProviderKey
from shadow.db.database import Transaction
from shadow.db.tables import provider_keys as table


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    owner: str
    about: ProviderKey
    sealed: str
    sealed_by: str
    """Names the key that it was encrypted with."""


async def put(transaction: Transaction, owner: KeyOwner, key: SealedKey) -> None:
    """In the place of the one that was there."""
    mine = (table.c.owner == key.owner) & (table.c.provider == key.about.provider)
    await transaction.connection.execute(delete(table).where(mine))
    await transaction.connection.execute(
        insert(table).values(
            owner=key.owner,
            provider=key.about.provider,
            project_id=owner.project_id,
            sealed=key.sealed,
            sealed_by=key.sealed_by,
            base_url=key.about.base_url,
            hint=key.about.hint,
            added_by=key.about.added_by,
            added_at=key.about.added_at,
        )
    )


async def reseal(transaction: Transaction, key: SealedKey) -> None:
    """The same key, encrypted anew."""
    mine = (table.c.owner == key.owner) & (table.c.provider == key.about.provider)
    await transaction.connection.execute(update(table).where(mine).values(sealed=key.sealed, sealed_by=key.sealed_by))


async def of_owners(
    connection: AsyncConnection, owners: Collection[KeyOwner], *, provider: str | None = None
) -> Sequence[SealedKey]:
    """By provider. ``provider``: of that one alone."""
    query = select(table).where(table.c.owner.in_([str(owner) for owner in owners]))
    if provider is not None:
        query = query.where(table.c.provider == provider)
    return [_key(row) for row in (await connection.execute(query.order_by(table.c.provider))).mappings()]


async def all_of(connection: AsyncConnection) -> Sequence[SealedKey]:
    return [_key(row) for row in (await connection.execute(select(table))).mappings()]


async def sealers(connection: AsyncConnection) -> frozenset[str]:
    """What names the keys that any row is encrypted with."""
    return frozenset((await connection.execute(select(table.c.sealed_by).distinct())).scalars())


async def remove(transaction: Transaction, owner: KeyOwner, provider: str) -> bool:
    """Whether there was one."""
    mine = (table.c.owner == str(owner)) & (table.c.provider == provider)
    return bool((await transaction.connection.execute(delete(table).where(mine))).rowcount)


async def remove_added_by(transaction: Transaction, owner: KeyOwner, user_id: str) -> None:
    await transaction.connection.execute(delete(table).where(table.c.owner == str(owner), table.c.added_by == user_id))


def _key(row: Any) -> SealedKey:
    about = ProviderKey(
        provider=row["provider"],
        base_url=row["base_url"],
        hint=row["hint"],
        added_by=row["added_by"],
        added_at=row["added_at"],
    )
    return SealedKey(owner=row["owner"], about=about, sealed=row["sealed"], sealed_by=row["sealed_by"])
