"""Tasks, their queue and their checkpoints, as messages of the server's API."""

from dataclasses import fields
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from shadow.core.repositories import Checkout
from shadow.core.tasks import Checkpoint, QueuedMessage, Task, TaskState
from shadow.wire.message import Message
from shadow.wire.values import OsText

PAGE = 1000
MAX_TEXT_BYTES = 1024 * 1024


class LimitsMessage(Message):
    """What is left out is the server's default."""

    steps: int | None = Field(default=None, ge=1, le=100_000)
    """Requests to the model."""
    tokens: int | None = Field(default=None, ge=1)
    """Of all requests and answers."""
    cost_usd: Decimal | None = Field(default=None, gt=0, max_digits=20)
    time_s: float | None = Field(default=None, gt=0)


class RunOptionsMessage(Message):
    """What holds for the runs of a task until somebody says otherwise."""

    limits: LimitsMessage = LimitsMessage()
    deliver: Literal["branch", "patch", "none"] = "branch"
    branch: str | None = None
    """The delivered branch's name; else the workspace's."""
    check: str | None = None
    """A shell line that judges the result; else what the repository's `.shadow/config.toml` says."""
    keep: bool = True
    """Keep the workspace though the work was delivered."""


class NewTaskMessage(Message):
    repository: str
    """`https://…`, `ssh://…`, `USER@HOST:PATH`; a path of the server for its own user alone."""
    instruction: str
    model: str | None = None
    """`PROVIDER:NAME`; else the server's default."""
    branch: str | None = None
    """The branch or tag to start from."""
    depth: int | None = Field(default=None, ge=1)
    """Only the newest commits of each branch."""
    allow: tuple[str, ...] | None = None
    """Hosts that the workspace may reach, and presets; else the server's setting."""
    project_id: str | None = None
    """The project whose members share it; else it is its owner's alone."""
    options: RunOptionsMessage = RunOptionsMessage()


class TaskMessage(Message, core=Task):
    """Times are seconds since 1970."""

    id: str
    owner: str
    """The user who began it."""
    project_id: str | None = None
    title: str
    """The beginning of its first message."""
    state: TaskState
    model: str
    repository: OsText
    """Without credentials."""
    created_at: float
    updated_at: float
    workspace_id: str | None = None
    branch: str | None = None
    """The workspace's."""
    base_commit: str | None = None
    """What the work began from."""
    outcome: str | None = None
    """How its last run ended."""
    summary: str | None = None
    runs: int = 0
    events: int = 0
    """How many its log has; the number of its last one."""

    @classmethod
    def from_task(cls, task: Task) -> "TaskMessage":
        found = cls.of(task)
        if task.checkout is None:
            return found
        return found.model_copy(update={"branch": task.checkout.branch, "base_commit": task.checkout.base_commit})

    def task(self) -> Task:
        """As a client has it: without what only the server needs."""
        checkout = None
        if self.branch is not None and self.base_commit is not None:
            checkout = Checkout(
                repository=self.repository, base_branch=None, base_commit=self.base_commit, branch=self.branch
            )
        kept = self.__dict__.keys() & {field.name for field in fields(Task)}
        return Task(**{name: self.__dict__[name] for name in kept}, settings={}, checkout=checkout)


class TaskListMessage(Message):
    """Newest first."""

    tasks: tuple[TaskMessage, ...]
    next: str | None = None
    """Give it as `before` for the next page; `null`: this was the last."""


class TaskListQuery(Message):
    limit: Annotated[int, Field(ge=1, le=PAGE)] = 100
    state: TaskState | None = None
    project_id: str | None = Field(default=None, max_length=64, pattern="^[a-z0-9_-]+$")
    before: str | None = Field(default=None, max_length=200)


class SendMessage(Message):
    text: str
    model: str | None = None
    options: RunOptionsMessage | None = None
    stop: bool = False
    """Stop what goes on, and say this first."""


class QueuedMessageMessage(Message, core=QueuedMessage):
    id: str
    task_id: str
    text: str


class QueueMessage(Message):
    """What waits to be said, in order."""

    messages: tuple[QueuedMessageMessage, ...]


class EditMessage(Message):
    text: str


class OrderMessage(Message):
    ids: tuple[str, ...] = Field(max_length=1000)
    """All that wait, as they are to be said."""


class StoppedMessage(Message):
    stopped: bool
    """Whether anything went on."""


class CheckpointMessage(Message, core=Checkpoint):
    id: str
    task_id: str
    seq: int
    """The conversation goes as far as this event."""
    run: int
    branch: str | None
    head: str | None
    tree_commit: str
    created_at: float


class CheckpointListMessage(Message):
    """Oldest first."""

    checkpoints: tuple[CheckpointMessage, ...]


class RollBackMessage(Message):
    checkpoint: str | None = None
    run: int | None = Field(default=None, ge=1)
    """As it was before this run. One of the two is given."""
    message: str | None = None
    """What to say then, instead of what was said there."""


class EventMessage(Message):
    """One entry of a task's log."""

    seq: int
    at: float
    """Seconds since 1970."""
    event: dict[str, Any]
    """Its `kind` says what else it has: docs/api.md lists them."""


class EventListMessage(Message):
    events: tuple[EventMessage, ...]
    last: int
    """The number of the last event of the log; where it is above those here, ask again with `after`."""


class EventsQuery(Message):
    after: int = Field(default=0, ge=0, le=2**31 - 1)
    """Only events behind this number."""
    limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE
    """Of a page; streams have none."""
    until_rest: bool = False
    """Of streams: end when nothing goes on with the task any more; with its error, where what was asked for last has failed."""
