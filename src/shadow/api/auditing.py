"""Puts every operation that changes something on record: before anything is done, and before its caller hears how it ended.

The two entries are not written in the transaction of what is done, which may be several, or none of the database's: an operation
whose server died in between has its beginning on record and no end. What cannot be put on record is not begun.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from starlette.requests import HTTPConnection
from starlette.types import Scope

from shadow.api.access import changes
from shadow.core.accounts import Principal
from shadow.core.audit import MAX_TEXT_CHARS, AuditContent, AuditPhase
from shadow.core.errors import Broken, LimitExceeded, ShadowError
from shadow.db import audit
from shadow.db.database import Database
from shadow.http.admission import Busy
from shadow.http.requests import REQUEST_ID
from shadow.http.routes import ApiRoute, ApiSocket

OPERATION = "shadow.audited"


@dataclass(slots=True, kw_only=True)
class Audited:
    """An operation of a request that is being served."""

    content: AuditContent
    is_ended: bool = False


class Auditing:
    def __init__(self, database: Database, *, source_of: Callable[[Scope], str], log: logging.Logger) -> None:
        self._database = database
        self._source_of = source_of
        self._log = log

    @contextmanager
    def watching(self, route: ApiRoute | ApiSocket, scope: Scope, who: Principal | None) -> Generator[None]:
        """While the request is judged and done, if it may change anything: what is raised meanwhile is how it ends."""
        if not changes(route, scope):
            yield
            return
        named: Sequence[object] = list(scope["path_params"].values())
        operation = Audited(
            content=AuditContent(
                request=scope[REQUEST_ID],
                phase=AuditPhase.BEGUN.value,
                user_id=who.user.id if who is not None else None,
                credential_id=who.credential.id if who is not None else None,
                method=route.method,
                route=route.path,
                object="/".join(map(str, named))[:MAX_TEXT_CHARS],
                source=self._source_of(scope),
            )
        )
        scope[OPERATION] = operation
        try:
            yield
        except Exception as error:
            operation.content = replace(operation.content, code=_code(error))
            raise

    async def begin(self, scope: Scope) -> None:
        """Raises: what a failing database raises: then nothing may be done."""
        operation: Audited | None = scope.get(OPERATION)
        if operation is not None:
            async with self._database.write() as transaction:
                await audit.append(transaction, operation.content)

    async def end(self, scope: Scope, status: int | None) -> None:
        """``status``: ``None``: nobody was there to be told. The first call counts.

        What is done stays done where its end cannot be put on record: the log says so, and the record has the beginning.
        """
        operation: Audited | None = scope.get(OPERATION)
        if operation is None or operation.is_ended:
            return
        operation.is_ended = True
        content = replace(operation.content, phase=AuditPhase.ENDED.value, status=status)
        try:
            async with self._database.write() as transaction:
                await audit.append(transaction, content)
        except ShadowError as error:
            about = {"request": content.request, "route": content.route, "status": status, "error": error.code}
            self._log.error("audit.end_lost", extra=about)


def name_made(request: HTTPConnection, id_: str) -> None:
    """Say in the record what an operation has made."""
    operation: Audited | None = request.scope.get(OPERATION)
    if operation is not None:
        before = operation.content.object
        operation.content = replace(operation.content, object=(f"{before}/{id_}" if before else id_)[:MAX_TEXT_CHARS])


def name_user(request: HTTPConnection, user_id: str, credential_id: str) -> None:
    """Say in the record who has shown themselves by the operation."""
    operation: Audited | None = request.scope.get(OPERATION)
    if operation is not None:
        operation.content = replace(operation.content, user_id=user_id, credential_id=credential_id)


def _code(error: Exception) -> str:
    if isinstance(error, ShadowError):
        return error.code
    return LimitExceeded.code if isinstance(error, Busy) else Broken.code
