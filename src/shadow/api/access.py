"""Who asks, from where, and whether they may: everything that a request has to pass before its handler sees it."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import Scope as AsgiScope

from shadow.accounts.service import Accounts
from shadow.core.accounts import LOCAL_USER, CredentialKind, Principal, Role, Scope, UserId
from shadow.core.errors import Denied, Unauthenticated
from shadow.core.tasks import Task
from shadow.http.requests import query_pairs
from shadow.http.routes import ApiRoute, ApiSocket, Raw

PUBLIC = "public"
"""Access of routes that need no login."""
SIGNED_IN = "signed in"
"""Access of routes that any good credential opens."""

PRINCIPAL = "shadow.principal"
TASK = "shadow.task"
ACCESS = "shadow.access"
COOKIE = "shadow_session"
SECURE_COOKIE = "__Host-shadow_session"
MAX_SECRET_CHARS = 200
WRITING = frozenset({Scope.TASKS_WRITE, Scope.WORKSPACES_WRITE})
"""Access that changes the task which a request names, or its workspace."""
_OWN_SITE = frozenset({"same-origin", "none"})
"""What browsers say of requests of our own pages, and of what their user typed."""
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Under which addresses the server is reached. A browser that was led here under another name is refused."""

    allowed: frozenset[str]
    """``http://127.0.0.1:8765``, as browsers write them: see ``origin``."""
    secure: bool
    """Whether browsers reach it by https alone."""

    @property
    def cookie(self) -> str:
        return SECURE_COOKIE if self.secure else COOKIE

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(urlsplit(origin).netloc for origin in self.allowed)

    def check_host(self, scope: AsgiScope) -> None:
        """Raises: Denied: the name was made to point here by somebody else (DNS rebinding), or nobody told us of it."""
        given = _headers(scope, b"host")
        if len(given) != 1 or _without_default_port(given[0].lower()) not in self.hosts:
            raise Denied(
                "This server is not known under the name that the request gives it.",
                mend="Set SHADOW_SERVER_URL to the address that its users type.",
            )

    def check_origin(self, scope: AsgiScope) -> None:
        """Of requests that a browser authenticates by itself. Raises: Denied: another site made it.

        Another port of this host is another site, though not to SameSite.
        """
        given = _headers(scope, b"origin")
        reads = scope["type"] == "http" and scope["method"] == "GET"
        is_ours = len(given) == 1 and given[0] in self.allowed
        if reads and not given:  # browsers leave it out where a page reads from its own site
            is_ours = all(site in _OWN_SITE for site in _headers(scope, b"sec-fetch-site"))
        if not is_ours:
            raise Denied("This request comes from another site.", mend="Programs send a token instead of a cookie.")


def origin(url: str) -> str:
    """``url``, which has no path, as the header Origin has it: lower case, without the port that its scheme has anyway."""
    url = url.rstrip("/").lower()
    return url.removesuffix(_DEFAULT_PORTS[urlsplit(url).scheme])


async def principal_of(scope: AsgiScope, accounts: Accounts, origins: Origins) -> Principal | None:
    """``None``: no credential came along. Raises: Unauthenticated: a bad one did; Denied."""
    given = _headers(scope, b"authorization")
    if given:
        kind, _, token = given[0].partition(" ")
        if len(given) != 1 or kind.lower() != "bearer" or len(token) > MAX_SECRET_CHARS:
            raise Unauthenticated("Authorization has one form here.", mend="Send `Authorization: Bearer TOKEN`.")
        return await accounts.authenticate(token.strip(), CredentialKind.TOKEN)
    secret = _cookie(scope, origins.cookie)
    if secret is None:
        return None
    origins.check_origin(scope)
    return await accounts.authenticate(secret, CredentialKind.SESSION)


def needed(route: ApiRoute | ApiSocket, scope: AsgiScope) -> str:
    """Access of a route: what it says itself, or of one that a workspace has too, whether it changes anything."""
    about = route.about
    if about.access is not None:
        return about.access
    return Scope.WORKSPACES_WRITE if _changes_workspace(route, scope) else Scope.WORKSPACES_READ


def changes(route: ApiRoute | ApiSocket, scope: AsgiScope) -> bool:
    """Whether the request may change anything, and so belongs on record."""
    return _changes_workspace(route, scope) if route.about.access is None else route.method != "GET"


def _changes_workspace(route: ApiRoute | ApiSocket, scope: AsgiScope) -> bool:
    about = route.about
    types = isinstance(route, ApiSocket) and "writer" in dict(query_pairs(scope))
    return types or about.operation or isinstance(about.body, Raw) or route.method in ("PUT", "DELETE", "PATCH")


def check_access(who: Principal, access: str) -> None:
    """Raises: Denied."""
    if access != SIGNED_IN:
        who.check(Scope(access))


def principal(request: HTTPConnection) -> Principal:
    return request.scope[PRINCIPAL]


def task(request: HTTPConnection) -> Task:
    """The one that the request names, which its sender may see."""
    return request.scope[TASK]


def sees_only(who: Principal) -> UserId | None:
    """Whose tasks are there for them; ``None``: everybody's."""
    return None if who.is_admin else who.user.id


def is_local(who: Principal) -> bool:
    """Whether they have the rights of the server's own user on its host: its paths mean something to them."""
    return who.user.id == LOCAL_USER and who.user.role is Role.ADMIN


def _headers(scope: AsgiScope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _without_default_port(netloc: str) -> str:
    return re.sub(r":(?:80|443)$", "", netloc)


def _cookie(scope: AsgiScope, name: str) -> str | None:
    """Raises: Unauthenticated: there are several. Cookies of other ports of this host come along with ours, and nobody can
    tell which of two was set by whom."""
    pairs = (part.strip().partition("=") for header in _headers(scope, b"cookie") for part in header.split(";"))
    found = {value for key, _, value in pairs if key == name}
    if len(found) > 1:
        raise Unauthenticated(
            f"There are several cookies {name}.", mend="Delete the cookies of this host; log in again."
        )
    return found.pop()[:MAX_SECRET_CHARS] if found else None
