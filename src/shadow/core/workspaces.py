"""Workspaces as values: what to make, how one stands. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from shadow.core.commands import size_bytes
from shadow.core.egress import EgressPolicy
from shadow.core.errors import Rejected
from shadow.core.ids import WorkspaceId
from shadow.core.limits import Limits, check_limits
from shadow.core.repositories import Checkout

MAX_NAME_LENGTH = 200
MAX_ENV_BYTES = 512 * 1024
MAX_LEASE_S = 365 * 24 * 3600.0


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
    phase: str | None = None
    """Where its start or its end stands, in the words of what runs it (``pending``, ``pulling``, ``evicted``); for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """What a workspace's meter says, read from outside."""

    since: float
    """When the meter began at zero, seconds since 1970: later for each new one of the workspace."""
    used_s: float


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
    cpu_time: bool = False
    """What its processes take of CPU time is counted, where they cannot reach it."""
    forks: bool = False
    snapshots: bool = False
    programs: bool = True
    """Commands are real programs of a host: a shell, coreutils. Without it a few are simulated."""


def check_lease(lease_s: float) -> None:
    """Raises: Rejected."""
    if not 0 < lease_s <= MAX_LEASE_S:  # also for what is not a number
        raise Rejected(f"A lease must be longer than 0 seconds and at most {MAX_LEASE_S:.0f}, not {lease_s}.")


def check_workspace_spec(spec: WorkspaceSpec) -> None:
    """Raises: Rejected: with the first thing about ``spec`` that no workspace could have."""
    if spec.name is not None and (not spec.name.isprintable() or not 0 < len(spec.name) <= MAX_NAME_LENGTH):
        raise Rejected(f"A workspace's name must be 1 to {MAX_NAME_LENGTH} printable characters.")
    size = 0
    for name, value in spec.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise Rejected(f"{name[:80]!r} cannot be an environment variable: its name or its value is not allowed.")
        size += size_bytes(name) + size_bytes(value)
    if size > MAX_ENV_BYTES:
        raise Rejected(f"The environment is larger than {MAX_ENV_BYTES} bytes.", mend="Write it to a file instead.")
    check_limits(spec.limits)
