"""Checks of how commands end: timeouts, signals, kills, and the processes that they leave."""

import signal

from shadow.core.commands import Command, Exited, Killed, Signalled, StdinMode, TimedOut, shell
from shadow.core.errors import Rejected
from shadow.testing.contract import eventually, expect, expect_equal, refused
from shadow.testing.site import Site, data_of

CHILD = "echo $BASHPID > pid; exec sleep 1000"


async def _descendants(site: Site, command: Command, wanted: int) -> Command:
    """The command once it has ``wanted`` processes."""

    async def probe() -> Command | None:
        standing = await site.executor.get_command(command.id)
        return standing if standing.descendants == wanted else None

    return await eventually(probe, what=f"the command has {wanted} processes", deadline_s=10.0)


async def check_a_timeout_ends_the_command(site: Site) -> None:
    """A command that runs longer than its time is TimedOut, and its output is kept."""
    result = await site.run(site.spec(*shell("echo begun; sleep 1000"), timeout_s=0.3))
    expect(isinstance(result.ending, TimedOut), f"The ending is {result.ending}.")
    expect_equal(result.stdout, b"begun\n", "the output")
    if isinstance(result.ending, TimedOut):
        expect(0.25 <= result.ending.after_s <= 10, f"It was ended after {result.ending.after_s} s.")


async def check_a_timeout_ends_what_ignores_it(site: Site) -> None:
    """A command that ignores every signal it can, and one that writes without end, are ended in time."""
    for line in ("trap '' TERM INT HUP QUIT; while :; do sleep 1000; done", "yes"):
        result = await site.run(site.spec(*shell(line), timeout_s=0.3), output_limit_bytes=1000)
        expect(isinstance(result.ending, TimedOut), f"The ending of {line!r} is {result.ending}.")


async def check_a_command_in_time_is_not_timed_out(site: Site) -> None:
    """A command that ends within its time has its own ending."""
    result = await site.run(site.spec(*shell("exit 4"), timeout_s=100.0))
    expect_equal(result.ending, Exited(code=4), "the ending")


async def check_a_timeout_takes_the_tree(site: Site) -> None:
    """A timeout ends children that left the session too."""
    spec = site.spec(*shell(f"(setsid bash -c '{CHILD}' &); sleep 1000"), timeout_s=1.0)
    command = await site.start(spec)
    pid = await site.pid_in("pid")
    expect(isinstance((await site.wait(command.id)).ending, TimedOut), "The command was not timed out.")
    await site.gone(pid)


async def _kill_takes(site: Site, line: str) -> None:
    """``line`` leaves a process that writes its pid; killing the command ends that too."""
    command = await site.start_bash(f"{line}\nread -r")
    pid = await site.pid_in("pid")
    await eventually(lambda: site.runs(pid), what="the child runs")
    killed = await site.executor.kill(command.id)
    expect_equal((killed.survivors, killed.descendants), ((), 0), "who survived the kill")
    expect(not await site.runs(pid), f"The process {pid} runs on after kill has returned.")
    expect_equal((await site.wait(command.id)).ending, Killed(), "the ending")


async def check_kill_ends_the_command(site: Site) -> None:
    """A killed command is Killed, and its output is kept."""
    command = await site.start_bash("echo begun; read", until=b"begun")
    await site.executor.kill(command.id)
    expect_equal((await site.wait(command.id)).ending, Killed(), "the ending")
    expect_equal(data_of(await site.output(command.id)), b"begun\n", "the output")


async def check_kill_takes_children(site: Site) -> None:
    """Killing a command ends its children in the background."""
    await _kill_takes(site, f"bash -c '{CHILD}' &")


async def check_kill_takes_setsid_children(site: Site) -> None:
    """Killing a command ends a child with a session of its own."""
    await _kill_takes(site, f"setsid bash -c '{CHILD}' &")


async def check_kill_takes_nohup_children(site: Site) -> None:
    """Killing a command ends a child that ignores hangups and has closed its output."""
    await _kill_takes(site, f"nohup bash -c '{CHILD}' > /dev/null 2>&1 < /dev/null &")


async def check_kill_takes_double_forks(site: Site) -> None:
    """Killing a command ends a daemon: forked twice, in its own session, its parents gone."""
    await _kill_takes(site, f"(setsid bash -c '({CHILD}) > /dev/null 2>&1 < /dev/null &' &)")


