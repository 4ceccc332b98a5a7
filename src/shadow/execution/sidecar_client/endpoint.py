"""Where a sidecar listens, or a server that speaks as one."""

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


@dataclass(frozen=True, slots=True)
class UrlEndpoint:
    """A server, reached as browsers do: by https, through proxies that stand before it."""

    url: str
    """Of what stands where a sidecar has ``/v1``, without a slash at its end: ``https://shadow.example/v1/workspaces/ws_…``."""


Endpoint = UnixEndpoint | TcpEndpoint | UrlEndpoint
