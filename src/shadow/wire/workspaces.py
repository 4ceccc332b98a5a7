"""The workspace itself on the wire: how it is, how long it lives."""

from pydantic import Field

from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import Health, Isolation, WorkspaceState, WorkspaceStatus
from shadow.wire.message import Message
from shadow.wire.values import Items, Offset


class HealthMessage(Message, core=Health):
    version: str = Field(max_length=100)
    uptime_s: float
    epoch: int
    lease_remaining_s: float | None
    commands_running: int
    sidecar_restarts: int


class StatusMessage(Message):
    """More than is asked every few seconds."""

    version: str
    uptime_s: float
    """Of the workspace."""
    epoch: int
    lease_remaining_s: float | None
    """When the workspace ends itself; ``None``: never."""
    isolation: Isolation
    capabilities: Items[str]
    """The names of those that it claims."""
    commands_running: int
    terminals_running: int
    log_bytes: Offset
    """What the logs of commands and terminals hold."""
    sidecar_uptime_s: float
    sidecar_restarts: int
    requests_running: int
    streams_open: int


class WorkspaceMessage(Message):
    """One of a server's. Times are seconds since 1970."""

    id: str
    task_id: str
    """Of the task that works there."""
    name: str | None
    state: WorkspaceState
    isolation: Isolation
    created_at: float
    lease_expires_at: float | None
    """The server renews it while the task is there."""
    error: str | None = None

    def status(self) -> WorkspaceStatus:
        return WorkspaceStatus(
            id=WorkspaceId(self.id),
            name=self.name,
            state=self.state,
            isolation=self.isolation,
            created_at=self.created_at,
            lease_expires_at=self.lease_expires_at,
            size_bytes=None,
            error=self.error,
        )


class WorkspaceListMessage(Message):
    """Oldest first: those of the newest tasks that the caller sees."""

    workspaces: tuple[WorkspaceMessage, ...]


class LeaseMessage(Message):
    lease_s: float = Field(gt=0)
