"""The holder: the first process of a workspace. See docs/adr/0001.

It starts with a ``HolderConfig`` on stdin, spawns and reaps, owns pipes, byte logs and the listening socket, restarts the
sidecar, keeps the journal, and ends the workspace when its lease is over.
"""

import os
import sys
import time
from contextlib import suppress

from shadow.execution.holder.config import HolderConfig
from shadow.execution.holder.kernel import hide_from_neighbours
from shadow.execution.holder.sidecars import start_sidecar
from shadow.version import __version__

MAX_LOG_FILE_BYTES = 1024 * 1024


def _open_log(state_dir: str) -> None:
    """Our stdout and stderr from now on; one earlier file is kept."""
    path = os.path.join(state_dir, "holder.log")
    if os.path.exists(path) and os.path.getsize(path) > MAX_LOG_FILE_BYTES:
        os.replace(path, f"{path}.1")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.close(null)


def _close_all_but(kept: set[int]) -> None:
    """Whatever else the starter left open belongs to nobody here."""
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in kept:
            with suppress(OSError):  # the listing's own is closed by now
                os.close(fd)


def main() -> None:
    hide_from_neighbours()
    config = HolderConfig.from_json(sys.stdin.buffer.read())
    given = (config.listen_fd, config.lock_fd, config.control_fd, config.oom_fd, *config.cgroup_fds)
    kept = {fd for fd in given if fd is not None}
    for fd in kept:
        os.set_inheritable(fd, False)
    _close_all_but({0, 1, 2, *kept})
    os.makedirs(config.state_dir, mode=0o700, exist_ok=True)
    _open_log(config.state_dir)
    os.chdir("/")
    os.umask(0o022)
    sys.stderr.write(f"{time.time():.3f} holder {__version__} starts\n")
    sys.stderr.flush()
    sidecar = start_sidecar(config) if config.sidecar_argv is not None else None
    # The sidecar takes longer to start than all of this: what it does not wait for is loaded beside it.
    from shadow.execution.holder.holder import Holder

    Holder(config, sidecar=sidecar).run()
