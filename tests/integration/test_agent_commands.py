"""The agent's tools for commands, on a real executor."""

import asyncio
import resource
import shutil
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from shadow.agent.tools import command_output, commands
from shadow.core.commands import CommandSpec, Killed, Lost, shell
from shadow.core.events import MAX_EXCERPT_CHARS
from shadow.core.ids import CommandId
from shadow.core.limits import Limits
from shadow.core.workspaces import WorkspaceSpec
from tests.support.benches import KINDS, ToolBench, open_bench
from tests.support.holders import gone
from tests.support.local_workspaces import holder_pid, local_manager, processes_with, skip_without_sandbox

pytestmark = pytest.mark.anyio

GIT = "git -c user.name=a -c user.email=a@b"


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[ToolBench]:
    async with open_bench(request.param, tmp_path) as opened:
        yield opened


def command_of(bench: ToolBench) -> CommandId:
    return CommandId(bench.bench.commands[-1])


# How a command ends


async def test_the_exit_code_is_an_answer(bench: ToolBench) -> None:
    result = await bench("run_terminal_cmd", command="echo out; echo err >&2; exit 3")
    assert (result.content, result.is_error, result.exit_code) == ("exit code: 3\nout\nerr", False, 3)
    result = await bench("run_terminal_cmd", command="true")
    assert (result.content, result.is_error, result.exit_code) == ("exit code: 0\n(no output)", False, 0)


async def test_a_signal_is_named(bench: ToolBench) -> None:
    result = await bench("run_terminal_cmd", command="kill -SEGV $$")
    assert result.content.startswith("ended by signal 11 (SIGSEGV)")
    assert result.exit_code is None


async def test_a_timeout_ends_the_whole_tree_and_says_so(bench: ToolBench) -> None:
    marker = f"987{time.time_ns()}"
    line = f"setsid sleep {marker} & nohup sleep {marker} & sleep {marker}"
    answer = await bench.error("run_terminal_cmd", command=line, timeout_s=1)
    assert answer.startswith("timed out after 1 s: the command and every process that it started were ended.")
    for pid in processes_with(marker):
        await gone(pid)


async def test_a_directory_can_be_chosen(bench: ToolBench) -> None:
    await bench.write("a dir/x", "")
    assert await bench.text("run_terminal_cmd", command="ls", cwd="a dir") == "exit code: 0\nx"
    assert "not there" in await bench.error("run_terminal_cmd", command="ls", cwd="nowhere")
    await bench.error("run_terminal_cmd", command="ls", cwd="../..")


async def test_lines_that_no_system_runs_are_refused(bench: ToolBench) -> None:
    assert "empty" in await bench.error("run_terminal_cmd", command=" \n")
    assert "NUL" in await bench.error("run_terminal_cmd", command="echo \0")
    assert "Write it to a file" in await bench.error("run_terminal_cmd", command="x" * 200_000)
    for timeout_s in (0, -1, commands.MAX_TIMEOUT_S + 1):
        assert (await bench.called("run_terminal_cmd", command="true", timeout_s=timeout_s)).is_fault


async def test_what_a_command_leaves_running_is_told(bench: ToolBench) -> None:
    result = await bench("run_terminal_cmd", command="sleep 300 > /dev/null 2>&1 & echo done")
    command = command_of(bench)
    assert result.content == (
        f'exit code: 0\n1 of its processes still run: stop_command with command_id="{command}" ends them.\ndone'
    )
    assert not (await bench("stop_command", command_id=command)).is_error
    assert (await bench.executor.get_command(command)).descendants == 0


async def test_a_repeated_call_is_answered_with_the_first_result_and_runs_nothing(bench: ToolBench) -> None:
    first = await bench("run_terminal_cmd", call_id="again", command="echo x >> log; wc -l < log")
    assert await bench("run_terminal_cmd", call_id="again", command="echo x >> log; wc -l < log") == first
    assert await bench.read("log") == b"x\n"


