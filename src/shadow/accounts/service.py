"""What can be asked of users and their credentials. Everything here is one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shadow.core.accounts import (
    LOCAL_USER,
    SCOPES_OF,
    Credential,
    CredentialId,
    CredentialKind,
    Principal,
    Role,
    Scope,
    User,
    UserId,
    check_name,
    hash_of,
    make_secret,
)
from shadow.core.errors import Conflict, LimitExceeded, NotFound, Rejected, Unauthenticated
from shadow.core.ids import make_id
from shadow.db import accounts
from shadow.db.database import Database, Transaction

SESSION_S = 30 * 24 * 3600.0
CODE_S = 15 * 60.0
INVITATION_S = 7 * 24 * 3600.0
MAX_TOKEN_S = 10 * 365 * 24 * 3600.0
MAX_CREDENTIALS = 200
"""Of one user."""
CHANGED = "accounts"
"""What readers of the feed are told when somebody may do less than before."""
USERS = 0x5AAD4
"""The lock around what is decided by looking at all users."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A credential with its secret, which is told this once."""

    credential: Credential
    secret: str


@dataclass(slots=True, kw_only=True)
class Accounts:
    database: Database
    entropy: Callable[[int], bytes]

    # Who asks

    async def authenticate(self, secret: str, *kinds: CredentialKind) -> Principal:
        """Raises: Unauthenticated: it shows nobody, or no longer."""
        async with self.database.read() as connection:
            found = await accounts.by_secret(connection, hash_of(secret))
            now = await self.database.now(connection)
        if found is None or not is_good(found, now) or found.credential.kind not in kinds:
            raise _nobody()
        last = found.credential.last_used_at
        if last is None or now - last > accounts.USED_EVERY_S:
            async with self.database.write() as transaction:
                await accounts.used(transaction, found.credential.id)
        return found

    async def first_user(self) -> User:
        """The administrator that every server begins with; made where there is nobody yet."""
        async with self.database.write() as transaction:
            await transaction.lock(USERS)  # several servers may start at once
            known = await accounts.all_users(transaction.connection)
            if known:
                return next((user for user in known if user.id == LOCAL_USER), known[0])
            user = User(id=LOCAL_USER, name="local", role=Role.ADMIN, created_at=transaction.now)
            await accounts.add_user(transaction, user)
        return user

    # Credentials

    async def issue_code(self, user_id: UserId, *, expires_in_s: float = CODE_S) -> tuple[User, Issued]:
        """For one login. Raises: NotFound."""
        async with self.database.write() as transaction:
            user = await accounts.get_user(transaction.connection, user_id)
            scopes = SCOPES_OF[user.role]
            return user, await self._issue(transaction, user, CredentialKind.CODE, "one login", scopes, expires_in_s)

    async def log_in(self, code: str, kind: CredentialKind, *, name: str) -> Issued:
        """Exchange a code, which is good for nothing after it. Raises: Unauthenticated, Rejected."""
        check_name(name)
        async with self.database.write() as transaction:
            found = await accounts.by_secret(transaction.connection, hash_of(code))
            if found is None or found.credential.kind is not CredentialKind.CODE or not is_good(found, transaction.now):
                raise _nobody()
            try:
                await accounts.remove_credential(transaction, found.credential.id, user_id=found.user.id)
            except NotFound:
                raise _nobody() from None  # somebody else exchanged it at the same moment
            return await self._issue(transaction, found.user, kind, name, SCOPES_OF[found.user.role], SESSION_S)

    async def issue_token(
        self,
        principal: Principal,
        *,
        name: str,
        scopes: frozenset[Scope],
        expires_in_s: float | None,
        also: Callable[[Transaction, Issued], Awaitable[None]] | None = None,
    ) -> Issued:
        """``also``: what else belongs into the transaction. Raises: Rejected, Denied: of a scope that the caller has not;
        LimitExceeded."""
        check_name(name)
        if not scopes:
            raise Rejected("A token without a scope is good for nothing.", mend=f"Choose from {', '.join(Scope)}.")
        for scope in scopes:
            principal.check(scope)
        if expires_in_s is not None and not 1 <= expires_in_s <= MAX_TOKEN_S:
            raise Rejected(f"A token lives for 1 to {MAX_TOKEN_S:.0f} seconds, or without end.")
        async with self.database.write() as transaction:
            issued = await self._issue(transaction, principal.user, CredentialKind.TOKEN, name, scopes, expires_in_s)
            if also is not None:
                await also(transaction, issued)
        return issued

    async def credentials(self, user_id: UserId) -> Sequence[Credential]:
        async with self.database.read() as connection:
            return await accounts.credentials_of(connection, user_id)

    async def revoke(self, user_id: UserId, credential_id: CredentialId) -> None:
        """Raises: NotFound."""
        async with self.database.write() as transaction:
            await accounts.remove_credential(transaction, credential_id, user_id=user_id)
            transaction.tell(CHANGED)

    async def _issue(
        self,
        transaction: Transaction,
        user: User,
        kind: CredentialKind,
        name: str,
        scopes: frozenset[Scope],
        expires_in_s: float | None,
    ) -> Issued:
        await accounts.remove_expired(transaction)
        held = len(await accounts.credentials_of(transaction.connection, user.id))
        # A code is short-lived, made by administrators and at a server's start, which tokens must not be in the way of.
        if held >= MAX_CREDENTIALS and kind is not CredentialKind.CODE:
            raise LimitExceeded(f"{MAX_CREDENTIALS} tokens and sessions are open.", mend="Revoke some.")
        secret = make_secret(kind, entropy=self.entropy(32))
        credential = Credential(
            id=CredentialId(make_id("cred", entropy=self.entropy(12))),
            user_id=user.id,
            kind=kind,
            name=name,
            scopes=scopes,
            created_at=transaction.now,
            expires_at=None if expires_in_s is None else transaction.now + expires_in_s,
        )
        await accounts.add_credential(transaction, credential, secret_hash=hash_of(secret))
        return Issued(credential=credential, secret=secret)

    # Users

    async def users(self) -> Sequence[User]:
        async with self.database.read() as connection:
            return await accounts.all_users(connection)

    async def user(self, user_id: UserId) -> User:
        """Raises: NotFound."""
        async with self.database.read() as connection:
            return await accounts.get_user(connection, user_id)

    async def invite(
        self, name: str, role: Role, *, also: Callable[[Transaction, User, Issued], Awaitable[None]] | None = None
    ) -> tuple[User, Issued]:
        """A new user, and the code for their first login. ``also``: what else belongs into the transaction.

        Raises: Rejected, AlreadyExists.
        """
        check_name(name)
        async with self.database.write() as transaction:
            user = User(
                id=UserId(make_id("user", entropy=self.entropy(12))), name=name, role=role, created_at=transaction.now
            )
            await accounts.add_user(transaction, user)
            code = await self._issue(
                transaction, user, CredentialKind.CODE, "invitation", SCOPES_OF[role], INVITATION_S
            )
            if also is not None:
                await also(transaction, user, code)
        return user, code

    async def change(self, user_id: UserId, *, role: Role | None = None, disabled: bool | None = None) -> User:
        """What was open by their credentials ends where they are disabled. Raises: NotFound; Conflict: the last administrator."""
        async with self.database.write() as transaction:
            await transaction.lock(USERS)  # of the last two administrators one stays
            user = await accounts.get_user(transaction.connection, user_id)
            if role is not None:
                await accounts.change_user(transaction, user_id, role=role.value)
            if disabled is not None:
                await accounts.change_user(transaction, user_id, disabled_at=transaction.now if disabled else None)
            transaction.tell(CHANGED)
            if disabled:
                await accounts.remove_credentials(transaction, user_id)
            known = await accounts.all_users(transaction.connection)
            if not any(one.role is Role.ADMIN and one.disabled_at is None for one in known):
                raise Conflict(f"{user.name} is the only administrator left.", mend="Make somebody else one first.")
            return next(one for one in known if one.id == user_id)


def is_good(principal: Principal, now: float) -> bool:
    expires_at = principal.credential.expires_at
    return principal.user.disabled_at is None and (expires_at is None or now < expires_at)


def _nobody() -> Unauthenticated:
    return Unauthenticated("The credential is not valid: wrong, expired or revoked.", mend="Log in again: shadow login")
