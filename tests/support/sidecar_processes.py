"""A holder with its sidecar as processes, and a client of them."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from shadow.core.workspaces import Isolation
from shadow.execution.holder.config import HolderConfig, holder_argv, sidecar_argv
from shadow.execution.sidecar_client.client import SidecarClient
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
from shadow.execution.sidecar_client.retries import Resilience
from tests.support.sidecars import TOKEN, client, listen


def holder_config(directory: Path, listener: socket.socket, *, path: str = "/usr/bin:/bin") -> HolderConfig:
    (directory / "root").mkdir(exist_ok=True)
    (directory / "state").mkdir(exist_ok=True)
    return HolderConfig(
        workspace_id="ws_test",
        root=str(directory / "root"),
        state_dir=str(directory / "state"),
        token=TOKEN,
        isolation=Isolation.NONE,
        lease_s=None,
        epoch=1,
        base_env={"PATH": path},
        listen_fd=listener.fileno(),
        sidecar_argv=sidecar_argv(),
    )


@asynccontextmanager
async def workspace(
    directory: Path, *, resilience: Resilience | None = None
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, SidecarClient]]:
    """A holder that keeps a sidecar, and a client of it."""
    (directory / "sidecar.sock").unlink(missing_ok=True)
    with listen(directory / "sidecar.sock") as listener:
        config = holder_config(directory, listener)
        process = await asyncio.create_subprocess_exec(
            *holder_argv(), stdin=asyncio.subprocess.PIPE, pass_fds=(listener.fileno(),), env={}
        )
        assert process.stdin is not None
        process.stdin.write(config.to_json())
        process.stdin.close()
        try:
            async with client(UnixEndpoint(directory / "sidecar.sock"), resilience=resilience) as executor:
                yield process, executor
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                await process.wait()


async def sidecar_pid(holder: asyncio.subprocess.Process, *, other_than: int = 0) -> int:
    """The holder's child that is a sidecar, once there is one."""
    async with asyncio.timeout(10):
        while True:
            for pid in map(int, Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()):
                with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                    if pid != other_than and b"shadow.sidecar.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return pid
            await asyncio.sleep(0.01)
