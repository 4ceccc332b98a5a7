"""Routes of the record of operations: parse, one call, answer."""

from starlette.requests import Request

from shadow.core.accounts import Scope
from shadow.db import audit
from shadow.db.database import Database
from shadow.http.requests import read_query
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.wire.audit import AuditEntryMessage, AuditListMessage, AuditQuery


class AuditRoutes:
    def __init__(self, database: Database) -> None:
        self._database = database

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/audit",
                self.list,
                summary="Who changed what, the newest first.",
                query=AuditQuery,
                answer=AuditListMessage,
                access=Scope.ADMIN,
            )
        ]

    async def list(self, request: Request) -> Answer:
        query = read_query(request, AuditQuery)
        async with self._database.read() as connection:
            found = await audit.page(
                connection,
                before=query.before,
                limit=query.limit,
                user_id=query.user_id,
                object_=query.object,
                since=query.since,
                until=query.until,
            )
        entries = tuple(AuditEntryMessage.from_entry(entry) for entry in found)
        return message_answer(
            AuditListMessage(entries=entries, next=entries[-1].seq if len(entries) == query.limit else None)
        )
