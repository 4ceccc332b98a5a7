"""Checks of limits: reaching one is a typed ending of the command that weighs most, and nobody else feels it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shadow.core.commands import CommandResult, CommandSpec, Exited, LimitReached, TimedOut, shell
from shadow.core.errors import LimitExceeded, Rejected
from shadow.core.limits import LimitKind, Limits
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.testing.contract import DEADLINE_S, expect, expect_equal, refused

MIB = 1024**2
LEASE_S = 300.0


@asynccontextmanager
async def _limited(manager: WorkspaceManager, limits: Limits) -> AsyncGenerator[ToolExecutor, None]:
    """A workspace with a neighbour: a command that must still run, and commands that must still start, at the end."""
    async with manager.open(WorkspaceSpec(limits=limits, lease_s=LEASE_S)) as executor:
        neighbour = await executor.start(CommandSpec(argv=("sleep", "1000"), timeout_s=900.0))
        yield executor
        expect_equal((await executor.get_command(neighbour.id)).ending, None, "the ending of the neighbour")
        result = await executor.run(CommandSpec(argv=("true",)), wait_s=DEADLINE_S)
        expect_equal(result.ending, Exited(code=0), "the ending of a command afterwards")


async def _run(executor: ToolExecutor, line: str) -> CommandResult:
    return await executor.run(CommandSpec(argv=shell(line), timeout_s=DEADLINE_S), wait_s=DEADLINE_S + 5)


async def check_limits_are_told(manager: WorkspaceManager) -> None:
    """A workspace's status tells the limits that were asked for."""
    asked = Limits(memory_bytes=512 * MIB, processes=300, command_time_s=500.0)
    status = await manager.create(WorkspaceSpec(limits=asked, lease_s=LEASE_S))
    try:
        told = (await manager.status(status.id)).limits
        expect_equal(asked.over(told), told, "the limits")
    finally:
        await manager.destroy(status.id)


async def check_impossible_limits_are_rejected(manager: WorkspaceManager) -> None:
    """A limit that no command could live with is Rejected, and nothing is made."""
    for limits in (Limits(memory_bytes=0), Limits(processes=-1), Limits(cpus=float("nan")), Limits(workspace_files=1)):
        with refused(Rejected, what=f"a workspace with {limits}"):
            await manager.create(WorkspaceSpec(limits=limits, lease_s=LEASE_S))


async def check_too_much_memory_ends_the_command(manager: WorkspaceManager) -> None:
    """A command that takes more memory than the workspace may is ended for it."""
    async with _limited(manager, Limits(memory_bytes=96 * MIB)) as executor:
        result = await _run(executor, "head -c 2G /dev/zero | tail; sleep 1000")
        expect_equal(result.ending, LimitReached(limit=LimitKind.MEMORY), "the ending")


async def check_too_many_processes_end_the_command(manager: WorkspaceManager) -> None:
    """A command that forks more than the workspace may is ended for it, with all that it forked."""
    async with _limited(manager, Limits(processes=60)) as executor:
        result = await _run(executor, "for i in {1..100}; do sleep 1000 & done; wait")
        expect_equal(result.ending, LimitReached(limit=LimitKind.PROCESSES), "the ending")
        expect_equal((await executor.wait(result.command.id)).survivors, (), "who survived")


async def check_too_large_a_file_ends_the_command(manager: WorkspaceManager) -> None:
    """A command that writes a larger file than it may is ended for it; so large a file of the executor's is refused."""
    async with _limited(manager, Limits(file_size_bytes=MIB)) as executor:
        result = await _run(executor, "exec head -c 2M /dev/zero > large")
        expect_equal(result.ending, LimitReached(limit=LimitKind.FILE_SIZE), "the ending")
        expect((await executor.stat("large")).size_bytes <= MIB, "The file is larger than it may be.")
        with refused(LimitExceeded, what="a file larger than it may be"):
            await executor.write_file("other", b"\0" * (MIB + 1))


async def check_a_full_checkout_ends_who_fills_it(manager: WorkspaceManager) -> None:
    """A command that fills the checkout is ended; until something is deleted the executor's writes are refused."""
    async with _limited(manager, Limits(workspace_bytes=4 * MIB)) as executor:
        result = await _run(executor, "for i in {1..1000}; do head -c 1M /dev/urandom > f$i; sleep 0.05; done")
        expect_equal(result.ending, LimitReached(limit=LimitKind.WORKSPACE_BYTES), "the ending")
        with refused(LimitExceeded, what="a write into a full checkout"):
            await executor.write_file("more", b"more")
        result = await _run(executor, "rm f*")
        expect_equal(result.ending, Exited(code=0), "the ending of a command that makes room")
        await executor.write_file("more", b"more")


async def check_too_many_files_end_who_makes_them(manager: WorkspaceManager) -> None:
    """A command that makes more files than the checkout may hold is ended."""
    async with _limited(manager, Limits(workspace_files=100)) as executor:
        result = await _run(executor, "i=0; while :; do : > f$((i++)); sleep 0.001; done")
        expect_equal(result.ending, LimitReached(limit=LimitKind.WORKSPACE_FILES), "the ending")


async def check_commands_without_a_timeout_get_one(manager: WorkspaceManager) -> None:
    """The limit of time is the timeout of commands that have none, and of no other."""
    async with manager.open(WorkspaceSpec(limits=Limits(command_time_s=0.5), lease_s=LEASE_S)) as executor:
        result = await executor.run(CommandSpec(argv=("sleep", "1000")), wait_s=DEADLINE_S)
        expect_equal(result.ending, TimedOut(after_s=0.5), "the ending")
        result = await executor.run(CommandSpec(argv=("sleep", "1"), timeout_s=DEADLINE_S), wait_s=DEADLINE_S)
        expect_equal(result.ending, Exited(code=0), "the ending of one with a longer timeout")


async def check_open_files_are_limited(manager: WorkspaceManager) -> None:
    """A process hears that it has too many files open."""
    async with manager.open(WorkspaceSpec(limits=Limits(open_files=100), lease_s=LEASE_S)) as executor:
        expect_equal((await _run(executor, "ulimit -n; ulimit -Hn")).stdout.split(), [b"100", b"100"], "the limits")


_ENDINGS = (
    check_limits_are_told,
    check_too_much_memory_ends_the_command,
    check_too_many_processes_end_the_command,
    check_too_large_a_file_ends_the_command,
    check_a_full_checkout_ends_who_fills_it,
    check_too_many_files_end_who_makes_them,
    check_commands_without_a_timeout_get_one,
    check_open_files_are_limited,
)
NEEDS = dict.fromkeys(_ENDINGS, ("limits",))
