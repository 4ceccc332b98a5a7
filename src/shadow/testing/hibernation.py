"""Checks of hibernation: no process is left, nothing that was written is lost, and attaching wakes it."""

from shadow.core.commands import CommandSpec, Exited, Lost, Signalled, StdinMode, shell
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.errors import NotFound, Rejected, ShadowError
from shadow.core.terminals import TerminalOutput, TerminalSpec
from shadow.core.workspaces import WorkspaceState
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.testing.contract import (
    DEADLINE_S,
    each_refused,
    eventually,
    expect,
    expect_equal,
    refused,
    together,
)
from shadow.testing.workspaces import LEASE_S, UNKNOWN, a_workspace


async def check_files_and_logs_are_kept(manager: WorkspaceManager) -> None:
    """A hibernated workspace is stopped; attaching finds its files and logs, and of what ran all that it wrote."""
    async with a_workspace(manager, name="sleeper") as made:
        async with await manager.attach(made.id) as executor:
            await executor.write_file("file", b"kept")
            ended = await executor.run(CommandSpec(argv=("echo", "done")), wait_s=DEADLINE_S)
            runs = await executor.start(CommandSpec(argv=shell("echo begun; read"), stdin=StdinMode.OPEN))

            async def begun() -> bool:
                return (await executor.get_command(runs.id)).output_end == len(b"begun\n")

            await eventually(begun, what="the command has written")
        await manager.hibernate(made.id, keep_s=LEASE_S * 3)
        status = await manager.status(made.id)
        expect_equal((status.state, status.name), (WorkspaceState.STOPPED, "sleeper"), "the state while it hibernates")
        expect(made.id not in await manager.list_orphans(), "What hibernates is called an orphan.")
        async with await manager.attach(made.id) as executor:
            expect_equal((await manager.status(made.id)).state, WorkspaceState.READY, "the state when it woke")
            expect_equal((await executor.read_file("file")).content, b"kept", "the file")
            expect_equal((await executor.get_command(ended.command.id)).ending, Exited(code=0), "the earlier ending")
            lost = await executor.get_command(runs.id)
            expect(isinstance(lost.ending, Lost | Signalled), f"The command that ran ended as {lost.ending}.")
            for command, output in ((ended.command.id, b"done\n"), (runs.id, b"begun\n")):
                pieces = [getattr(piece, "data", b"") async for piece in executor.read_output(command)]
                expect_equal(b"".join(pieces), output, "the output of before")
            again = await executor.run(CommandSpec(argv=("echo", "awake")), wait_s=DEADLINE_S)
            expect_equal(again.stdout, b"awake\n", "a new command")


async def check_the_history_of_terminals_is_kept(manager: WorkspaceManager) -> None:
    """A terminal that ran has ended, and what it showed can still be read."""
    async with a_workspace(manager) as made:
        async with await manager.attach(made.id) as executor:
            terminal = await executor.create_terminal(TerminalSpec(argv=shell("echo shown; read")))

            async def shown() -> bool:
                return (await executor.get_terminal(terminal.id)).output_end >= len(b"shown")

            await eventually(shown, what="the terminal has shown something")
        await manager.hibernate(made.id, keep_s=LEASE_S)
        async with await manager.attach(made.id) as executor:
            ending = (await executor.get_terminal(terminal.id)).ending
            expect(isinstance(ending, Lost | Signalled), f"The terminal that ran ended as {ending}.")
            async with executor.attach_terminal(terminal.id) as reader:
                data = b"".join([event.data async for event in reader if isinstance(event, TerminalOutput)])
            expect(b"shown" in data, f"The terminal's history is {data!r}.")


async def check_no_process_is_left(manager: WorkspaceManager) -> None:
    """While it hibernates nothing in it goes on, not even what has left its session, and no executor is answered."""
    async with a_workspace(manager) as made, await manager.attach(made.id) as executor:
        line = "setsid sh -c 'while :; do date +%s%N > beat; sleep 0.02; done' >/dev/null 2>&1 & wait"
        await executor.start(CommandSpec(argv=shell(line)))

        async def beats() -> bytes:
            try:
                return (await executor.read_file("beat")).content
            except NotFound:
                return b""

        await eventually(beats, what="the process beats")
        await manager.hibernate(made.id, keep_s=LEASE_S)
        with refused(ShadowError, what="a command while it hibernates"):
            await executor.start(CommandSpec(argv=("true",)))
        async with await manager.attach(made.id) as woken:
            last = (await woken.read_file("beat")).content
            await woken.run(CommandSpec(argv=("sleep", "0.2")), wait_s=DEADLINE_S)
            expect_equal((await woken.read_file("beat")).content, last, "the last beat")


