"""Routes of repositories: those that one's tasks are of, and what a new task can start from."""

from starlette.requests import Request

from shadow.api.access import is_local, principal, sees_only
from shadow.core.accounts import Scope
from shadow.core.errors import Rejected, Unavailable
from shadow.core.repositories import parse_repository
from shadow.db import tasks as rows
from shadow.db.database import Database
from shadow.http.requests import read_message, read_query
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.scm.owners import Owner
from shadow.scm.repositories import Repositories
from shadow.wire.repositories import (
    BranchesMessage,
    BranchesQueryMessage,
    RepositoryListMessage,
    RepositoryListQuery,
    RepositoryMessage,
)

LOOKS_AT_ONCE = 8
"""Each is a git process, and a connection to somewhere else."""


class RepositoryRoutes:
    def __init__(self, database: Database, repositories: Repositories) -> None:
        self._database = database
        self._repositories = repositories
        self._looks = 0

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/repositories",
                self.list,
                summary="The repositories of the tasks that one sees, the one that was used last first.",
                query=RepositoryListQuery,
                answer=RepositoryListMessage,
                access=Scope.TASKS_READ,
            ),
            ApiRoute(
                "POST",
                "/v1/repositories/branches",
                self.branches,
                summary="The branches and tags of a repository, asked of where it is.",
                body=BranchesQueryMessage,
                answer=BranchesMessage,
                access=Scope.TASKS_WRITE,  # who cannot begin a task need not have the server look around
            ),
        ]

    async def list(self, request: Request) -> Answer:
        query = read_query(request, RepositoryListQuery)
        before = None if query.before is None else _place(query.before)
        async with self._database.read() as connection:
            found = await rows.repositories(
                connection, limit=query.limit, seen_by=sees_only(principal(request)), before=before
            )
        last = found[-1] if len(found) == query.limit else None
        return message_answer(
            RepositoryListMessage(
                repositories=tuple(RepositoryMessage.of(one) for one in found),
                next=None if last is None else f"{last.used_at!r}~{last.repository}",
            )
        )

    async def branches(self, request: Request) -> Answer:
        asked, who = await read_message(request, BranchesQueryMessage), principal(request)
        owner = Owner(id=who.user.id, is_host_user=is_local(who))
        repository = parse_repository(asked.repository, local_user=owner.is_host_user)
        if self._looks >= LOOKS_AT_ONCE:
            raise Unavailable("The server is looking at many repositories already.", mend="Try again in some seconds.")
        self._looks += 1
        try:
            found = await self._repositories.branches(repository, owner=owner)
        finally:
            self._looks -= 1
        return message_answer(BranchesMessage.of(found))


def _place(cursor: str) -> tuple[float, str]:
    """Raises: Rejected."""
    at, tilde, last = cursor.partition("~")
    try:
        if tilde:
            return float(at), last
    except ValueError:
        pass
    raise Rejected("`before` is not what `next` of a page was.")
