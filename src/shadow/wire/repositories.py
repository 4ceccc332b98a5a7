"""Repositories, as messages of the server's API."""

from typing import Annotated

from pydantic import Field

from shadow.core.repositories import Branches, UsedRepository
from shadow.wire.message import Message
from shadow.wire.values import OsText, QueryText

PAGE = 1000


class RepositoryMessage(Message, core=UsedRepository):
    repository: OsText
    """Its address, without credentials."""
    name: OsText
    """The last part of it."""
    tasks: int
    """How many there are, of those that one sees."""
    used_at: float


class RepositoryListMessage(Message):
    """The one that was used last first."""

    repositories: tuple[RepositoryMessage, ...]
    next: OsText | None = None
    """Give it as `before` for the next page; `null`: this was the last."""


class RepositoryListQuery(Message):
    limit: Annotated[int, Field(ge=1, le=PAGE)] = 100
    before: QueryText | None = None


class BranchesQueryMessage(Message):
    repository: str
    """As for a new task. A body, not a query: an address may hold a credential, and queries are written to logs."""


class BranchesMessage(Message, core=Branches):
    default: OsText | None
    branches: tuple[OsText, ...]
    """Sorted."""
    tags: tuple[OsText, ...]
    truncated: bool
