"""The events of a task's log: everything that a reader is told, in order. No I/O, no clock.

A log is append-only; its events are numbered from 1 without gaps. It holds decisions, messages, starts, ends, offsets and
bounded excerpts; the bytes of commands stay in their byte logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shadow.core.conversation import AssistantMessage, ToolResult, Usage, UserMessage
from shadow.core.tasks import TaskState

MAX_EXCERPT_CHARS = 4000
MAX_DIFF_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCreated:
    instruction: str
    repository: str
    model: str
    kind: Literal["task_created"] = "task_created"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """The task is in another state."""

    state: TaskState
    kind: Literal["state_changed"] = "state_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A message in the queue."""

    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChanged:
    """What waits to be said to the agent, in order."""

    messages: tuple[Waiting, ...]
    kind: Literal["queue_changed"] = "queue_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A step of initialisation or of delivery, by its name."""

    name: str
    kind: Literal["step_started"] = "step_started"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    name: str
    took_ms: float
    detail: str = ""
    kind: Literal["step_finished"] = "step_finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    name: str
    took_ms: float
    code: str
    message: str
    mend: str | None = None
    kind: Literal["step_failed"] = "step_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """It is tried again by itself: a job of the task, or one of its steps."""

    what: str
    code: str
    message: str
    attempt: int
    """Which one failed, from 1."""
    attempts: int
    """How many there are at most."""
    wait_s: float
    """Until the next one."""
    kind: Literal["attempt_failed"] = "attempt_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed:
    """Its workspace could not be made ready."""

    code: str
    message: str
    mend: str | None = None
    kind: Literal["task_failed"] = "task_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    run: int
    message: UserMessage
    kind: Literal["run_started"] = "run_started"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAsked:
    step: int
    kind: Literal["model_asked"] = "model_asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAdded:
    """A piece of what the model is saying; what counts is the ``ModelAnswered`` that follows, or nothing if it was cut off."""

    text: str
    reasoning: bool = False
    kind: Literal["text_added"] = "text_added"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAdded:
    """A piece of the arguments of a tool call."""

    call_id: str
    name: str
    arguments: str
    kind: Literal["call_added"] = "call_added"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswered:
    message: AssistantMessage
    took_ms: float
    cost_usd: str | None = None
    """Of this answer, a decimal number; ``None``: the price is unknown."""
    kind: Literal["model_answered"] = "model_answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequestFailed:
    code: str
    message: str
    repeat_is_safe: bool
    retry_after_s: float | None = None
    took_ms: float = 0.0
    kind: Literal["model_request_failed"] = "model_request_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted:
    call_id: str
    name: str
    arguments: str
    kind: Literal["tool_started"] = "tool_started"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandStarted:
    """A tool started a command: its output is in the byte log of that id."""

    call_id: str
    command_id: str
    background: bool = False
    """Whether the call does not wait for its end."""
    kind: Literal["command_started"] = "command_started"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutput:
    """What a command of a tool wrote between two offsets of its byte log; ``text`` may be less than that."""

    call_id: str
    command_id: str
    start: int
    end: int
    text: str
    kind: Literal["command_output"] = "command_output"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFinished:
    result: ToolResult
    took_ms: float
    """Of the run's time, over all workers that were at it."""
    is_fault: bool = False
    """Whether the call itself was wrong: no such tool, or arguments that are none."""
    kind: Literal["tool_finished"] = "tool_finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceAway:
    """A tool could not reach the workspace. The model is told, and may call it again."""

    call_id: str
    code: Literal["unavailable", "outcome_unknown"]
    """``unavailable``: it was not done. ``outcome_unknown``: nobody can know."""
    message: str
    retry_in_s: float | None = None
    """Where calls fail at once by now: until the next one is let through."""
    kind: Literal["workspace_away"] = "workspace_away"


@dataclass(frozen=True, slots=True, kw_only=True)
class TodoItem:
    text: str
    status: Literal["pending", "in_progress", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TodoChanged:
    items: tuple[TodoItem, ...]
    kind: Literal["todo_changed"] = "todo_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCompacted:
    target_chars: int
    before_chars: int
    after_chars: int
    kind: Literal["conversation_compacted"] = "conversation_compacted"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSeen:
    """Something in the workspace used the network for the first time by a rule, or was refused."""

    allowed: bool
    host: str
    port: int
    rule: str
    kind: Literal["egress_seen"] = "egress_seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFinished:
    """The product's own check of the delivered commit."""

    command: str
    commit: str
    passed: bool
    ending: str
    output: str
    took_ms: float
    kind: Literal["check_finished"] = "check_finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """``None`` lines for a binary file."""

    path: str
    added: int | None
    removed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCommitted:
    commit: str
    message: str
    kind: Literal["work_committed"] = "work_committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkDelivered:
    how: Literal["branch", "push", "patch"]
    where: str
    commit: str
    commits: int
    changes: tuple[FileChange, ...]
    diff: str = ""
    """Against the base; empty where it is larger than ``MAX_DIFF_BYTES``."""
    artifact: str | None = None
    """The name of the task's artifact that has the patch."""
    kind: Literal["work_delivered"] = "work_delivered"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTaken:
    """The conversation up to here and the workspace's files as they are can be returned to together."""

    checkpoint_id: str
    run: int
    branch: str | None
    head: str | None
    changes: tuple[FileChange, ...] = ()
    """Of files since the checkpoint before, the first of them."""
    kind: Literal["checkpoint_taken"] = "checkpoint_taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed:
    """The run goes on; it cannot be returned to this point."""

    code: str
    message: str
    kind: Literal["checkpoint_failed"] = "checkpoint_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What came between event ``to_seq`` and this one no longer counts; it stays readable, and can be returned to."""

    to_seq: int
    checkpoint_id: str
    kind: Literal["rolled_back"] = "rolled_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    run: int
    status: str
    summary: str
    usage: Usage
    cost_usd: str | None
    took_ms: float
    code: str | None = None
    undelivered: str | None = None
    """Why nothing was handed out, though the agent was done."""
    kind: Literal["run_finished"] = "run_finished"


TaskEvent = (
    TaskCreated
    | StateChanged
    | QueueChanged
    | StepStarted
    | StepFinished
    | StepFailed
    | AttemptFailed
    | TaskFailed
    | RunStarted
    | ModelAsked
    | TextAdded
    | CallAdded
    | ModelAnswered
    | ModelRequestFailed
    | ToolStarted
    | CommandStarted
    | CommandOutput
    | ToolFinished
    | WorkspaceAway
    | TodoChanged
    | ConversationCompacted
    | EgressSeen
    | CheckFinished
    | WorkCommitted
    | WorkDelivered
    | CheckpointTaken
    | CheckpointFailed
    | RolledBack
    | RunFinished
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event in its place."""

    seq: int
    at: float
    """Seconds since 1970."""
    event: TaskEvent


def active(recorded: Sequence[Recorded]) -> list[Recorded]:
    """The events of a log that count: without what was rolled back. The log must be whole.

    Each event follows the one before it, but what comes after a ``RolledBack`` follows the event that it names: so an earlier
    branch comes back whole where somebody returns to a point in it.
    """
    found: list[Recorded] = []
    seq = len(recorded)
    while seq > 0:
        one = recorded[seq - 1]
        found.append(one)
        seq = one.event.to_seq if isinstance(one.event, RolledBack) else seq - 1
    return found[::-1]
