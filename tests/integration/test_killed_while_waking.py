"""A hibernated workspace whose starter is killed while it wakes: the next one to attach starts it anew, and nothing is lost."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from shadow.core.commands import shell
from shadow.core.ids import TerminalId, WorkspaceId
from shadow.core.terminals import TerminalOutput, TerminalSpec
from shadow.core.workspaces import Isolation, WorkspaceSpec, WorkspaceState
from shadow.execution.interface import ToolExecutor
from shadow.execution.local.directory import WorkspaceDirectory, Workspaces
from shadow.execution.local.manager import LocalWorkspaceManager
from shadow.execution.local.manifest import read_holder
from tests.support.local_workspaces import DEADLINE_S, local_manager, processes_with, skip_without_sandbox
from tests.support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
WAKES_WITHIN_S = 20.0
"""Much less than what anybody waits for a starter that may be alive."""
MOMENTS = ("it has begun", "the first process is on record", "at random")
KILLS = {"it has begun": 2, "the first process is on record": 2, "at random": 5}


class Sleeper:
    """A workspace with a file and a terminal that has shown something, asleep."""

    def __init__(self, manager: LocalWorkspaceManager, workspace_id: WorkspaceId, terminal_id: TerminalId) -> None:
        self.manager = manager
        self.id = workspace_id
        self.terminal_id = terminal_id

    async def check(self, executor: ToolExecutor) -> None:
        assert (await executor.read_file("file")).content == b"kept"
        async with executor.attach_terminal(self.terminal_id) as reader:
            shown = b"".join([event.data async for event in reader if isinstance(event, TerminalOutput)])
        assert b"shown" in shown


@pytest.fixture(params=[Isolation.SANDBOX, Isolation.NONE])
async def sleeper(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncGenerator[Sleeper]:
    if request.param is Isolation.SANDBOX:
        await skip_without_sandbox(tmp_path)
    manager = local_manager(tmp_path, request.param)
    made = await manager.create(WorkspaceSpec(lease_s=600))
    try:
        async with await manager.attach(made.id) as executor:
            await executor.write_file("file", b"kept")
            terminal = await executor.create_terminal(TerminalSpec(argv=shell("echo shown; read")))

            async def has_shown() -> bool:
                return (await executor.get_terminal(terminal.id)).output_end >= len(b"shown")

            await until(has_shown, within_s=DEADLINE_S)
        await manager.hibernate(made.id, keep_s=600)
        yield Sleeper(manager, made.id, terminal.id)
    finally:
        await manager.destroy(made.id)
    assert processes_with(made.id) == []


def moment_has_come(name: str, directory: WorkspaceDirectory, draw: random.Random) -> Callable[[], bool]:
    """Whether to kill now. Asked for before anybody begins: what is on record is of the last time."""
    before, at = read_holder(directory.fd), time.monotonic() + draw.uniform(0.3, 1.0)
    match name:
        case "it has begun":
            return lambda: not directory.manifest().ready
        case "the first process is on record":
            return lambda: read_holder(directory.fd) != before
        case _:
            return lambda: time.monotonic() > at


def wake_and_be_killed(
    data_dir: Path, sleeper: Sleeper, isolation: Isolation, moment: str, draw: random.Random
) -> None:
    with Workspaces(data_dir).open(sleeper.id) as directory:
        argv = [sys.executable, "-m", "tests.support.waking_process", str(data_dir), isolation.value, sleeper.id]
        has_come = moment_has_come(moment, directory, draw)
        with subprocess.Popen(argv) as process:
            try:
                end = time.monotonic() + DEADLINE_S
                while not has_come():
                    assert time.monotonic() < end
                    time.sleep(0.001)
            finally:
                process.kill()
        if moment != "at random":
            assert not directory.manifest().ready, "it woke before it was killed"


@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_next_one_starts_it_anew(tmp_path: Path, sleeper: Sleeper, moment: str) -> None:
    isolation = (await sleeper.manager.status(sleeper.id)).isolation
    draw = random.Random(moment)
    for _ in range(KILLS[moment]):
        await asyncio.to_thread(wake_and_be_killed, tmp_path, sleeper, isolation, moment, draw)
        began = time.monotonic()
        async with await local_manager(tmp_path, isolation).attach(sleeper.id) as executor:
            assert time.monotonic() - began < WAKES_WITHIN_S
            await sleeper.check(executor)
            assert (await sleeper.manager.status(sleeper.id)).state is WorkspaceState.READY
        await sleeper.manager.hibernate(sleeper.id, keep_s=600)


@pytest.mark.parametrize("moment", MOMENTS[:2])
async def test_it_can_be_put_to_sleep_again_at_once(tmp_path: Path, sleeper: Sleeper, moment: str) -> None:
    isolation = (await sleeper.manager.status(sleeper.id)).isolation
    await asyncio.to_thread(wake_and_be_killed, tmp_path, sleeper, isolation, moment, random.Random(moment))
    began = time.monotonic()
    await sleeper.manager.hibernate(sleeper.id, keep_s=600)
    assert time.monotonic() - began < WAKES_WITHIN_S
    assert (await sleeper.manager.status(sleeper.id)).state is WorkspaceState.STOPPED
    async with await sleeper.manager.attach(sleeper.id) as executor:
        await sleeper.check(executor)


async def test_several_attach_at_once_after_its_starter_was_killed(tmp_path: Path, sleeper: Sleeper) -> None:
    isolation = (await sleeper.manager.status(sleeper.id)).isolation
    await asyncio.to_thread(wake_and_be_killed, tmp_path, sleeper, isolation, MOMENTS[1], random.Random(1))

    async def look() -> None:
        async with await local_manager(tmp_path, isolation).attach(sleeper.id) as executor:
            await sleeper.check(executor)

    async with asyncio.timeout(2 * WAKES_WITHIN_S):
        await asyncio.gather(*(look() for _ in range(4)))
