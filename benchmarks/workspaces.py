"""Workspaces to measure: a manager of its own below a temporary directory, removed at the end."""

import os
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution.interface import ToolExecutor
from shadow.execution.local.manager import LocalWorkspaceManager


@asynccontextmanager
async def manager(
    transport: Literal["unix", "tcp"] = "unix",
) -> AsyncGenerator[tuple[LocalWorkspaceManager, Path], None]:
    """A manager and its data directory."""
    with tempfile.TemporaryDirectory(prefix="shadow-bench-") as directory:
        ours = LocalWorkspaceManager(
            data_dir=Path(directory),
            isolation=Isolation.SANDBOX,
            default_lease_s=600.0,
            clock=time.time,
            entropy=os.urandom,
            transport=transport,
        )
        try:
            yield ours, Path(directory)
        finally:
            for status in await ours.list():
                await ours.destroy(status.id)


@asynccontextmanager
async def workspace(transport: Literal["unix", "tcp"] = "unix") -> AsyncGenerator[tuple[ToolExecutor, Path], None]:
    """An executor of a sandbox and the directory that the manager keeps of it."""
    async with manager(transport) as (ours, data_dir):
        status = await ours.create(WorkspaceSpec())
        async with await ours.attach(status.id) as executor:
            yield executor, data_dir / "workspaces" / status.id