async def test_a_call_of_a_run_that_is_stopped_leaves_nothing_running(bench: ToolBench) -> None:
    bench.bench.stopping = True
    for delay_s in (0.05, 0.6):  # while it starts, while it is followed
        marker = f"986{time.time_ns()}"
        call = asyncio.create_task(bench("run_terminal_cmd", command=f"sleep {marker}; true"))
        await asyncio.sleep(delay_s)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert isinstance((await bench.executor.get_command(command_of(bench))).ending, Killed)


async def test_a_call_that_is_given_up_is_taken_up_again_where_it_was(bench: ToolBench) -> None:
    line = "echo begun; echo ran >> log; while [ ! -e go ]; do sleep 0.05; done; echo ended"
    call = asyncio.create_task(bench("run_terminal_cmd", call_id="one", command=line))
    await asyncio.sleep(0.6)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    bench.bench.told_to["one"] = bench.output[-1].end
    await bench.write("go", b"")
    answer = await bench("run_terminal_cmd", call_id="one", command=line)
    assert answer.content.endswith("begun\nended")
    assert "".join(event.text for event in bench.output) == "begun\nended\n"
    assert await bench.read("log") == b"ran\n"


# Nobody is there


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("cat", "exit code: 0"),
        ("read -p 'Password: ' x || echo nobody", "nobody"),
        ("python3", "exit code: 0"),
        ("python3 -c 'import getpass; getpass.getpass()'", "EOFError"),
        ("seq 500 | less | tail -1", "500"),
        ("seq 500 > f; less f | tail -1", "500"),
        (f"git init -q; {GIT} commit --allow-empty", "no editor"),
        (f"git init -q; {GIT} commit -q --allow-empty -m said; git log -p", "said"),
        (f"git init -q; {GIT} commit -q --allow-empty -m x; {GIT} rebase -i --root", "no editor"),
        ("git -c credential.helper= clone http://127.0.0.1:1/x", "exit code: 128"),
        ("ssh -o ConnectTimeout=1 127.0.0.1 -p 1", "exit code: 255"),
        ("exec < /dev/tty", "exit code: 1"),
        ("tty; test -t 0 || test -t 1 || test -t 2 || echo none", "none"),
        ("echo $PAGER $TERM", "cat dumb"),
    ],
)
async def test_what_asks_somebody_ends_by_itself(bench: ToolBench, line: str, told: str) -> None:
    for program in ("less", "git", "ssh"):
        if program in line.split() and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    result = await bench("run_terminal_cmd", command=line, timeout_s=20)
    assert not result.is_error, result.content
    assert told in result.content


async def test_a_screen_editor_ends_with_its_timeout(bench: ToolBench) -> None:
    if shutil.which("vi") is None:
        pytest.skip("vi is not installed")
    began = time.monotonic()
    result = await bench("run_terminal_cmd", command="vi x", timeout_s=2)
    assert time.monotonic() - began < 15
    assert result.content.startswith(("timed out after 2 s", "exit code: "))
    assert "\x1b" not in result.content


# Output


async def test_control_characters_and_stray_bytes_are_made_harmless(bench: ToolBench) -> None:
    line = r"printf '\033]0;title\007\033[1;31mred\033[0m\033[2J 10%%\r20%%\r\n\000\377\x08 \302\233end \303\251'"
    answer = await bench.text("run_terminal_cmd", command=line)
    assert answer == "exit code: 0\nred 10%\n20%\n␀�␈ �end é"


async def test_large_output_is_answered_by_its_ends_and_the_rest_can_be_read(bench: ToolBench) -> None:
    answer = await bench.text("run_terminal_cmd", command="for i in $(seq 20000); do echo é$i; done")
    assert len(answer.encode()) < command_output.MAX_OUTPUT_BYTES + 1000
    assert "\ufffd" not in answer
    head, _, rest = answer.partition("\n[Bytes ")
    tail = rest.partition("]\n")[2]
    start, _, end = rest.partition(" are")[0].partition(" to ")
    middle, offset = "", int(start)
    while offset < int(end):
        page = await bench.text("read_command", command_id=command_of(bench), offset=offset)
        assert len(page.encode()) < command_output.MAX_OUTPUT_BYTES + 1000
        state, _, text = page.partition("\n")
        assert state == "exit code: 0"
        text, _, more = text.rpartition("\n[")
        if not more.startswith("There is more"):
            break
        following = int(more.partition("offset=")[2].rstrip(".]"))
        # A page may end within a line; the line end that an answer leaves out at its own end is put back.
        text += "\n" * (following - offset - len(text.encode()))
        middle, offset = middle + text, following
    whole = "".join(f"é{number}\n" for number in range(1, 20001))
    head = head.removeprefix("exit code: 0\n")
    assert whole.startswith(head)
    assert whole.rstrip("\n").endswith(tail)
    assert whole.encode()[int(start) :].startswith(middle.encode())


