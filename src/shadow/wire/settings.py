"""Settings of the server, as messages of its API."""

from typing import Any, Literal

from shadow.core.limits import Limits
from shadow.wire.message import Message
from shadow.wire.usage import BudgetsMessage


class SettingMessage(Message):
    name: str
    """As the settings file has it."""
    variable: str
    about: str
    unit: str | None = None
    source: Literal["environment", "file", "default"]
    source_name: str | None = None
    """The variable, or the path of the file."""
    is_secret: bool
    is_set: bool
    """Whether there is a value."""
    value: Any = None
    """Of secrets always `null`."""
    default: Any = None


class SettingListMessage(Message):
    settings: tuple[SettingMessage, ...]


class WorkspaceLimitsMessage(Message, core=Limits):
    """Of all commands of a workspace together; `null`: as much as the host gives."""

    memory_bytes: int | None
    processes: int | None
    cpus: float | None
    open_files: int | None
    file_size_bytes: int | None
    workspace_bytes: int | None
    workspace_files: int | None
    command_time_s: float | None


class DefaultsMessage(Message):
    """What holds for tasks and users unless somebody said otherwise."""

    model: str | None
    egress: tuple[str, ...]
    """Hosts that workspaces may reach, and presets."""
    limits: WorkspaceLimitsMessage
    live_tasks: int | None
    """Tasks with a workspace that a user may have; `null`: any number."""
    budgets: BudgetsMessage
    hibernate_after_s: float | None
    """How long a task is idle before its processes are ended; `null`: without end, here and below."""
    archive_after_s: float | None
    """How long nothing happens with a task before its workspace is removed."""
    delete_after_s: float | None
    """How long an archived task is kept."""
