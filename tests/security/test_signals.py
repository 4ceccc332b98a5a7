"""Processes that signal all others, stop them, or leave zombies: their workspace stays listable and removable, calls end."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Ending, shell
from shadow.core.errors import ShadowError
from shadow.core.workspaces import WorkspaceSpec, WorkspaceState
from shadow.execution.interface import ToolExecutor
from shadow.execution.local.manager import LocalWorkspaceManager
from tests.support.holders import alive
from tests.support.local_workspaces import (
    eventually,
    holder_pid,
    leftovers,
    local_manager,
    processes_with,
    skip_without_sandbox,
)

pytestmark = pytest.mark.anyio

ENDS_WITHIN_S = 40.0
"""Of any call, in a workspace that does its best to keep it from ending."""

ALIKE = ("many stop all", "stops and kills")
"""To another one; 12 s each."""
LOOP = "import os, signal\nwhile True:\n    try: os.kill(-1, signal.{0})\n    except OSError: pass\n"
ATTACKS = {
    "kills all, once": (sys.executable, "-c", "import os; os.kill(-1, 9)"),
    "kills all, again and again": (sys.executable, "-c", LOOP.format("SIGKILL")),
    "stops all, once": (sys.executable, "-c", "import os; os.kill(-1, 19)"),
    "stops all, again and again": (sys.executable, "-c", LOOP.format("SIGSTOP")),
    "many stop all": (sys.executable, "-c", "import os; os.fork(); os.fork()\n" + LOOP.format("SIGSTOP")),
    "stops and kills": (sys.executable, "-c", "import os\nif os.fork():\n " + LOOP.format("SIGSTOP").replace("\n", "\n ")
                        + "\n" + LOOP.format("SIGKILL")),
    "asks all to end, again and again": (sys.executable, "-c", LOOP.format("SIGTERM")),
    "leaves zombies": (
        sys.executable, "-c", "import os, time\nfor _ in range(200):\n    if os.fork() == 0: os._exit(0)\ntime.sleep(1000)"
    ),
    "leaves stopped ones": shell("for i in {1..50}; do setsid sleep 1000 & kill -STOP $!; done; kill -STOP $$"),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    manager: LocalWorkspaceManager
    data_dir: Path


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    await skip_without_sandbox(tmp_path / "data")
    manager = local_manager(tmp_path / "data")
    yield Place(manager, tmp_path / "data")
    for left in await manager.list():
        await manager.destroy(left.id)


async def outcome(executor: ToolExecutor, *argv: str) -> Ending | ShadowError | None:
    """Of a command, which must come in time, whatever it is."""
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            return (await executor.run(CommandSpec(argv=argv, timeout_s=2.0))).ending
    except ShadowError as error:
        return error


@pytest.mark.parametrize(
    "attack",
    [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in ATTACKS],
)
async def test_the_workspace_answers_or_says_why_not_and_can_be_removed(attack: str, place: Place) -> None:
    status = await place.manager.create(WorkspaceSpec())
    async with place.manager.open(WorkspaceSpec()) as neighbour, await place.manager.attach(status.id) as executor:
        marker = f"attack-{os.urandom(6).hex()}"
        holder = holder_pid(place.data_dir, status.id)
        attacking = asyncio.create_task(outcome(executor, *ATTACKS[attack], marker))
        await asyncio.sleep(0.3)
        assert await outcome(executor, "true") is not None, "it ended, or it is said why not"
        assert alive(holder)
        assert {found.state for found in await place.manager.list()} == {WorkspaceState.READY}
        before = time.monotonic()
        await outcome(neighbour, "true")
        assert time.monotonic() - before < ENDS_WITHIN_S / 4, "the neighbour hardly notices"
        assert await attacking is not None
        await place.manager.destroy(status.id)
    await eventually(lambda: not any(map(alive, processes_with(marker))), "nothing of it is left")
    assert not alive(holder)
    assert leftovers(place.data_dir) == []


async def test_after_the_attack_the_workspace_works_again(place: Place) -> None:
    async with place.manager.open(WorkspaceSpec()) as executor:
        await executor.write_file("kept", b"kept")
        for attack in ATTACKS:
            await outcome(executor, *ATTACKS[attack])
        async with asyncio.timeout(ENDS_WITHIN_S):
            result = await executor.run(CommandSpec(argv=("cat", "kept")))
        assert result.stdout == b"kept"