async def test_a_line_of_256_megabytes_stays_small(bench: ToolBench) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await bench.text("run_terminal_cmd", command="head -c 256000000 /dev/zero | tr '\\0' x")
    assert len(answer) < command_output.MAX_OUTPUT_BYTES + 1000
    assert "are gone: the command wrote more than is kept of it" in answer
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


async def test_endless_output_is_told_in_few_bounded_events(bench: ToolBench) -> None:
    await bench.error("run_terminal_cmd", command="yes", timeout_s=2)
    events = bench.output
    assert 3 <= len(events) <= 2 / command_output.SHORTEST_LOOK_S + 3
    assert all(len(event.text) <= MAX_EXCERPT_CHARS for event in events)
    assert [event.start for event in events] == [0, *(event.end for event in events[:-1])]
    assert events[-1].end == (await bench.executor.get_command(command_of(bench))).output_end


async def test_output_is_told_while_the_command_runs(bench: ToolBench) -> None:
    call = asyncio.create_task(bench("run_terminal_cmd", command="echo first; until test -e go; do sleep 0.05; done"))
    async with asyncio.timeout(10):
        while not bench.output:
            await asyncio.sleep(0.02)
    assert not call.done()
    assert bench.output[0].text == "first\n"
    await bench.write("go", "")
    assert (await call).content == "exit code: 0\nfirst"
    assert bench.output[0].command_id == command_of(bench)


# In the background


async def test_a_background_command_is_read_written_and_stopped(bench: ToolBench) -> None:
    line = "echo ready; while read line; do echo got $line; done; echo end"
    answer = await bench.text("run_terminal_cmd", command=line, background=True)
    command = command_of(bench)
    assert answer == f'running in the background: command_id="{command}"; read_command goes on at offset=6\nready'
    answer = await bench.text("write_command_stdin", command_id=command, text="one\n")
    assert answer == "still running\ngot one\n[That is all so far; offset=14 is next.]"
    assert await bench.text("read_command", command_id=command, offset=6) == answer
    answer = await bench.text("write_command_stdin", command_id=command, text="two\n", close=True)
    assert answer == "exit code: 0\ngot two\nend\n[That is all.]"
    assert "takes no input any more" in await bench.error("write_command_stdin", command_id=command, text="x")
    assert (await bench("stop_command", command_id=command)).exit_code == 0


async def test_what_was_written_to_stdin_is_not_written_again(bench: ToolBench) -> None:
    await bench.text("run_terminal_cmd", command="cat", background=True)
    command = command_of(bench)
    for _ in range(2):
        await bench("write_command_stdin", call_id="once", command_id=command, text="one\n")
    await bench.text("write_command_stdin", command_id=command, text="two\n", close=True)
    assert "\none\ntwo\n[That is all.]" in await bench.text("read_command", command_id=command)


async def test_a_program_that_reads_nothing_does_not_hang_the_run(bench: ToolBench) -> None:
    await bench.text("run_terminal_cmd", command="sleep 300", background=True)
    command = command_of(bench)
    text = "x" * commands.MAX_STDIN_CHARS
    answers = [await bench("write_command_stdin", command_id=command, text=text) for _ in range(3)]
    assert "does not read its input" in answers[-1].content
    assert (await bench("stop_command", command_id=command)).content.startswith("stopped: ")
    assert "Send them in several calls" in await bench.error("write_command_stdin", command_id=command, text=text + "x")


