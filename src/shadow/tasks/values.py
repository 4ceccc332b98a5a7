"""What somebody asks of a task, and what came of it: values, and as JSON. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shadow.agent.loop import RunLimits, RunStatus
from shadow.core.conversation import Usage
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.errors import Broken
from shadow.core.events import CheckFinished, WorkDelivered
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import TaskId
from shadow.core.workspaces import WorkspaceSpec


class Deliver(StrEnum):
    BRANCH = "branch"
    """A branch of the repository that it came from: by a fetch into a local one, by a push to a remote."""
    PATCH = "patch"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What holds for the runs of a task until somebody says otherwise."""

    limits: RunLimits = field(default_factory=RunLimits)
    deliver: Deliver = Deliver.BRANCH
    branch: str | None = None
    """The delivered branch's name; ``None``: the workspace's."""
    check: str | None = None
    """A shell line; ``None``: what the repository's ``.shadow/config.toml`` says, if anything."""
    keep: bool = True
    """Keep the workspace though the work was delivered: the next message goes on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectConfig:
    """``.shadow/config.toml`` of the repository, as the base commit has it. Its commands run inside workspaces only."""

    check: str | None = None
    setup: str | None = None
    services: str | None = None
    """Started in the background when the workspace is ready, and again when it is woken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """``egress``: rules and presets in words; ``None``: the setting."""

    branch: str | None = None
    """Of the repository, to begin from; ``None``: what its HEAD names."""
    depth: int | None = None
    egress: tuple[str, ...] | None = None
    options: RunOptions = field(default_factory=RunOptions)
    project: ProjectConfig = field(default_factory=ProjectConfig)
    """As it was before any agent: what judges the agent is not the agent's to change."""

    def spec(self, *, name: str, lease_s: float | None = None) -> WorkspaceSpec:
        """Raises: Rejected: a rule of ``egress`` cannot be understood."""
        policy = None if self.egress is None else EgressPolicy(rules=parse_rules(self.egress))
        return WorkspaceSpec(name=name, egress=policy, lease_s=lease_s)


_SETTINGS: TypeAdapter[TaskSettings] = TypeAdapter(TaskSettings)


def settings_to_json(settings: TaskSettings) -> dict[str, Any]:
    return _SETTINGS.dump_python(settings, mode="json")


def settings_from_json(values: Mapping[str, Any]) -> TaskSettings:
    """Raises: Broken: a newer version wrote them, or they are damaged."""
    try:
        return _SETTINGS.validate_python(dict(values))
    except ValidationError as error:
        raise Broken("The task's settings cannot be read.", mend="Use the Shadow that made the task.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run came out. ``status`` is done only if the check passed, where there is one."""

    task_id: TaskId
    run: int
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
    undelivered: str | None = None
    """Why nothing was delivered."""
