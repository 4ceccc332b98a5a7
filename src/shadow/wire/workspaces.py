"""The workspace itself on the wire: how it is, how long it lives."""

from pydantic import Field

from shadow.core.workspaces import Health
from shadow.wire.message import Message


class HealthMessage(Message, core=Health):
    version: str = Field(max_length=100)
    uptime_s: float
    epoch: int
    lease_remaining_s: float | None
    commands_running: int
    sidecar_restarts: int


class LeaseMessage(Message):
    lease_s: float = Field(gt=0)
