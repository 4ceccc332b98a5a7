"""Checks of the CPU meter of workspaces."""

from shadow.core.commands import CommandSpec, shell
from shadow.core.workspaces import CpuTime, WorkspaceStatus
from shadow.execution.interface import WorkspaceManager
from shadow.testing.contract import ContractViolation, eventually, expect, expect_equal
from shadow.testing.workspaces import LEASE_S, a_workspace

_BURNT_S = 0.3


async def _read(manager: WorkspaceManager, made: WorkspaceStatus) -> CpuTime:
    found = await manager.cpu_time(made.id)
    if found is None:
        raise ContractViolation("The meter of a workspace that runs says nothing.")
    return found


async def check_cpu_time_is_counted(manager: WorkspaceManager) -> None:
    """What a command burns is on the meter while it runs and after its end, also what has left its session and its parent."""
    async with a_workspace(manager) as made, await manager.attach(made.id) as executor:
        before = await _read(manager, made)
        burns = "while :; do :; done"
        for line in (burns, f"setsid bash -c '{burns}' & exit 0"):
            start = await _read(manager, made)
            command = await executor.start(CommandSpec(argv=shell(line)))

            async def burnt(start: CpuTime = start) -> bool:
                return (await _read(manager, made)).used_s >= start.used_s + _BURNT_S

            await eventually(burnt, what=f"what `{line}` burns is on the meter")
            await executor.kill(command.id)
            expect(await burnt(), f"What `{line}` had burnt went with it.")
        expect_equal((await _read(manager, made)).since, before.since, "when the meter began")


async def check_a_sleeping_workspace_takes_none(manager: WorkspaceManager) -> None:
    """While it hibernates there is nothing to read, and afterwards a new meter."""
    async with a_workspace(manager) as made:
        before = await _read(manager, made)
        await manager.hibernate(made.id, keep_s=LEASE_S)
        expect(await manager.cpu_time(made.id) is None, "A workspace without processes takes CPU time.")
        async with await manager.attach(made.id):
            after = await _read(manager, made)
        expect(after.since > before.since, "The meter of a workspace that woke is not a new one.")


NEEDS = {
    check_cpu_time_is_counted: ("cpu_time", "programs"),
    check_a_sleeping_workspace_takes_none: ("cpu_time", "hibernation"),
}
