"""Runs of tasks and what is kept of them, as messages of the server's API."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from shadow.core.artifacts import Artifact
from shadow.core.conversation import Usage
from shadow.core.runs import Run
from shadow.wire.message import Message

PAGE = 1000


class TokensMessage(Message, core=Usage):
    """Of all requests of a run. Cached ones are part of `input_tokens`."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class RunMessage(Message, core=Run):
    seq: int
    run: int
    message: str
    """What was said."""
    started_at: float
    """Seconds since 1970."""
    counts: bool = True
    finished_at: float | None = None
    status: str | None = None
    """`done`, `failed`, `gave_up`, `interrupted` or `limit_reached`."""
    summary: str | None = None
    code: str | None = None
    """Of the error that it failed with; the name of the limit that it reached."""
    undelivered: str | None = None
    """Why nothing was handed out, though the agent was done."""
    usage: TokensMessage | None = None
    cost_usd: Decimal | None = None
    took_ms: float | None = None


class RunListMessage(Message):
    """In order."""

    runs: tuple[RunMessage, ...]
    next: int | None = None
    """Give it as `after` for the next page; `null`: this was the last."""


class RunsQuery(Message):
    after: int = Field(default=0, ge=0, le=2**31 - 1)
    """Only runs that began behind this event."""
    limit: Annotated[int, Field(ge=1, le=PAGE)] = 100


class ArtifactMessage(Message, core=Artifact):
    name: str
    size_bytes: int
    made_at: float
    version: str


class ArtifactListMessage(Message):
    """Sorted by name."""

    artifacts: tuple[ArtifactMessage, ...]
    next: str | None = None
    """Give it as `after` for the next page; `null`: this was the last."""


class ArtifactsQuery(Message):
    after: str = Field(default="", max_length=100)
    limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE
