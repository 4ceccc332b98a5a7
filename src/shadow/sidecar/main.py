"""The sidecar's process: settings from stdin, the executor of this workspace, HTTP on the socket that was passed in."""

import asyncio
import ctypes
import logging
import resource
import socket
import sys

from shadow.core.errors import SettingsRefused
from shadow.execution.host.executor import HostExecutor
from shadow.http.server import serve
from shadow.sidecar.app import SidecarApp
from shadow.sidecar.log import configure_log
from shadow.sidecar.settings import SidecarSettings, read_settings

_PR_SET_DUMPABLE = 4

log = logging.getLogger("shadow.sidecar")


def make_undumpable() -> None:
    """Nobody else in the workspace may read this process's memory, descriptors or environment: it holds the token."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def limit_file_size(limit_bytes: int) -> None:
    """Writes beyond it fail with EFBIG: Python ignores the signal."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    limit = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def raise_open_files() -> None:
    """As many as the system lets us: a stream takes a connection and the file that it reads."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def run(settings: SidecarSettings) -> None:
    executor = await HostExecutor.connect(
        settings.holder_fd, root=settings.root, state_dir=settings.state_dir, isolation=settings.isolation
    )
    async with executor:
        app = SidecarApp(executor, token=settings.token.get_secret_value(), limits=settings.limits)
        log.info("sidecar.started", extra={"workspace_id": settings.workspace_id, "isolation": settings.isolation})
        await serve(app, socket.socket(fileno=settings.listen_fd), until=executor.holder_gone)
    log.info("sidecar.stopped", extra={"workspace_id": settings.workspace_id})


def main() -> None:
    make_undumpable()
    configure_log(sys.stderr)
    try:
        settings = read_settings(sys.stdin.buffer)
    except SettingsRefused as error:
        log.error("sidecar.settings_refused", extra={"reason": str(error)})  # noqa: TRY400 - the reason is the whole story
        sys.exit(2)
    raise_open_files()
    if settings.file_size_bytes is not None:
        limit_file_size(settings.file_size_bytes)
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
