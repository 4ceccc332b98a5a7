"""What a holder is told when it starts: one JSON object on its stdin."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


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
        return HolderConfig(**values)


def source_root() -> Path:
    """The directory that holds the ``shadow`` package."""
    return Path(__file__).resolve().parents[3]


def holder_argv(python: str = sys.executable) -> tuple[str, ...]:
    """How to start a holder: isolated, without ``site``, since it needs the standard library and Shadow alone."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from shadow.execution.holder.main import main; main()"
    return (python, "-I", "-S", "-c", code, str(source_root()))


def sidecar_argv(python: str = sys.executable) -> tuple[str, ...]:
    """How a holder starts the sidecar."""
    return (python, "-I", "-m", "shadow.sidecar.main")
