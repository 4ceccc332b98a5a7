"""What somebody asks of a task, and what came of it: values. No I/O, no clock."""

from dataclasses import dataclass, field
from enum import StrEnum

from shadow.agent.loop import RunLimits, RunStatus
from shadow.core.conversation import Usage
from shadow.core.events import CheckFinished, WorkDelivered
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import TaskId


class Deliver(StrEnum):
    BRANCH = "branch"
    """A branch of the repository that it came from: by a fetch into a local one, by a push to a remote."""
    PATCH = "patch"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What holds for one run."""

    limits: RunLimits = field(default_factory=RunLimits)
    deliver: Deliver = Deliver.BRANCH
    branch: str | None = None
    """The delivered branch's name; ``None``: the workspace's."""
    check: str | None = None
    """A shell line; ``None``: what the repository's ``.shadow/config.toml`` says, if anything."""
    keep: bool = False
    """Keep the workspace though the work was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run came out. ``status`` is done only if the check passed, where there is one."""

    task_id: TaskId
    status: RunStatus
    summary: str
    code: str | None
    usage: Usage
    cost_usd: str | None
    took_s: float
    workspace_id: WorkspaceId | None
    """``None``: it was removed."""
    check: CheckFinished | None = None
    delivered: WorkDelivered | None = None
    patch: bytes | None = None
    undelivered: str | None = None
    """Why nothing was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectConfig:
    """``.shadow/config.toml`` of the repository, as the base commit has it. Its commands run inside workspaces only."""

    check: str | None = None
    setup: str | None = None
