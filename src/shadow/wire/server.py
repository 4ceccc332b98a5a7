"""The server itself, its users and their credentials, as messages of its API."""

from typing import Annotated, Literal

from pydantic import Field

from shadow.core.accounts import Credential, CredentialKind, Role, Scope, User
from shadow.wire.message import Message

MAX_SECRET_CHARS = 200


class HealthMessage(Message):
    status: Literal["live", "ready"]
    version: str


class UserMessage(Message, core=User):
    """Times are seconds since 1970."""

    id: str
    name: str
    role: Role
    created_at: float
    disabled_at: float | None = None


class UserListMessage(Message):
    users: tuple[UserMessage, ...]


class MeMessage(Message):
    user: UserMessage
    scopes: tuple[Scope, ...]
    """What the credential of this request is good for."""


class InviteMessage(Message):
    name: str
    role: Role = Role.MEMBER


class InvitedMessage(Message):
    user: UserMessage
    code: str | None = None
    """For their first login; it is told this once, and not in a repeat."""
    expires_at: float | None


class ChangeUserMessage(Message):
    role: Role | None = None
    disabled: bool | None = None
    """Nothing of theirs is deleted; their tokens and sessions end."""


class LoginMessage(Message):
    """Exchanges a one-time code for a token, or for the session of a browser."""

    code: str = Field(max_length=MAX_SECRET_CHARS)
    kind: Literal["token", "session"] = "token"
    """A session comes as a cookie."""
    name: str = "login"
    """For people: what it is for."""


class NewTokenMessage(Message):
    name: str
    scopes: tuple[Scope, ...] = Field(max_length=50)
    expires_in_s: Annotated[float, Field(gt=0)] | None = None


class CredentialMessage(Message, core=Credential):
    id: str
    user_id: str
    kind: CredentialKind
    name: str
    scopes: tuple[Scope, ...]
    created_at: float
    expires_at: float | None
    last_used_at: float | None = None


class IssuedMessage(Message):
    credential: CredentialMessage
    secret: str | None = None
    """It is told this once, and not in a repeat; of a session never."""


class CredentialListMessage(Message):
    credentials: tuple[CredentialMessage, ...]
