"""Users of a server and their credentials: each method is one call of its API."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from shadow.client.calling import Caller
from shadow.core.accounts import Credential, Role, Scope, User
from shadow.core.audit import AuditEntry
from shadow.core.errors import Broken
from shadow.core.quota import UserUsage
from shadow.wire.audit import AuditListMessage
from shadow.wire.message import outgoing, to_core
from shadow.wire.server import (
    ChangeUserMessage,
    CredentialListMessage,
    InvitedMessage,
    InviteMessage,
    IssuedMessage,
    LoginMessage,
    MeMessage,
    NewTokenMessage,
    UserListMessage,
    UserMessage,
)
from shadow.wire.usage import UsageListMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """A user, and a code that is good for one login until ``expires_at`` (seconds since 1970). It is told this once."""

    user: User
    code: str
    expires_at: float


class AccountsClient:
    """Every method raises what the server tells: Unauthenticated, Denied, NotFound, Rejected, Conflict; and Unavailable or
    OutcomeUnknown where it does not answer."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def log_in(self, code: str, *, name: str = "login") -> str:
        """Exchange a one-time code for a token, which is told this once. ``name``: for people, what it is for."""
        message = outgoing(LoginMessage, {"code": code, "kind": "token", "name": name})
        return _secret(await self._caller.change(IssuedMessage, "POST", "/v1/login", message))

    async def log_out(self) -> None:
        """End the token of this client."""
        await self._caller.tell("POST", "/v1/logout")

    async def me(self) -> User:
        return to_core((await self._caller.ask(MeMessage, "/v1/me")).user, User)

    async def create_token(
        self, name: str, *, scopes: Sequence[Scope], expires_in_s: float | None = None
    ) -> tuple[Credential, str]:
        """A token for a program, and its secret, which is told this once."""
        message = outgoing(NewTokenMessage, {"name": name, "scopes": tuple(scopes), "expires_in_s": expires_in_s})
        issued = await self._caller.create(IssuedMessage, "/v1/tokens", message)
        if (
            issued.secret is None
        ):  # the answer that had it was lost, and a repeat does not tell it: nobody has that token
            await self.revoke(issued.credential.id)
            issued = await self._caller.create(IssuedMessage, "/v1/tokens", message)
        return to_core(issued.credential, Credential), _secret(issued)

    async def credentials(self) -> Sequence[Credential]:
        """One's own tokens and sessions."""
        found = await self._caller.ask(CredentialListMessage, "/v1/tokens")
        return [to_core(one, Credential) for one in found.credentials]

    async def revoke(self, credential_id: str) -> None:
        """What is open by it ends too."""
        await self._caller.tell("DELETE", f"/v1/tokens/{quote(credential_id, safe='')}")

    async def usage(self, *, everybody: bool = False) -> Sequence[UserUsage]:
        """What one has spent, keeps and may; ``everybody``: of all users, for administrators."""
        found = await self._caller.ask(UsageListMessage, "/v1/usage", {"all": everybody})
        return [to_core(one, UserUsage) for one in found.users]

    async def audit(
        self, *, limit: int = 100, before: int | None = None, user_id: str | None = None, object_: str | None = None
    ) -> Sequence[AuditEntry]:
        """Who changed what, the newest first; for administrators. ``before``: only entries below this number. ``object_``: only
        of what begins with this, the id of a task for example."""
        query = {"limit": limit, "before": before, "user_id": user_id, "object": object_}
        return [one.entry() for one in (await self._caller.ask(AuditListMessage, "/v1/audit", query)).entries]

    async def users(self) -> Sequence[User]:
        return [to_core(user, User) for user in (await self._caller.ask(UserListMessage, "/v1/users")).users]

    async def invite(self, name: str, *, role: Role = Role.MEMBER) -> Invited:
        """A new user, and the code for their first login."""
        message = outgoing(InviteMessage, {"name": name, "role": role})
        invited = await self._caller.create(InvitedMessage, "/v1/users", message)
        if invited.code is None:  # the answer that had it was lost, and a repeat does not tell it
            return await self.code(invited.user.id)
        return _invited(invited)

    async def change(self, user_id: str, *, role: Role | None = None, disabled: bool | None = None) -> User:
        """Another role; or shut them out (nothing of theirs is deleted), or let them in again."""
        message = outgoing(ChangeUserMessage, {"role": role, "disabled": disabled})
        path = f"/v1/users/{quote(user_id, safe='')}"
        return to_core(await self._caller.change(UserMessage, "PATCH", path, message, repeatable=True), User)

    async def code(self, user_id: str) -> Invited:
        """A code for one login of a user who lost their token."""
        path = f"/v1/users/{quote(user_id, safe='')}/code"
        # One of which nobody heard does no harm: it ends by itself.
        return _invited(await self._caller.change(InvitedMessage, "POST", path, repeatable=True))


def _secret(issued: IssuedMessage) -> str:
    if issued.secret is None:
        raise Broken("The server made a token and did not tell it.")
    return issued.secret


def _invited(told: InvitedMessage) -> Invited:
    if told.code is None or told.expires_at is None:
        raise Broken("The server made a code and did not tell it.", mend="Ask for another: shadow user code")
    return Invited(user=to_core(told.user, User), code=told.code, expires_at=told.expires_at)
