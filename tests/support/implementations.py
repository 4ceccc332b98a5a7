"""The implementations that the contract is checked on, each as a way to open a workspace of its own."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from shadow.core.workspaces import Capabilities, Isolation, WorkspaceSpec
from shadow.execution.holder.config import HolderConfig, holder_argv, sidecar_argv
from shadow.execution.host.executor import open_host
from shadow.execution.interface import ToolExecutor
from shadow.execution.local.manager import LocalWorkspaceManager
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.sidecar_client.client import SidecarClient
from shadow.execution.sidecar_client.endpoint import Endpoint, TcpEndpoint, UnixEndpoint

END_LIMIT_S = 20.0

Opener = Callable[[Path], AbstractAsyncContextManager[ToolExecutor]]
OpenWorkspace = Callable[[], AbstractAsyncContextManager[ToolExecutor]]


@asynccontextmanager
async def host(directory: Path) -> AsyncGenerator[ToolExecutor, None]:
    """The host executor, in this process."""
    root = directory / "files"
    root.mkdir()
    async with open_host(root, directory / "state") as executor:
        yield executor


@asynccontextmanager
async def unix(directory: Path) -> AsyncGenerator[ToolExecutor, None]:
    """The client of a sidecar behind a unix socket."""
    path = directory / "sidecar.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        async with _served(directory, listener, UnixEndpoint(path)) as executor:
            yield executor


@asynccontextmanager
async def tcp(directory: Path) -> AsyncGenerator[ToolExecutor, None]:
    """The client of a sidecar behind a TCP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        async with _served(directory, listener, TcpEndpoint("127.0.0.1", listener.getsockname()[1])) as executor:
            yield executor


@asynccontextmanager
async def _served(directory: Path, listener: socket.socket, endpoint: Endpoint) -> AsyncGenerator[ToolExecutor, None]:
    """A holder with a sidecar, as an ordinary child of this process."""
    listener.listen(128)
    root, token = directory / "files", secrets.token_hex(16)
    root.mkdir()
    config = HolderConfig(
        workspace_id="ws_contract",
        root=str(root),
        state_dir=str(directory / "state"),
        token=token,
        isolation=Isolation.NONE,
        lease_s=600.0,
        epoch=1,
        base_env={"PATH": os.defpath, "HOME": str(directory), "LANG": "C.UTF-8"},
        listen_fd=listener.fileno(),
        sidecar_argv=sidecar_argv(),
    )
    process = await asyncio.create_subprocess_exec(
        *holder_argv(),
        stdin=asyncio.subprocess.PIPE,
        pass_fds=(listener.fileno(),),
        env={},
        start_new_session=True,
    )
    listener.close()
    try:
        assert process.stdin is not None
        process.stdin.write(config.to_json())
        process.stdin.close()
        capabilities = Capabilities(
            isolation=Isolation.NONE,
            survives_sidecar=True,
            network=True,
            git=True,
            terminals=True,
            trees=True,
            watching=True,
        )
        async with SidecarClient(endpoint, token=token, capabilities=capabilities, epoch=1) as executor:
            yield executor
    finally:
        process.terminate()
        async with asyncio.timeout(END_LIMIT_S):
            await process.wait()


def local_manager(directory: Path, isolation: Isolation) -> LocalWorkspaceManager:
    return LocalWorkspaceManager(
        data_dir=directory, isolation=isolation, default_lease_s=600.0, clock=time.time, entropy=secrets.token_bytes
    )


@asynccontextmanager
async def sandbox(directory: Path) -> AsyncGenerator[ToolExecutor, None]:
    """A workspace of the local sandbox."""
    async with local_manager(directory, Isolation.SANDBOX).open(WorkspaceSpec()) as executor:
        yield executor


@asynccontextmanager
async def mock(_directory: Path) -> AsyncGenerator[ToolExecutor, None]:
    """A workspace in memory, in real time."""
    async with MockWorkspaceManager().open(WorkspaceSpec()) as executor:
        yield executor


OPENERS: Mapping[str, Opener] = {"host": host, "unix": unix, "tcp": tcp, "sandbox": sandbox, "mock": mock}
