"""Who may ask: the holder of the workspace's one bearer token."""

import hmac

from starlette.types import Scope

from shadow.core.errors import Unauthenticated


class TokenCheck:
    def __init__(self, token: str) -> None:
        self._expected = b"Bearer " + token.encode()

    def check(self, scope: Scope) -> None:
        """Takes the same time for every wrong token. Raises: Unauthenticated."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        # Of two, others on the way may have looked at the one and we at the other.
        if not hmac.compare_digest(given[0] if len(given) == 1 else b"", self._expected):
            raise Unauthenticated(
                "This workspace needs its bearer token.",
                mend="Send `Authorization: Bearer TOKEN`; a client of Shadow attaches to the workspace again.",
            )
