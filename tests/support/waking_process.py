"""Attach to a workspace, as a process that can be killed: ``python -m tests.support.waking_process DATA_DIR ISOLATION ID``."""

import asyncio
import sys
from pathlib import Path

from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import Isolation
from tests.support.local_workspaces import local_manager


async def main(data_dir: str, isolation: str, workspace_id: str) -> None:
    manager = local_manager(Path(data_dir), Isolation(isolation))
    await (await manager.attach(WorkspaceId(workspace_id))).aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
