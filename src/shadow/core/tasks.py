"""Tasks as values, and which states follow which. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NewType

from shadow.core.accounts import ProjectId
from shadow.core.errors import Conflict
from shadow.core.ids import WorkspaceId
from shadow.core.repositories import Checkout

TaskId = NewType("TaskId", str)


class TaskState(StrEnum):
    STARTING = "starting"
    """Its workspace is being made."""
    RUNNING = "running"
    IDLE = "idle"
    """Waits for the next message."""
    HIBERNATED = "hibernated"
    """As idle, but nothing of its workspace runs: the next message wakes it."""
    FAILED = "failed"
    """Its workspace could not be made. It can be tried again."""
    ARCHIVED = "archived"
    """Only its log is left."""


class TaskStep(StrEnum):
    """What takes a task from one state to another."""

    BE_READY = "be_ready"
    FAIL = "fail"
    RESTART = "restart"
    BEGIN_RUN = "begin_run"
    END_RUN = "end_run"
    HIBERNATE = "hibernate"
    WAKE = "wake"
    """Somebody is about to look at its workspace; who begins a run needs no such step."""
    ARCHIVE = "archive"


_NEXT: Mapping[tuple[TaskState, TaskStep], TaskState] = {
    (TaskState.STARTING, TaskStep.BE_READY): TaskState.IDLE,
    (TaskState.STARTING, TaskStep.FAIL): TaskState.FAILED,
    (TaskState.STARTING, TaskStep.ARCHIVE): TaskState.ARCHIVED,
    (TaskState.FAILED, TaskStep.RESTART): TaskState.STARTING,
    (TaskState.FAILED, TaskStep.ARCHIVE): TaskState.ARCHIVED,
    (TaskState.IDLE, TaskStep.BEGIN_RUN): TaskState.RUNNING,
    (TaskState.IDLE, TaskStep.HIBERNATE): TaskState.HIBERNATED,
    (TaskState.IDLE, TaskStep.ARCHIVE): TaskState.ARCHIVED,
    (TaskState.HIBERNATED, TaskStep.WAKE): TaskState.IDLE,
    (TaskState.HIBERNATED, TaskStep.BEGIN_RUN): TaskState.RUNNING,
    (TaskState.HIBERNATED, TaskStep.ARCHIVE): TaskState.ARCHIVED,
    (TaskState.RUNNING, TaskStep.END_RUN): TaskState.IDLE,
}

LIVE_STATES = frozenset(TaskState) - {TaskState.ARCHIVED}
"""Of tasks that may have a workspace."""


def step(state: TaskState, taken: TaskStep) -> TaskState:
    """The state that follows. Raises: Conflict: none does."""
    following = _NEXT.get((state, taken))
    if following is None:
        what = taken.value.replace("_", " ")
        raise Conflict(f"The task is {state.value}: it cannot {what}.", details={"state": state.value})
    return following


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """``outcome`` and ``summary`` are those of its last run. Times are seconds since 1970."""

    id: TaskId
    owner: str = "local"
    project_id: ProjectId | None = None
    """The project that it belongs to; ``None``: it is its owner's alone."""
    title: str
    """The beginning of its first message."""
    state: TaskState
    model: str
    repository: str
    """Without credentials; absolute where it is a path."""
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """JSON: what was asked for its workspace and its runs, see ``tasks/values.py``."""
    created_at: float
    updated_at: float
    checkout: Checkout | None = None
    workspace_id: WorkspaceId | None = None
    host: str | None = None
    """Where its workspace is; ``None``: wherever a worker is."""
    outcome: str | None = None
    summary: str | None = None
    runs: int = 0
    events: int = 0
    """How many its log has; the number of its last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """What the user said while the agent was at work; it is taken when that run has ended."""

    id: str
    task_id: TaskId
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What rolls back together: the conversation as far as event ``seq``, and the workspace's files, branch and commit."""

    id: str
    task_id: TaskId
    seq: int
    run: int
    """The run that it was taken in, or before."""
    branch: str | None
    head: str | None
    """The commit of ``HEAD``; ``None``: there was none yet."""
    tree_commit: str
    """Has the work tree as it was, untracked files included."""
    created_at: float


def title_of(instruction: str) -> str:
    line = instruction.strip().partition("\n")[0]
    return line if len(line) <= 100 else line[:99] + "…"
