"""Where a sidecar listens."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    path: Path
    """May be longer than a socket's address allows (108 bytes)."""


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    host: str
    port: int


Endpoint = UnixEndpoint | TcpEndpoint
