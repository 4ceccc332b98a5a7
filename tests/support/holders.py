"""A real holder as a child of the test, spoken to without a sidecar."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shadow.core.commands import CommandResult, CommandSpec
from shadow.core.ids import Operation, OperationId, make_id
from shadow.execution.holder.config import HolderConfig, holder_argv
from shadow.execution.host.commands import HostCommands
from shadow.execution.host.holder_client import HolderClient


@dataclass
class RunningHolder:
    process: asyncio.subprocess.Process
    client: HolderClient
    commands: HostCommands
    state: Path
    root: Path

    async def run(self, *argv: str, **fields: object) -> CommandResult:
        spec = CommandSpec(argv=argv, **fields)  # type: ignore[arg-type]
        return await self.commands.run(spec, operation(), wait_s=None, output_limit_bytes=1 << 24)

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


def operation(*, epoch: int = 1) -> Operation:
    return Operation(id=OperationId(make_id("op", entropy=os.urandom(16))), epoch=epoch)


@asynccontextmanager
async def holder(
    directory: Path, *, lease_s: float | None = None, epoch: int = 1, state: Path | None = None
) -> AsyncGenerator[RunningHolder, None]:
    root = directory / "root"
    root.mkdir(exist_ok=True, parents=True)
    state = state or directory / "state"
    ours, theirs = socket.socketpair()
    config = HolderConfig(
        workspace_id="test",
        root=str(root),
        state_dir=str(state),
        token="",
        isolation="none",
        lease_s=lease_s,
        epoch=epoch,
        base_env={"PATH": "/usr/bin:/bin", "HOME": str(root)},
        control_fd=theirs.fileno(),
    )
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *holder_argv(), stdin=asyncio.subprocess.PIPE, pass_fds=(theirs.fileno(),), env={}
        )
    assert process.stdin is not None
    process.stdin.write(config.to_json())
    process.stdin.close()
    client = await HolderClient.connect(ours)
    try:
        yield RunningHolder(process, client, HostCommands(client, state_dir=str(state)), state, root)
    finally:
        client.close()
        async with asyncio.timeout(20):
            await process.wait()


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int, *, within_s: float = 10.0) -> None:
    """Raises: TimeoutError where the process is still there."""
    async with asyncio.timeout(within_s):
        while alive(pid):
            await asyncio.sleep(0.01)
