"""Starts the sidecar and starts it again when it dies: commands, logs and the listening socket live on without it."""

import fcntl
import json
import os
import signal
import socket
from dataclasses import dataclass

from shadow.execution.holder.config import HolderConfig
from shadow.execution.holder.loop import Loop

LISTEN_FD = 3
HOLDER_FD = 4
_ABOVE_STDIO = 10
_ENV = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
"""Looking for plugins reads every installed package's metadata: memory, time, and code that nobody asked for."""
_QUICK_DEATHS_ALLOWED = 5
_QUICK_S = 2.0
_BACKOFF_S = 1.0


@dataclass(frozen=True, slots=True)
class Sidecar:
    pid: int
    connection: socket.socket
    """Our end of the socket to it."""


def start_sidecar(config: HolderConfig) -> Sidecar:
    """Raises: OSError."""
    assert config.sidecar_argv is not None
    assert config.listen_fd is not None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    stdin, writer = os.pipe2(os.O_CLOEXEC)
    # Out of the way of the numbers that the sidecar is to find them at.
    sources = [
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STDIO) for fd in (stdin, config.listen_fd, theirs.fileno())
    ]
    try:
        os.write(
            writer,
            json.dumps(
                {
                    "token": config.token,
                    "root": config.root,
                    "state_dir": config.state_dir,
                    "workspace_id": config.workspace_id,
                    "isolation": config.isolation,
                    "file_size_bytes": config.limits.file_size_bytes,
                    "listen_fd": LISTEN_FD,
                    "holder_fd": HOLDER_FD,
                }
            ).encode(),
        )
        pid = os.posix_spawn(
            config.sidecar_argv[0],
            config.sidecar_argv,
            {**_ENV, **config.sidecar_env},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, target)
                for source, target in zip(sources, (0, LISTEN_FD, HOLDER_FD), strict=True)
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=[signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in (stdin, writer, *sources):
            os.close(fd)
    return Sidecar(pid, ours)


class SidecarSupervisor:
    """Counts the deaths of sidecars, and says when the next one may start."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._started_at = 0.0
        self._quick_deaths = 0
        self.restarts = 0

    def started(self) -> None:
        self._started_at = self._loop.time()

    def died(self) -> float:
        """How long to wait before the next start, in seconds: none, unless it keeps dying young."""
        self.restarts += 1
        young = self._loop.time() - self._started_at < _QUICK_S
        self._quick_deaths = self._quick_deaths + 1 if young else 0
        return _BACKOFF_S if self._quick_deaths > _QUICK_DEATHS_ALLOWED else 0.0
