"""The holder, faced with what kills it, its helpers and its disk."""

import asyncio
import hashlib
import os
import random
import signal
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Exited, Gap, Killed, Lost, Output, Overflow, Signalled, StdinMode
from shadow.core.errors import Conflict, LimitExceeded, OutcomeUnknown, Rejected, StaleEpoch, Unavailable
from shadow.core.ids import CommandId
from shadow.core.terminals import TerminalSpec
from shadow.execution.host.commands import HostCommands
from shadow.execution.host.terminals import HostTerminals
from tests.support.holders import RunningHolder, alive, gone, holder, operation

pytestmark = pytest.mark.anyio


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


async def read_all(commands: HostCommands, command_id: CommandId, *, after: int = 0) -> list[Output | Gap]:
    return [piece async for piece in commands.read_output(command_id, after=after, follow=True)]


async def pids_in(commands: HostCommands, command_id: CommandId, count: int) -> list[int]:
    """The pids that a command has printed, one a line, once there are ``count``."""
    text = b""
    async for piece in commands.read_output(command_id, after=0, follow=True):
        assert isinstance(piece, Output)
        text += piece.data
        if text.count(b"\n") >= count:
            break
    return [int(line) for line in text.split()]


STUBBORN = """
trap '' TERM HUP INT
echo $$
setsid bash -c 'trap "" TERM HUP; echo $$; exec sleep 1000' &
nohup bash -c 'trap "" TERM HUP; echo $$; exec sleep 1000' 2>/dev/null &
( setsid bash -c '(trap "" TERM HUP; echo $BASHPID; exec sleep 1000) &' & )
wait
sleep 1000
"""


