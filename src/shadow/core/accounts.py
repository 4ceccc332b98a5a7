"""Who asks, and what they may: users, their credentials, roles and scopes. No I/O, no clock."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from shadow.core.errors import Denied, Rejected

UserId = NewType("UserId", str)
CredentialId = NewType("CredentialId", str)
ProjectId = NewType("ProjectId", str)

LOCAL_USER = UserId("local")
"""Whoever uses Shadow on this host without a server; a server's first administrator is the same."""
MAX_NAME_CHARS = 64
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class Role(StrEnum):
    ADMIN = "admin"
    """Everything, also what belongs to others."""
    MEMBER = "member"
    VIEWER = "viewer"
    """Reads what is shared with them, and changes nothing but their own account."""


class Scope(StrEnum):
    """What a token is good for. A session of a browser has all that its user's role has."""

    TASKS_READ = "tasks:read"
    TASKS_WRITE = "tasks:write"
    WORKSPACES_READ = "workspaces:read"
    WORKSPACES_WRITE = "workspaces:write"
    ACCOUNT = "account"
    """One's own tokens, keys and sessions."""
    METRICS = "metrics"
    """What the server counts, for whoever watches over it."""
    ADMIN = "admin"
    """Users, and what the whole server does."""


_READING = frozenset({Scope.TASKS_READ, Scope.WORKSPACES_READ, Scope.ACCOUNT})
SCOPES_OF = {
    Role.VIEWER: _READING,
    Role.MEMBER: _READING | {Scope.TASKS_WRITE, Scope.WORKSPACES_WRITE},
    Role.ADMIN: frozenset(Scope),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Times are seconds since 1970."""

    id: UserId
    name: str
    role: Role
    created_at: float
    disabled_at: float | None = None


class ProjectRole(StrEnum):
    MEMBER = "member"
    """Begins and changes the project's tasks, and says who is in it."""
    VIEWER = "viewer"
    """Reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Owns tasks that its members share. ``created_at``: seconds since 1970."""

    id: ProjectId
    name: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    user_id: UserId
    name: str
    role: ProjectRole


class CredentialKind(StrEnum):
    TOKEN = "token"
    """Of a program, as a bearer token."""
    SESSION = "session"
    """Of a browser, in a cookie."""
    CODE = "code"
    """Exchanged once for one of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Its secret is known to whoever was given it, and to nobody else: only a hash is stored."""

    id: CredentialId
    user_id: UserId
    kind: CredentialKind
    name: str
    """For people: what it is for."""
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None
    last_used_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A user as one of their credentials shows them."""

    user: User
    credential: Credential

    @property
    def scopes(self) -> frozenset[Scope]:
        return self.credential.scopes & SCOPES_OF[self.user.role]

    @property
    def is_admin(self) -> bool:
        """An administrator, by a credential that is good for that too."""
        return Scope.ADMIN in self.scopes

    def check(self, scope: Scope) -> None:
        """Raises: Denied."""
        if scope not in SCOPES_OF[self.user.role]:
            raise Denied(f"As {self.user.role.value} you may not do this.", mend="Ask an administrator.")
        if scope not in self.credential.scopes:
            raise Denied(
                f"This token lacks the scope {scope.value}.",
                mend=f"Make one that has it: shadow token create --scope {scope.value}",
                details={"scope": scope.value},
            )

    def sees(self, owner: str) -> bool:
        """Whether what belongs to ``owner`` is there at all for them."""
        return owner == self.user.id or self.is_admin


def check_name(name: str) -> None:
    """Raises: Rejected."""
    if not (name.isprintable() and name.strip() == name and 0 < len(name) <= MAX_NAME_CHARS):
        raise Rejected(f"A name has 1 to {MAX_NAME_CHARS} printable characters, without spaces around them.")


def make_secret(kind: CredentialKind, *, entropy: bytes) -> str:
    """``shadow_``, the kind, and one character for each byte of ``entropy``: 32 give 160 bits."""
    return f"shadow_{kind.value}_{''.join(_ALPHABET[byte & 31] for byte in entropy)}"


def hash_of(secret: str) -> str:
    """Enough for secrets that nobody can guess: no salt, no stretching."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def parse_scopes(names: Collection[str]) -> frozenset[Scope]:
    """Raises: Rejected: one of them does not exist."""
    unknown = sorted(set(names) - set(Scope))
    if unknown:
        raise Rejected(f"There is no scope {unknown[0]!r}.", mend=f"Choose from {', '.join(Scope)}.")
    return frozenset(Scope(name) for name in names)
