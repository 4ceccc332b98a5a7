"""The lines that the mock runs mean to bash what they mean to the mock; all others are refused."""

import asyncio
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shadow.core.commands import CommandSpec, Exited, shell
from shadow.core.errors import Unsupported
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.mock.shell import NoShell, parse

PIECES = st.sampled_from(
    [
        *"ab ;&|<>'\"\\$`*?[]{}()!#~=-\n\t",
        " ",
        " ",
        "; ",
        " && ",
        " || ",
        "'x y'",
        '"z"',
        "\\;",
        "%s",
        "é",
        "echo ",
        "printf ",
    ]
)
LINES = st.lists(PIECES, max_size=10).map("".join)
COMMANDS = st.sampled_from(
    [
        "true",
        "false",
        "echo one",
        "echo 'a b'  c",
        "printf '%s-' x y",
        "printf x > f",
        "echo y >> f",
        "cat f",
        "ls",
        "cat < f",
        "echo e >&2",
        "exit 3",
        "exit",
        "cd sub",
        "pwd -P > /dev/null",
        "nosuchprogram",
        "cat nowhere",
        "mkdir sub",
        "touch g",
        "rm f",
        "echo both > f 2>&1",
        "cat nowhere > f 2>&1",
        "read",
        ": x",
        'echo "q\'q"',
        "cat nowhere 2>/dev/null",
        "seq 3",
    ]
)
JOINED = st.lists(st.tuples(COMMANDS, st.sampled_from(["; ", " && ", " || ", "\n"])), min_size=1, max_size=6).map(
    lambda pairs: "".join(f"{command}{between}" for command, between in pairs[:-1]) + pairs[-1][0]
)


@settings(max_examples=400, deadline=None)
@given(LINES)
@example("a=b")
@example("echo {a,b}")
@example("a #comment")
@example("~")
@example("echo a\\\nb")
@example("echo 1>2")
@example("echo 2>&1>f")
def test_words_are_those_that_bash_sees(line: str) -> None:
    try:
        commands = parse(f"printf '<%s>' {line}")
    except NoShell:
        return
    if len(commands) != 1 or commands[0].redirections:
        return
    done = subprocess.run(
        ["bash", "-c", f"printf '<%s>' {line}"], capture_output=True, check=False, cwd="/proc/self/fdinfo"
    )
    assert done.stdout.decode() == "".join(f"<{word}>" for word in commands[0].words[2:] or [""])


@settings(max_examples=120, deadline=None)
@given(JOINED)
def test_lines_end_and_write_as_in_bash(line: str) -> None:
    async def mocked() -> tuple[object, bytes, list[str]]:
        async with MockWorkspaceManager().open(WorkspaceSpec()) as executor:
            result = await executor.run(CommandSpec(argv=shell(line)), wait_s=10.0)
            entries = (await executor.list_directory(recursive=True)).entries
        return result.ending, result.stdout, [entry.path for entry in entries]

    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            ["bash", "-c", line], cwd=directory, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=20
        )
        left = sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*"))
    assert asyncio.run(mocked()) == (Exited(code=done.returncode), done.stdout, left)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "line",
    [
        "echo $HOME",
        "ls *",
        "a | b",
        "sleep 1 &",
        "for i in a; do b; done",
        "(true)",
        "`id`",
        "X=1 env",
        "! true",
        "{ true; }",
        "trap x TERM",
        "exec ls",
        "echo a{b,c}",
        "cat <<E\nx\nE",
        "echo 'open",
        "if true; then false; fi",
        "cat ~/x",
        "./script",
    ],
)
async def test_what_needs_a_shell_is_refused_and_leaves_no_command(line: str) -> None:
    async with MockWorkspaceManager().open(WorkspaceSpec()) as executor:
        with pytest.raises(Unsupported) as refusal:
            await executor.start(CommandSpec(argv=shell(line)))
        assert refusal.value.details["capability"] == "programs"
        assert await executor.list_commands() == []
