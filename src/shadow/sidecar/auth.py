"""Who may ask: the holder of the workspace's one bearer token."""

import hmac

from starlette.types import Scope

from shadow.core.errors import Denied


class TokenCheck:
    def __init__(self, token: str) -> None:
        self._expected = b"Bearer " + token.encode()

    def check(self, scope: Scope) -> None:
        """Takes the same time for every wrong token. Raises: Denied."""
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                given = value
        if not hmac.compare_digest(given, self._expected):
            raise Denied("This workspace needs its bearer token.", mend="Send `Authorization: Bearer TOKEN`.")
