"""Routes of users, their tokens and their sessions: parse, one call, answer."""

from typing import Any

from starlette.requests import Request

from shadow.accounts.service import SESSION_S, Accounts, Issued
from shadow.api.access import PUBLIC, SIGNED_IN, Origins, principal
from shadow.api.acting import acting
from shadow.api.auditing import name_made, name_user
from shadow.api.creating import CREATED, HEADERS, Keep, created, once
from shadow.core.accounts import CredentialId, CredentialKind, Scope, User, UserId
from shadow.db.database import Transaction
from shadow.http.requests import read_message
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.wire.server import (
    ChangeUserMessage,
    CredentialListMessage,
    CredentialMessage,
    InvitedMessage,
    InviteMessage,
    IssuedMessage,
    LoginMessage,
    MeMessage,
    NewTokenMessage,
    UserListMessage,
    UserMessage,
)

LOG_IN = "/v1/login"


class AccountRoutes:
    def __init__(self, accounts: Accounts, origins: Origins) -> None:
        self._accounts = accounts
        self._origins = origins

    def routes(self) -> ApiRoutes:
        admin: dict[str, Any] = {"access": Scope.ADMIN}
        own: dict[str, Any] = {"access": Scope.ACCOUNT}
        return [
            ApiRoute(
                "POST",
                LOG_IN,
                self.log_in,
                summary="Exchange a one-time code for a token or a session.",
                body=LoginMessage,
                answer=IssuedMessage,
                status=CREATED,
                access=PUBLIC,
            ),
            ApiRoute(
                "POST", "/v1/logout", self.log_out, summary="End the credential of this request.", access=SIGNED_IN
            ),
            ApiRoute("GET", "/v1/me", self.me, summary="Who asks.", answer=MeMessage, access=SIGNED_IN),
            ApiRoute(
                "POST",
                "/v1/tokens",
                self.issue_token,
                summary="Make a token for a program.",
                body=NewTokenMessage,
                answer=IssuedMessage,
                status=CREATED,
                headers=HEADERS,
                **own,
            ),
            ApiRoute(
                "GET",
                "/v1/tokens",
                self.list_credentials,
                summary="One's own tokens and sessions.",
                answer=CredentialListMessage,
                **own,
            ),
            ApiRoute(
                "DELETE",
                "/v1/tokens/{credential_id}",
                self.revoke,
                summary="End a token or a session; what is open by it ends too.",
                **own,
            ),
            ApiRoute("GET", "/v1/users", self.users, summary="All users.", answer=UserListMessage, **admin),
            ApiRoute(
                "POST",
                "/v1/users",
                self.invite,
                summary="Make a user, and a code for their first login.",
                body=InviteMessage,
                answer=InvitedMessage,
                status=CREATED,
                headers=HEADERS,
                **admin,
            ),
            ApiRoute(
                "PATCH",
                "/v1/users/{user_id}",
                self.change,
                summary="Give a user another role, or shut them out.",
                body=ChangeUserMessage,
                answer=UserMessage,
                **admin,
            ),
            ApiRoute(
                "POST",
                "/v1/users/{user_id}/code",
                self.code,
                summary="A code for one login of a user who lost their token.",
                answer=InvitedMessage,
                status=CREATED,
                **admin,
            ),
        ]

    async def log_in(self, request: Request) -> Answer:
        asked = await read_message(request, LoginMessage)
        issued = await self._accounts.log_in(asked.code, CredentialKind(asked.kind), name=asked.name)
        name_user(request, issued.credential.user_id, issued.credential.id)
        if issued.credential.kind is CredentialKind.TOKEN:
            return _issued(issued)
        self._origins.check_origin(request.scope)
        told = IssuedMessage(credential=CredentialMessage.of(issued.credential))
        return Answer(told.json_bytes(), status=201, headers={b"set-cookie": self._cookie(issued.secret)})

    def _cookie(self, secret: str, *, max_age_s: float = SESSION_S) -> bytes:
        secure = "; Secure" if self._origins.secure else ""
        name = self._origins.cookie
        return f"{name}={secret}; Path=/; Max-Age={max_age_s:.0f}; HttpOnly; SameSite=Strict{secure}".encode()

    async def log_out(self, request: Request) -> Answer:
        who = principal(request)
        await self._accounts.revoke(who.user.id, who.credential.id)
        return Answer(b"{}", headers={b"set-cookie": self._cookie("", max_age_s=0)})

    async def me(self, request: Request) -> Answer:
        who = principal(request)
        return message_answer(MeMessage(user=UserMessage.of(who.user), scopes=tuple(sorted(who.scopes))))

    async def issue_token(self, request: Request) -> Answer:
        asked = await read_message(request, NewTokenMessage)

        async def issue(keep: Keep) -> Answer:
            async def also(transaction: Transaction, issued: Issued) -> None:
                await keep(transaction, IssuedMessage(credential=CredentialMessage.of(issued.credential)), None)

            issued = await acting(self._accounts, request).issue_token(
                principal(request),
                name=asked.name,
                scopes=frozenset(asked.scopes),
                expires_in_s=asked.expires_in_s,
                also=also,
            )
            name_made(request, issued.credential.id)
            return _issued(issued)

        return await once(self._accounts.database, request, asked, issue)

    async def list_credentials(self, request: Request) -> Answer:
        found = await self._accounts.credentials(principal(request).user.id)
        shown = [one for one in found if one.kind is not CredentialKind.CODE]
        return message_answer(CredentialListMessage(credentials=tuple(CredentialMessage.of(one) for one in shown)))

    async def revoke(self, request: Request) -> Answer:
        credential_id = CredentialId(request.path_params["credential_id"])
        await acting(self._accounts, request).revoke(principal(request).user.id, credential_id)
        return Answer(b"{}")

    async def users(self, request: Request) -> Answer:
        found = await self._accounts.users()
        return message_answer(UserListMessage(users=tuple(UserMessage.of(user) for user in found)))

    async def invite(self, request: Request) -> Answer:
        asked = await read_message(request, InviteMessage)

        async def invite(keep: Keep) -> Answer:
            async def also(transaction: Transaction, user: User, code: Issued) -> None:
                await keep(transaction, _invited(user, code, secret=None), None)

            user, code = await acting(self._accounts, request).invite(asked.name, asked.role, also=also)
            name_made(request, user.id)
            return created(_invited(user, code, secret=code.secret))

        return await once(self._accounts.database, request, asked, invite)

    async def change(self, request: Request) -> Answer:
        asked = await read_message(request, ChangeUserMessage)
        user_id = UserId(request.path_params["user_id"])
        user = await acting(self._accounts, request).change(user_id, role=asked.role, disabled=asked.disabled)
        return message_answer(UserMessage.of(user))

    async def code(self, request: Request) -> Answer:
        user, code = await acting(self._accounts, request).issue_code(UserId(request.path_params["user_id"]))
        return created(_invited(user, code, secret=code.secret))


def _issued(issued: Issued) -> Answer:
    return created(IssuedMessage(credential=CredentialMessage.of(issued.credential), secret=issued.secret))


def _invited(user: User, code: Issued, *, secret: str | None) -> InvitedMessage:
    return InvitedMessage(user=UserMessage.of(user), code=secret, expires_at=code.credential.expires_at)