async def check_kill_takes_stopped_children(site: Site) -> None:
    """Killing a command ends processes that are stopped."""
    await _kill_takes(site, f"bash -c '{CHILD}' & until [ -s pid ]; do sleep 0.02; done; kill -STOP $(<pid)")


async def check_kill_takes_what_ignores_signals(site: Site) -> None:
    """Killing a command ends children that ignore SIGTERM, and those that they fork."""
    await _kill_takes(site, f"bash -c 'trap \"\" TERM HUP INT; (sleep 1000 &); {CHILD}' &")


async def check_kill_is_not_outrun_by_forks(site: Site) -> None:
    """Killing a command ends a tree that goes on forking while it is killed."""
    line = "setsid bash -c 'for i in {1..1000}; do (sleep 1000 & exec sleep 0.01); done' & echo ready; read"
    command = await site.start_bash(line, until=b"ready")
    await site.executor.kill(command.id)
    await _descendants(site, command, 0)


async def check_kill_lets_a_command_comply(site: Site) -> None:
    """Within ``grace_s`` a command may do its last things; it is Killed all the same, as soon as it has ended."""
    command = await site.start_bash("trap 'echo last; exit 0' TERM; sleep 1000 & echo ready; wait", until=b"ready")
    await site.executor.kill(command.id, grace_s=60.0)
    expect_equal((await site.wait(command.id)).ending, Killed(), "the ending")
    expect_equal(data_of(await site.output(command.id)), b"ready\nlast\n", "the output")


async def check_grace_runs_out(site: Site) -> None:
    """A command that does not comply is ended when its grace has run out."""
    command = await site.start_bash("trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done", until=b"ready")
    await site.executor.kill(command.id, grace_s=0.2)
    expect_equal((await site.wait(command.id)).ending, Killed(), "the ending")
    expect(b"no\n" in data_of(await site.output(command.id)), "The command was not asked before it was ended.")


async def check_kill_may_be_repeated(site: Site) -> None:
    """Killing a command again, or one that has ended, changes nothing."""
    command = await site.start_bash("read")
    await site.executor.kill(command.id)
    again = await site.executor.kill(command.id)
    expect_equal(again.ending, Killed(), "the ending")
    ended = (await site.run(site.spec(*shell("exit 3")))).command
    expect_equal((await site.executor.kill(ended.id)).ending, Exited(code=3), "the ending of one that had ended")


async def check_kill_leaves_others_alone(site: Site) -> None:
    """Killing a command ends no other command."""
    first = await site.start_bash("read; exit 1")
    second = await site.start_bash("read; exit 2")
    await site.executor.kill(first.id)
    await site.executor.write_stdin(second.id, b"\n")
    expect_equal((await site.wait(second.id)).ending, Exited(code=2), "the ending of the other")


async def check_background_children_live_on(site: Site) -> None:
    """A command ends when its child exits; what it left runs on, is counted, and still writes to the log."""
    line = "(until [ -e go ]; do sleep 0.02; done; echo late) & echo early; exit 3"
    command = await site.start(site.spec(*shell(line)))
    ended = await site.wait(command.id)
    expect_equal(ended.ending, Exited(code=3), "the ending")
    expect_equal(data_of(await site.output(command.id)), b"early\n", "the output at the end")
    standing = await site.executor.get_command(command.id)
    expect(standing.descendants >= 1, "The process that was left is not counted.")
    expect(not standing.output_closed, "A process holds the output open, and it is said to be closed.")
    await site.executor.write_file(site.path("go"), b"")

    async def late() -> bool:
        return data_of(await site.output(command.id, after=6)) == b"late\n"

    await eventually(late, what="the late output can be read from the last offset")

    async def closed() -> bool:
        return (await site.executor.get_command(command.id)).output_closed

    await eventually(closed, what="the output is said to be closed")
    last = await _descendants(site, command, 0)
    expect_equal((last.output_end, last.ending), (11, Exited(code=3)), "offset and ending at last")


async def check_kill_ends_what_an_ended_command_left(site: Site) -> None:
    """Killing a command that has ended ends what it left, and its ending stays."""
    command = await site.start(site.spec(*shell(f"(setsid bash -c '{CHILD}' &) ; exit 0")))
    expect_equal((await site.wait(command.id)).ending, Exited(code=0), "the ending")
    pid = await site.pid_in("pid")
    killed = await site.executor.kill(command.id)
    expect_equal((killed.ending, killed.survivors), (Exited(code=0), ()), "ending and survivors")
    expect(not await site.runs(pid), f"The process {pid} runs on after kill has returned.")


