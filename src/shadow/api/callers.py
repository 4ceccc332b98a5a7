"""Who asks, from where, and whether they ask too often."""

import math
from collections.abc import Sequence
from typing import Protocol

from starlette.types import Scope

from shadow.accounts.service import Accounts
from shadow.api.access import PUBLIC, Origins, principal_of
from shadow.api.accounts import LOG_IN
from shadow.api.observing import knows_user
from shadow.api.rates import Rates
from shadow.api.sources import Network, neighbourhood, source_of
from shadow.core.accounts import Principal
from shadow.core.errors import Unauthenticated
from shadow.http.admission import Clock
from shadow.http.routes import ApiRoute, ApiSocket


class Known(Protocol):
    """What is known of callers beforehand: the server's ``Services`` have it."""

    accounts: Accounts
    origins: Origins
    proxies: Sequence[Network]
    """Whose word counts for where a request comes from."""
    user_requests_per_s: float
    logins_per_min: float


class Callers:
    def __init__(self, known: Known, *, clock: Clock) -> None:
        self._known = known
        rate = known.user_requests_per_s
        self._of_users = Rates("user_rate", rate_per_s=rate, burst=math.ceil(2 * rate), clock=clock)
        logins = known.logins_per_min
        self._logins = Rates("login_rate", rate_per_s=logins / 60, burst=math.ceil(logins), clock=clock)

    def source(self, scope: Scope) -> str:
        return source_of(scope, self._known.proxies)

    async def identify(self, route: ApiRoute | ApiSocket, scope: Scope, access: str) -> Principal | None:
        """``None``: the route is for everybody, whoever asks: an old cookie must not stand in the way of a new login.

        Raises: Unauthenticated, Denied; Busy: too often, or too many that show nobody.
        """
        if route.path == LOG_IN:
            self._logins.take(neighbourhood(self.source(scope)))
        if access == PUBLIC:
            return None
        try:
            who = await principal_of(scope, self._known.accounts, self._known.origins)
        except Unauthenticated:
            self._logins.take(neighbourhood(self.source(scope)))
            raise
        if who is None:
            raise Unauthenticated(
                "Nobody is logged in.", mend="Send `Authorization: Bearer TOKEN`; see `shadow login`."
            )
        self._of_users.take(who.user.id)
        knows_user(who)
        return who
