"""Workspaces as values: what to make, how one stands. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from shadow.core.egress import EgressPolicy
from shadow.core.ids import WorkspaceId
from shadow.core.limits import Limits
from shadow.core.repositories import Checkout


class Mode(StrEnum):
    """``AGENT_MODE``: where workspaces live."""

    LOCAL = "local"
    REMOTE = "remote"
    MOCK = "mock"


class Isolation(StrEnum):
    """How a workspace is walled off from its host."""

    SANDBOX = "sandbox"
    CONTAINER = "container"
    MICROVM = "microvm"
    NONE = "none"


class WorkspaceState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"
    """Its processes are gone, its files are kept until the lease ends; ``attach`` starts it again."""
    BROKEN = "broken"
    """Its directory cannot be understood; ``error`` says why. Only ``destroy`` helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSpec:
    name: str | None = None
    """For people; need not be unique."""
    lease_s: float | None = None
    """How long the workspace lives unless somebody renews it; ``None`` takes the setting."""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Added to the base environment of every command. Not a place for secrets: everything inside can read it."""
    checkout: Checkout | None = None
    """What the workspace is about to be filled with: kept with it, for whoever delivers its work."""
    limits: Limits = field(default_factory=Limits)
    """What it says nothing of takes the setting."""
    egress: EgressPolicy | None = None
    """Which hosts it may reach; ``None`` takes the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceStatus:
    """Times are seconds since 1970."""

    id: WorkspaceId
    name: str | None
    state: WorkspaceState
    isolation: Isolation
    created_at: float
    lease_expires_at: float | None
    size_bytes: int | None
    """Bytes that the checkout takes on disk; ``None`` where it was not asked for."""
    error: str | None = None
    checkout: Checkout | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the inside of a workspace says of itself. Only as good as its word: code in there can lie."""

    version: str
    uptime_s: float
    epoch: int
    lease_remaining_s: float | None
    commands_running: int
    sidecar_restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an implementation claims. What it does not claim it refuses with ``Unsupported``."""

    isolation: Isolation
    survives_sidecar: bool
    """Commands live on while the sidecar restarts."""
    network: bool
    """Whether commands reach a network without asking anybody."""
    egress: bool = False
    """Whether a policy says which hosts commands reach, through a proxy that their environment names."""
    kills_trees: bool = True
    """Ending a command ends every process that it left, also those that left its session."""
    outlives_starter: bool = False
    """A workspace stays when the process that made it is gone."""
    limits: bool = False
    """Limits of a workspace are kept, and reaching one is a typed ending."""
    terminals: bool = False
    git: bool = False
    trees: bool = False
    watching: bool = False
    hibernation: bool = False
    forks: bool = False
    snapshots: bool = False