async def test_a_background_command_that_fails_at_once_is_told_at_once(bench: ToolBench) -> None:
    result = await bench("run_terminal_cmd", command="echo no such port >&2; exit 4", background=True)
    assert (result.content, result.exit_code) == ("exit code: 4\nno such port", 4)


async def test_waiting_for_a_command_ends_with_it_or_with_the_time(bench: ToolBench) -> None:
    await bench.text("run_terminal_cmd", command="until test -e go; do sleep 0.05; done; echo done", background=True)
    command = command_of(bench)
    began = time.monotonic()
    assert (await bench.text("read_command", command_id=command, wait_s=0.5)).startswith("still running")
    assert time.monotonic() - began < 5
    waiting = asyncio.create_task(bench.text("read_command", command_id=command, wait_s=60))
    await bench.write("go", "")
    assert await waiting == "exit code: 0\ndone\n[That is all.]"


async def test_a_command_that_is_not_there_is_answered_with_those_that_run(bench: ToolBench) -> None:
    assert "No command runs" in await bench.error("read_command", command_id="cmd_none")
    await bench.text("run_terminal_cmd", command="sleep 300", background=True)
    command = command_of(bench)
    for tool in ("read_command", "write_command_stdin", "stop_command"):
        for wrong in ("cmd_none", "../x", ""):
            assert f"These run: {command}." in await bench.error(tool, command_id=wrong)
    assert "there is no offset 99" in await bench.error("read_command", command_id=command, offset=99)


# What goes wrong


async def test_a_lost_command_is_told_as_lost(tmp_path: Path) -> None:
    await skip_without_sandbox(tmp_path)
    manager = local_manager(tmp_path)
    status = await manager.create(WorkspaceSpec())
    try:
        async with await manager.attach(status.id) as executor:
            bench = ToolBench(executor)
            waiting = asyncio.create_task(bench("run_terminal_cmd", call_id="lost", command="echo begun; sleep 300"))
            async with asyncio.timeout(20):
                while not bench.output:
                    await asyncio.sleep(0.02)
            pid = holder_pid(tmp_path, status.id)
            executor_gone = await asyncio.create_subprocess_exec("kill", "-9", str(pid))
            await executor_gone.wait()
            assert (await waiting).is_error
        async with await manager.attach(status.id) as executor:
            again = ToolBench(executor)
            again._operation = bench._operation  # noqa: SLF001
            again.bench.operation = bench.bench.operation
            result = await again("run_terminal_cmd", call_id="lost", command="echo begun; sleep 300")
            assert isinstance((await executor.get_command(command_of(again))).ending, Lost)
            assert result.content.startswith("lost: nobody can know how the command ended")
            assert "begun" in result.content
            assert (result.is_error, result.exit_code) == (True, None)
    finally:
        await manager.destroy(status.id)


async def test_a_limit_of_the_workspace_is_told(tmp_path: Path) -> None:
    await skip_without_sandbox(tmp_path)
    manager = local_manager(tmp_path)
    async with manager.open(WorkspaceSpec(limits=Limits(file_size_bytes=1 << 20))) as executor:
        result = await ToolBench(executor)("run_terminal_cmd", command="exec head -c 5000000 /dev/zero > big")
        assert result.content.startswith("ended: the workspace's limit of file size was reached.")
        assert result.is_error


async def test_output_that_a_descendant_writes_later_can_be_read(bench: ToolBench) -> None:
    await bench.text("run_terminal_cmd", command="(until test -e go; do sleep 0.05; done; echo late) & echo early")
    command = command_of(bench)
    await bench.write("go", "")
    async with asyncio.timeout(20):
        while "late" not in await bench.text("read_command", command_id=command, offset=6):
            await asyncio.sleep(0.05)


def test_the_specification_of_a_command_is_one_that_executors_take() -> None:
    assert all(commands.NOBODY_IS_THERE.values())
    assert CommandSpec(argv=shell("x"), env=commands.NOBODY_IS_THERE).env["GIT_TERMINAL_PROMPT"] == "0"
