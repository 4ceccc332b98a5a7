"""Where a sidecar listens, or a server that speaks as one."""

import ssl
from dataclasses import dataclass, field
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
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    """Whom it trusts; ``None``: the authorities of this host, or those of ``SSL_CERT_FILE``."""


Endpoint = UnixEndpoint | TcpEndpoint | UrlEndpoint
