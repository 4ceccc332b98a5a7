"""Users and their credentials in the database."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.accounts import (
    LOCAL_USER,
    Credential,
    CredentialId,
    CredentialKind,
    Principal,
    Role,
    Scope,
    User,
    UserId,
)
from shadow.core.errors import AlreadyExists, NotFound
from shadow.db.database import Transaction
from shadow.db.tables import credentials, users
from shadow.db.tasks import batched, is_storable

USED_EVERY_S = 60.0
"""When a credential was used last is written no more often."""


async def add_user(transaction: Transaction, user: User) -> None:
    """Raises: AlreadyExists: of its id or its name."""
    try:
        async with transaction.connection.begin_nested():
            await transaction.connection.execute(
                insert(users).values(id=user.id, name=user.name, role=user.role.value, created_at=user.created_at)
            )
    except IntegrityError as error:
        raise AlreadyExists(f"There is a user {user.name!r} already.", mend="Choose another name.") from error


async def all_users(connection: AsyncConnection) -> Sequence[User]:
    rows = (await connection.execute(select(users).order_by(users.c.created_at, users.c.id))).mappings()
    return [_user(row) for row in rows]


async def get_user(connection: AsyncConnection, user_id: UserId) -> User:
    """Raises: NotFound."""
    if is_storable(user_id):
        row = (await connection.execute(select(users).where(users.c.id == user_id))).mappings().one_or_none()
        if row is not None:
            return _user(row)
    raise NotFound(f"There is no user {user_id!r}.")


async def is_host_user(connection: AsyncConnection, user_id: str) -> bool:
    """Whether this host is theirs, as it stands now: where there is no server, nobody has written them down."""
    query = select(users.c.role, users.c.disabled_at).where(users.c.id == user_id)
    row = (await connection.execute(query)).one_or_none()
    return user_id == LOCAL_USER and (row is None or (row.role == Role.ADMIN.value and row.disabled_at is None))


async def find_user(connection: AsyncConnection, reference: str) -> User:
    """By id or by name; an id goes before a name. Raises: NotFound."""
    if is_storable(reference):
        query = select(users).where((users.c.id == reference) | (users.c.name == reference))
        found = [_user(row) for row in (await connection.execute(query)).mappings()]
        if found:
            return next((user for user in found if user.id == reference), found[0])
    raise NotFound(f"There is no user {reference!r}.")


async def change_user(transaction: Transaction, user_id: UserId, **values: Any) -> None:
    """Raises: NotFound."""
    done = await transaction.connection.execute(update(users).where(users.c.id == user_id).values(values))
    if done.rowcount == 0:
        raise NotFound(f"There is no user {user_id!r}.")


async def add_credential(transaction: Transaction, credential: Credential, *, secret_hash: str) -> None:
    await transaction.connection.execute(
        insert(credentials).values(
            id=credential.id,
            user_id=credential.user_id,
            kind=credential.kind.value,
            name=credential.name,
            scopes=" ".join(sorted(credential.scopes)),
            secret_hash=secret_hash,
            created_at=credential.created_at,
            expires_at=credential.expires_at,
        )
    )


async def by_secret(connection: AsyncConnection, secret_hash: str) -> Principal | None:
    """Whoever it shows; also where it has expired, or its user is disabled."""
    return next(iter(await _shown_by(connection, credentials.c.secret_hash == secret_hash)), None)


async def by_ids(
    connection: AsyncConnection, credential_ids: Collection[CredentialId]
) -> Mapping[CredentialId, Principal]:
    """Those that are still there; also where they have expired, or their users are disabled."""
    found: dict[CredentialId, Principal] = {}
    for some in batched(sorted(credential_ids)):
        for principal in await _shown_by(connection, credentials.c.id.in_(some)):
            found[principal.credential.id] = principal
    return found


async def _shown_by(connection: AsyncConnection, which: ColumnElement[bool]) -> Sequence[Principal]:
    shown = [column.label(f"user_{column.name}") for column in users.c if column.name != "id"]
    query = select(credentials, *shown).join(users, users.c.id == credentials.c.user_id).where(which)
    return [
        Principal(
            user=_user({"id": row["user_id"], **{c.name: row[f"user_{c.name}"] for c in users.c if c.name != "id"}}),
            credential=_credential(row),
        )
        for row in (await connection.execute(query)).mappings()
    ]


async def keep_principal(transaction: Transaction, who: Principal) -> Principal | None:
    """As they stand now, and stay until the transaction's end; ``None``: the credential is gone.

    In the order in which somebody is shut out, so that nobody waits in a circle.
    """
    await transaction.connection.execute(select(users.c.id).where(users.c.id == who.user.id).with_for_update(read=True))
    credential = credentials.c.id == who.credential.id
    await transaction.connection.execute(select(credentials.c.id).where(credential).with_for_update(read=True))
    return next(iter(await _shown_by(transaction.connection, credential)), None)


async def credentials_of(connection: AsyncConnection, user_id: UserId) -> Sequence[Credential]:
    query = select(credentials).where(credentials.c.user_id == user_id).order_by(credentials.c.created_at)
    return [_credential(row) for row in (await connection.execute(query)).mappings()]


async def used(transaction: Transaction, credential_id: CredentialId) -> None:
    await transaction.connection.execute(
        update(credentials).where(credentials.c.id == credential_id).values(last_used_at=transaction.now)
    )


async def remove_credential(transaction: Transaction, credential_id: CredentialId, *, user_id: UserId) -> None:
    """Raises: NotFound: that user has none with this id."""
    if is_storable(credential_id):
        mine = (credentials.c.id == credential_id) & (credentials.c.user_id == user_id)
        if (await transaction.connection.execute(delete(credentials).where(mine))).rowcount:
            return
    raise NotFound(f"There is no credential {credential_id!r}.")


async def remove_credentials(transaction: Transaction, user_id: UserId) -> None:
    await transaction.connection.execute(delete(credentials).where(credentials.c.user_id == user_id))


async def remove_expired(transaction: Transaction) -> None:
    await transaction.connection.execute(delete(credentials).where(credentials.c.expires_at <= transaction.now))


def _user(row: Any) -> User:
    return User(
        id=UserId(row["id"]),
        name=row["name"],
        role=Role(row["role"]),
        created_at=row["created_at"],
        disabled_at=row["disabled_at"],
    )


def _credential(row: Any) -> Credential:
    return Credential(
        id=CredentialId(row["id"]),
        user_id=UserId(row["user_id"]),
        kind=CredentialKind(row["kind"]),
        name=row["name"],
        scopes=frozenset(Scope(name) for name in row["scopes"].split()),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )
