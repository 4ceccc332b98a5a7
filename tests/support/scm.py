"""``Repositories`` and workspaces to fill, with what a test wants to turn."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shadow.core.commands import CommandSpec, shell
from shadow.core.repositories import Checkout, parse_repository
from shadow.execution.host.executor import open_host
from shadow.execution.interface import ToolExecutor
from shadow.scm.access import Tokens
from shadow.scm.filling import Identity
from shadow.scm.repositories import Repositories

IDENTITY = Identity(name="Shadow", email="shadow@localhost")


def repositories(data_dir: Path, *, tokens: str = "", **settings: Any) -> Repositories:
    limits: dict[str, Any] = {"repository_limit_bytes": 1 << 30, "delivery_limit_bytes": 1 << 28}
    return Repositories(
        data_dir=data_dir, tokens=Tokens.parse(tokens), identity=IDENTITY, entropy=os.urandom, **{**limits, **settings}
    )


@asynccontextmanager
async def clone(
    repos: Repositories, address: str, directory: Path, **options: Any
) -> AsyncGenerator[tuple[ToolExecutor, Checkout]]:
    """A workspace without walls, filled from ``address``."""
    (directory / "files").mkdir(parents=True)
    (directory / "state").mkdir()
    async with repos.opened(parse_repository(address, local_user=True), **options) as source:
        env = {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8"}
        async with open_host(directory / "files", directory / "state", base_env=env) as executor:
            await repos.fill(executor, source)
            yield executor, source.checkout


async def sh(executor: ToolExecutor, line: str) -> str:
    result = await executor.run(CommandSpec(argv=shell(line), timeout_s=60))
    assert result.exit_code == 0, (line, result.stderr)
    return os.fsdecode(result.stdout)


async def commit_inside(executor: ToolExecutor, line: str, *, message: str = "work") -> str:
    """Run ``line`` and commit everything; the commit."""
    await sh(executor, f"{line}; git add --all && git commit --quiet -m {message!r}")
    return (await sh(executor, "git rev-parse HEAD")).strip()
