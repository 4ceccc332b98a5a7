"""What a holder is told when it starts: one JSON object on its stdin."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shadow.core.limits import Limits, limits_from


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderConfig:
    workspace_id: str
    root: str
    """The checkout, as commands see it; relative working directories start here."""
    state_dir: str
    """Journal, byte logs and the holder's own log; outside the checkout, as the holder sees it."""
    token: str
    """The bearer token that the sidecar demands."""
    isolation: str
    lease_s: float | None
    """Seconds from the holder's start until the workspace ends itself; ``None``: never (tests, pods)."""
    epoch: int
    base_env: Mapping[str, str]
    """The whole environment of commands, before their own additions."""
    listen_fd: int | None = None
    """A listening socket that was bound outside; handed on to each sidecar."""
    lock_fd: int | None = None
    """Kept open, and nothing more: the lock on it says that this workspace lives."""
    control_fd: int | None = None
    """A connected stream socket to a caller outside, which speaks the holder protocol without a sidecar."""
    limits: Limits = field(default_factory=Limits)
    own_processes: bool = False
    """Whether the kernel counts the processes of this workspace apart from others of the same user."""
    files_in_memory: tuple[str, ...] = ()
    """Where file systems in memory are mounted: what lies there counts as memory."""
    cgroup_fds: tuple[int, ...] = ()
    """``cgroup.procs`` of the control groups that commands run in, open for writing."""
    cpus: tuple[int, ...] = ()
    """Which CPUs commands keep to, where no control group limits them; none: all."""
    oom_fd: int | None = None
    """A file of such a group that counts what the kernel killed for want of memory."""
    sidecar_argv: tuple[str, ...] | None = None
    """``None``: no sidecar (in-process use)."""
    egress_port: int | None = None
    """Where programs find the egress proxy, on the loopback of the workspace; ``None``: nowhere."""
    egress_socket: str = ""
    """Where the proxy itself listens, as the inside sees it. It may be absent, and may come and go."""
    sidecar_env: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_json(data: bytes) -> "HolderConfig":
        values = json.loads(data)
        if values.get("sidecar_argv") is not None:
            values["sidecar_argv"] = tuple(values["sidecar_argv"])
        values["limits"] = limits_from(values["limits"])
        for name in ("files_in_memory", "cgroup_fds", "cpus"):
            values[name] = tuple(values[name])
        return HolderConfig(**values)


def source_root() -> Path:
    """The directory that holds the ``shadow`` package."""
    return Path(__file__).resolve().parents[3]


def holder_argv(python: str = sys.executable) -> tuple[str, ...]:
    """How to start a holder: isolated, without ``site``, since it needs the standard library and Shadow alone."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from shadow.execution.holder.main import main; main()"
    return (python, "-I", "-S", "-X", "no_debug_ranges", "-c", code, str(source_root()))


def sidecar_argv(python: str = sys.executable) -> tuple[str, ...]:
    """How a holder starts the sidecar: code without columns takes less memory."""
    return (python, "-I", "-X", "no_debug_ranges", "-m", "shadow.sidecar.main")
