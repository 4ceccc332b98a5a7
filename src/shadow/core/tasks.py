"""Tasks as values: one conversation with the agent about one repository. No I/O, no clock."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from shadow.core.ids import WorkspaceId
from shadow.core.repositories import Checkout

TaskId = NewType("TaskId", str)


class TaskState(StrEnum):
    STARTING = "starting"
    """Its workspace is being made."""
    RUNNING = "running"
    IDLE = "idle"
    """Waits for the next message."""
    FAILED = "failed"
    """Its workspace could not be made; nothing more can happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """``outcome`` and ``summary`` are those of its last run. Times are seconds since 1970."""

    id: TaskId
    title: str
    """The beginning of its first message."""
    state: TaskState
    model: str
    repository: str
    created_at: float
    updated_at: float
    checkout: Checkout | None = None
    workspace_id: WorkspaceId | None = None
    outcome: str | None = None
    summary: str | None = None
    runs: int = 0
    events: int = 0
    """How many its log has; the number of its last one."""


def title_of(instruction: str) -> str:
    line = instruction.strip().partition("\n")[0]
    return line if len(line) <= 100 else line[:99] + "…"