async def check_descendants_are_counted(site: Site) -> None:
    """The living processes of a command's tree are counted, those in other sessions too."""
    command = await site.start_bash("sleep 1000 & setsid sleep 1000 & (sleep 1000 & exec sleep 1000) & read; exit")
    await _descendants(site, command, 5)
    await site.executor.kill(command.id)
    await _descendants(site, command, 0)


async def check_ended_processes_are_not_counted(site: Site) -> None:
    """Processes that have ended are not counted, also where nobody in the tree collects them."""
    command = await site.start_bash(
        "for i in 1 2 3; do (sleep 0 & exec true) & done; (exec bash -c 'true & exec sleep 1000') & read"
    )
    await _descendants(site, command, 2)


async def check_a_signal_reaches_the_command(site: Site) -> None:
    """A signal is delivered: handled by a trap, or ending the command as Signalled."""
    line = "trap 'echo caught' USR1; (trap '' USR1; echo ready; exec sleep 1000) & while :; do wait; done"
    command = await site.start_bash(line, until=b"ready")
    await site.executor.signal(command.id, signal.SIGUSR1)
    await site.read_until(command.id, b"caught")
    await site.executor.signal(command.id, signal.SIGTERM)
    expect_equal((await site.wait(command.id)).ending, Signalled(signal=signal.SIGTERM), "the ending")


async def check_a_signal_reaches_the_group(site: Site) -> None:
    """A signal goes to the command's process group: its children too, not those that left it."""
    line = f"setsid bash -c '{CHILD}' & sleep 1000 & echo $! > group; until [ -s pid ]; do sleep 0.02; done; echo ready; wait"
    command = await site.start_bash(line, until=b"ready")
    inside, outside = await site.pid_in("group"), await site.pid_in("pid")
    await site.executor.signal(command.id, signal.SIGTERM)
    expect_equal((await site.wait(command.id)).ending, Signalled(signal=signal.SIGTERM), "the ending")
    await site.gone(inside)
    expect(await site.runs(outside), "A signal to the group ended a process outside of it.")


async def check_a_signal_after_the_end_does_nothing(site: Site) -> None:
    """A signal to a command that has ended does nothing and is no error."""
    ended = (await site.run(site.spec(*shell("exit 3")))).command
    after = await site.executor.signal(ended.id, signal.SIGKILL)
    expect_equal(after.ending, Exited(code=3), "the ending")


async def check_impossible_signals_are_rejected(site: Site) -> None:
    """A number that is no signal is Rejected, and the command lives."""
    command = await site.start_bash("read; exit 5")
    for number in (-1, 65, 9999):
        with refused(Rejected, what=f"the signal {number}"):
            await site.executor.signal(command.id, number)
    await site.executor.write_stdin(command.id, b"\n")
    expect_equal((await site.wait(command.id)).ending, Exited(code=5), "the ending")


async def check_kill_while_following(site: Site) -> None:
    """Who follows a command that is killed gets its output up to there, and the end."""
    command = await site.start(site.spec(*shell("echo begun; read"), stdin=StdinMode.OPEN))
    await site.read_until(command.id, b"begun")
    await site.executor.kill(command.id)
    expect_equal(data_of(await site.output(command.id)), b"begun\n", "the output")


_OF_TREES = (
    check_a_timeout_takes_the_tree,
    check_kill_takes_setsid_children,
    check_kill_takes_nohup_children,
    check_kill_takes_double_forks,
    check_kill_is_not_outrun_by_forks,
    check_kill_ends_what_an_ended_command_left,
)
_OF_PROGRAMS = (
    check_a_timeout_ends_what_ignores_it,
    check_kill_takes_children,
    check_kill_takes_stopped_children,
    check_kill_takes_what_ignores_signals,
    check_kill_lets_a_command_comply,
    check_grace_runs_out,
    check_background_children_live_on,
    check_descendants_are_counted,
    check_ended_processes_are_not_counted,
    check_a_signal_reaches_the_command,
    check_a_signal_reaches_the_group,
)
NEEDS = dict.fromkeys(_OF_TREES, ("programs", "kills_trees")) | dict.fromkeys(_OF_PROGRAMS, ("programs",))