async def check_the_lease_runs_anew(manager: WorkspaceManager) -> None:
    """Hibernating sets the lease from now, repeating it too; a workspace that nobody wakes ends with it and is reaped."""
    async with a_workspace(manager) as made:
        before = made.lease_expires_at or 0.0
        for times in (4, 2):
            await manager.hibernate(made.id, keep_s=LEASE_S * times)
            after = (await manager.status(made.id)).lease_expires_at or 0.0
            moved = after - before
            expect(LEASE_S * (times - 1) <= moved < LEASE_S * times, f"The end of the lease moved by {moved} s.")
        for keep_s in (0.0, -1.0, float("nan")):
            with refused(Rejected, what=f"hibernation for {keep_s} s"):
                await manager.hibernate(made.id, keep_s=keep_s)
        await manager.renew(made.id, lease_s=LEASE_S * 5)
        expect_equal((await manager.status(made.id)).state, WorkspaceState.STOPPED, "the state after a renewal")
        await manager.hibernate(made.id, keep_s=0.2)

        async def gone() -> bool:
            await manager.reap()
            try:
                await manager.status(made.id)
            except NotFound:
                return True
            return False

        await eventually(gone, what="the workspace is reaped")


async def check_what_is_gone_cannot_hibernate(manager: WorkspaceManager) -> None:
    """An unknown or destroyed workspace is NotFound; what hibernates can be destroyed."""
    async with a_workspace(manager) as made:
        await manager.hibernate(made.id, keep_s=LEASE_S)
        await manager.destroy(made.id)
        await each_refused(
            {
                "a destroyed one": manager.hibernate(made.id, keep_s=LEASE_S),
                "an unknown one": manager.hibernate(UNKNOWN, keep_s=LEASE_S),
                "waking a destroyed one": manager.attach(made.id),
            },
            NotFound,
            what="",
        )


async def check_waking_and_hibernating_at_once_end_well(manager: WorkspaceManager) -> None:
    """Who attaches while others hibernate the same workspace gets an executor; the last one to attach has one that works."""

    async def wake() -> None:
        async with await manager.attach(made.id):
            pass

    async with a_workspace(manager) as made:
        async with await manager.attach(made.id) as executor:
            await executor.write_file("file", b"kept")
        for _ in range(2):
            await together(
                work
                for _ in range(2)
                for work in (
                    manager.hibernate(made.id, keep_s=LEASE_S),
                    wake(),
                    manager.renew(made.id, lease_s=LEASE_S),
                )
            )
        async with await manager.attach(made.id) as executor:
            expect_equal((await executor.read_file("file")).content, b"kept", "the file")


async def check_destroying_wins_over_hibernating(manager: WorkspaceManager) -> None:
    """A workspace that is hibernated and destroyed at once is gone."""
    async with a_workspace(manager) as made:

        async def hibernate() -> None:
            try:
                await manager.hibernate(made.id, keep_s=LEASE_S)
            except NotFound:
                return

        await together((hibernate(), manager.destroy(made.id), hibernate()))
        with refused(NotFound, what="the status of what was destroyed"):
            await manager.status(made.id)


async def check_egress_sleeps_and_wakes(manager: WorkspaceManager) -> None:
    """The egress proxy is gone while it hibernates and back when it wakes, with the policy and the counters of before."""
    policy = EgressPolicy(rules=parse_rules(("allowed.example",)))
    async with a_workspace(manager, egress=policy) as made:

        async def ask() -> None:
            async with await manager.attach(made.id) as executor:
                await _refused_by_proxy(executor)

        await ask()
        await manager.hibernate(made.id, keep_s=LEASE_S)
        asleep = await manager.egress(made.id)
        expect_equal((asleep.running, asleep.policy), (False, policy), "egress while it hibernates")
        expect_equal(asleep.counters.refused, 1, "what was counted before")
        await ask()
        awake = await manager.egress(made.id)
        expect_equal((awake.running, awake.policy), (True, policy), "egress when it woke")
        expect_equal(awake.counters.refused, 2, "what was counted in all")


async def _refused_by_proxy(executor: ToolExecutor) -> None:
    line = (
        'p=${HTTPS_PROXY#*://}; exec 3<>"/dev/tcp/${p%%:*}/${p##*:}" || exit 9;'
        " printf 'CONNECT other.example:443 HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n' >&3; head -n 1 <&3"
    )
    result = await executor.run(CommandSpec(argv=shell(line), timeout_s=DEADLINE_S), wait_s=DEADLINE_S)
    expect(b" 403 " in result.stdout, f"The proxy said {result.stdout!r}, {result.stderr!r}.")


NEEDS = {function: ("hibernation",) for name, function in list(globals().items()) if name.startswith("check_")} | {
    check_the_history_of_terminals_is_kept: ("hibernation", "terminals"),
    check_no_process_is_left: ("hibernation", "programs"),
    check_egress_sleeps_and_wakes: ("hibernation", "egress"),
}