async def test_a_killed_subreaper_takes_its_command_with_it_and_costs_nobody_else(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        bystander = await workspace.commands.start(CommandSpec(argv=("sleep", "1000")), operation())
        victim = await workspace.commands.start(CommandSpec(argv=("bash", "-c", STUBBORN)), operation())
        pids = await pids_in(workspace.commands, victim.id, 4)
        assert victim.pid is not None
        os.kill(parent_of(victim.pid), signal.SIGKILL)
        ended = await workspace.commands.wait(victim.id, timeout_s=10)
        assert ended.ending == Signalled(signal=9)
        for pid in pids:
            await gone(pid)
        assert (await workspace.commands.get(bystander.id)).ending is None
        assert (await workspace.run("echo", "on")).stdout == b"on\n"


async def test_a_stopped_subreaper_goes_on(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        command = await workspace.commands.start(CommandSpec(argv=("sleep", "0.2")), operation())
        assert command.pid is not None
        os.kill(parent_of(command.pid), signal.SIGSTOP)
        assert (await workspace.commands.wait(command.id, timeout_s=10)).ending == Exited(code=0)


async def test_a_killed_holder_leaves_no_process_and_its_commands_are_lost_with_their_output(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        command = await workspace.commands.start(CommandSpec(argv=("bash", "-c", STUBBORN)), first := operation())
        pids = await pids_in(workspace.commands, command.id, 4)
        done = await workspace.run("bash", "-c", "echo before; exit 7")
        waiting = asyncio.create_task(workspace.commands.wait(command.id, timeout_s=None))
        await asyncio.sleep(0)
        await workspace.kill()
        with pytest.raises(OutcomeUnknown):
            await waiting
        for pid in pids:
            await gone(pid)
        with pytest.raises(Unavailable):
            await workspace.run("true")
    async with holder(tmp_path) as again:
        lost = await again.commands.get(command.id)
        assert isinstance(lost.ending, Lost)
        assert [int(line) for line in b"".join(_bytes(await read_all(again.commands, command.id))).split()] == pids
        kept = await again.commands.get(done.command.id)
        assert kept.ending == Exited(code=7)
        assert _bytes(await read_all(again.commands, kept.id)) == [b"before\n"]
        # The repeat of a start that was done is answered with what became of it, and starts nothing.
        repeated = await again.commands.start(CommandSpec(argv=("bash", "-c", STUBBORN)), first)
        assert repeated.id == command.id
        assert isinstance(repeated.ending, Lost)


def _bytes(pieces: list[Output | Gap]) -> list[bytes]:
    assert all(isinstance(piece, Output) for piece in pieces)
    return [piece.data for piece in pieces if isinstance(piece, Output)]


async def test_a_workspace_that_nobody_renews_ends_itself_and_everything_in_it(tmp_path: Path) -> None:
    async with holder(tmp_path, lease_s=0.5) as workspace:
        command = await workspace.commands.start(CommandSpec(argv=("bash", "-c", STUBBORN)), operation())
        pids = await pids_in(workspace.commands, command.id, 4)
        await workspace.client.call("lease", {"lease_s": 1.0})
        async with asyncio.timeout(10):
            await workspace.process.wait()
        for pid in pids:
            await gone(pid)


async def test_an_older_epoch_is_refused_and_a_newer_one_adopted_for_good(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        spec = CommandSpec(argv=("true",))
        await workspace.commands.start(spec, operation(epoch=5))
        with pytest.raises(StaleEpoch) as refused:
            await workspace.commands.start(spec, operation(epoch=4))
        assert refused.value.details == {"epoch": 5}
        await workspace.kill()
    async with holder(tmp_path) as again:
        with pytest.raises(StaleEpoch):
            await again.commands.start(CommandSpec(argv=("true",)), operation(epoch=4))


async def test_a_repeated_start_runs_once_also_while_the_first_is_under_way(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        spec = CommandSpec(argv=("bash", "-c", "echo run >> log; sleep 0.2"))
        same = operation()
        results = await asyncio.gather(
            *(workspace.commands.run(spec, same, wait_s=None, output_limit_bytes=100) for _ in range(8))
        )
        assert len({result.command.id for result in results}) == 1
        assert (workspace.root / "log").read_text() == "run\n"
        with pytest.raises(Conflict):
            await workspace.client.call("signal", {"command": "x", "signal": 1, "operation": same.id, "epoch": 1})


async def test_killing_takes_the_stubborn_and_names_no_survivor(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        command = await workspace.commands.start(CommandSpec(argv=("bash", "-c", STUBBORN)), operation())
        pids = await pids_in(workspace.commands, command.id, 4)
        assert (await workspace.commands.get(command.id)).descendants >= 4
        killed = await workspace.commands.kill(command.id, operation(), grace_s=0.2)
        assert (killed.ending, killed.survivors, killed.descendants) == (Killed(), (), 0)
        assert not any(alive(pid) for pid in pids)


async def test_a_command_held_for_its_reader_loses_nothing(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        script = "for i in $(seq 40); do head -c 1000000 /dev/urandom; done | tee copy"
        spec = CommandSpec(argv=("bash", "-c", script), overflow=Overflow.WAIT, log_limit_bytes=8 << 20)
        command = await workspace.commands.start(spec, operation())
        digest = hashlib.sha256()
        async for piece in workspace.commands.read_output(command.id, after=0, follow=True):
            assert isinstance(piece, Output)
            digest.update(piece.data)
            await asyncio.sleep(0.002)  # a slow reader: the log is five times too small
        assert digest.digest() == hashlib.sha256((workspace.root / "copy").read_bytes()).digest()


async def test_a_command_without_a_reader_is_not_held(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        spec = CommandSpec(argv=("head", "-c", "3000000", "/dev/zero"), log_limit_bytes=65536)
        result = await workspace.commands.run(spec, operation(), wait_s=20, output_limit_bytes=1 << 24)
        assert result.ending == Exited(code=0)
        gap, *rest = result.output
        assert isinstance(gap, Gap)
        assert gap.start == 0
        assert gap.end == result.command.output_start
        assert sum(len(piece.data) for piece in rest if isinstance(piece, Output)) == 3_000_000 - gap.end


async def test_stdin_is_fed_whole_through_a_full_pipe_and_repeats_are_skipped(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        spec = CommandSpec(argv=("sha256sum",), stdin=StdinMode.OPEN)
        command = await workspace.commands.start(spec, operation())
        data = os.urandom(3_000_000)
        for start in range(0, len(data), 500_000):
            piece = data[start : start + 500_000]
            await workspace.commands.write_stdin(command.id, piece, offset=start, close=False)
            await workspace.commands.write_stdin(command.id, piece, offset=start, close=False)
        with pytest.raises(Conflict):
            await workspace.commands.write_stdin(command.id, b"x", offset=len(data) + 1, close=False)
        assert await workspace.commands.write_stdin(command.id, b"", offset=None, close=True) == len(data)
        output = b"".join(_bytes(await read_all(workspace.commands, command.id)))
        assert output.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_killed_at_random_points_the_holder_invents_no_ending(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    witness = tmp_path / "witness"
    witness.mkdir()
    told: dict[str, tuple[str, object]] = {}
    for _ in range(6):
        async with holder(tmp_path) as workspace:
            tasks = [asyncio.create_task(_witnessed(workspace, witness, n, told)) for n in range(8)]
            await asyncio.sleep(chance.uniform(0.01, 0.25))
            await workspace.kill()
            await asyncio.gather(*tasks, return_exceptions=True)
    async with holder(tmp_path) as last:
        listed = {command.id: command for command in await last.commands.list()}
        assert told.keys() <= listed.keys()
        for command_id, (name, ending) in told.items():
            command = listed[CommandId(command_id)]
            # What a caller was told stands; each started command ran at most once.
            assert command.ending == ending
            assert (witness / name).read_text() == "ran\n"


async def _witnessed(workspace: RunningHolder, witness: Path, number: int, told: dict[str, tuple[str, object]]) -> None:
    for turn in range(100):
        name = f"{workspace.process.pid}-{number}-{turn}"
        result = await workspace.run("bash", "-c", f"echo ran >> {witness / name}; exit {number}")
        told[result.command.id] = (name, result.ending)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
async def test_a_full_disk_refuses_new_commands_and_turns_output_into_gaps(tmp_path: Path) -> None:
    state = tmp_path / "small"
    state.mkdir()
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(state))
    assert await mount.wait() == 0
    try:
        async with holder(tmp_path, state=state) as workspace:
            result = await workspace.run("head", "-c", "5000000", "/dev/zero")
            assert result.ending == Exited(code=0)
            assert result.command.output_end == 5_000_000
            assert not result.complete
            assert sum(p.end - (p.start if isinstance(p, Gap) else p.offset) for p in result.output) == 5_000_000
            assert (await workspace.client.call("hello", {}))["commands_running"] == 0
    finally:
        unmount = await asyncio.create_subprocess_exec("umount", "-l", str(state))
        assert await unmount.wait() == 0


async def test_watchers_do_not_push_out_who_types(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        terminals = HostTerminals(workspace.client, state_dir=str(workspace.state))
        terminal = await terminals.create(TerminalSpec(argv=("cat",)), operation())
        assert await terminals.write(terminal.id, b"ab", writer="typist", offset=0) == 2
        for number in range(300):  # each attachment asks how far it has come
            await terminals.write(terminal.id, b"", writer=f"watcher{number}", offset=0)
        assert await terminals.write(terminal.id, b"bc", writer="typist", offset=1) == 3


async def test_input_that_waits_is_bounded_however_small(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        terminals = HostTerminals(workspace.client, state_dir=str(workspace.state))
        spec = TerminalSpec(argv=("bash", "-c", "stty raw -echo; echo up; sleep 1000"))
        terminal = await terminals.create(spec, operation())
        async with asyncio.timeout(10):
            while not (await terminals.get(terminal.id)).output_end:
                await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(terminals.write(terminal.id, bytes(200_000), writer="a", offset=0))]
        empty = (terminals.write(terminal.id, b"", writer="b", offset=0) for _ in range(2000))
        waiting += map(asyncio.create_task, empty)
        async with asyncio.timeout(20):
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        assert any(isinstance(task.exception(), LimitExceeded) for task in done)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_readers_that_nobody_waits_for_are_not_remembered(tmp_path: Path) -> None:
    async with holder(tmp_path) as workspace:
        command = await workspace.commands.start(CommandSpec(argv=("bash", "-c", "echo up; sleep 1000")), operation())
        async with asyncio.timeout(60):
            while not (await workspace.commands.get(command.id)).output_end:
                await asyncio.sleep(0.01)

            async def follow(count: int) -> int:
                for number in range(count):
                    fields = {"command": command.id, "after": 0, "timeout_s": 1, "reader": f"reader{number:0900}"}
                    await workspace.client.call("follow", fields)
                status = Path(f"/proc/{workspace.process.pid}/status").read_text()
                return int(status.partition("VmRSS:")[2].split()[0])

            before_kib = await follow(200)
            assert await follow(6000) - before_kib < 2000


SPEC: dict[str, object] = {
    "argv": ["true"],
    "cwd": ".",
    "env": {},
    "stdin": "open",
    "timeout_s": None,
    "log_limit_bytes": 1 << 20,
    "overflow": "wait",
}


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("start", {}),
        ("start", {"spec": {**SPEC, "argv": [1]}, "operation": "o"}),
        ("start", {"spec": {**SPEC, "argv": None}, "operation": "o"}),
        ("start", {"spec": {**SPEC, "env": {"a": 1}}, "operation": "o"}),
        ("start", {"spec": {**SPEC, "timeout_s": "soon"}, "operation": "o"}),
        ("start", {"spec": {**SPEC, "log_limit_bytes": None}, "operation": "o"}),
        ("finish", {"operation": "o"}),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(tmp_path: Path, op: str, fields: dict[str, object]) -> None:
    async with holder(tmp_path) as workspace:
        with pytest.raises(Rejected):
            await workspace.client.call(op, fields)
        assert (await workspace.run("true")).command.ending == Exited(code=0)
