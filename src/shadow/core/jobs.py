"""Jobs as values: durable work of named steps, done by one worker at a time. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType

JobId = NewType("JobId", str)


class JobState(StrEnum):
    WAITING = "waiting"
    """For a worker, for its time, or for another job of the same task."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN_STATES = frozenset({JobState.WAITING, JobState.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    kind: str
    """Names its handler."""
    payload: Mapping[str, Any]
    """JSON: what the handler needs."""
    task_id: str | None = None
    """Jobs of one task are done one at a time, in their order."""
    owner: str = "local"
    """Whose limits count."""
    priority: int = 0
    """Higher goes first."""
    delay_s: float = 0.0
    host: str | None = None
    """Only workers of this host may take it."""
    max_attempts: int = 5
    """How often it may begin, takeovers included, before it has failed; then once more, to make good for what it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Times are seconds since 1970 of the database."""

    id: JobId
    kind: str
    payload: Mapping[str, Any]
    task_id: str | None
    owner: str
    state: JobState
    priority: int
    run_at: float
    host: str | None
    attempts: int
    max_attempts: int
    epoch: int
    """Grows with each worker that takes it: an older one writes nothing any more."""
    worker: str | None
    lease_until: float | None
    stop_requested: bool
    """Somebody wants it to end; its handler decides how."""
    error: Mapping[str, Any] | None
    """Of its last failure: ``code``, ``message``, ``mend``, and ``final`` where it is not tried again."""
    result: Mapping[str, Any] | None
    created_at: float
    ended_at: float | None

    @property
    def is_failing(self) -> bool:
        """All that is left to do is to make good for what it did."""
        return self.error is not None and bool(self.error.get("final"))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """How many jobs may run at once; ``None``: as many as there are workers."""

    total: int | None = None
    per_owner: int | None = None
    per_kind: Mapping[str, int] | None = None
