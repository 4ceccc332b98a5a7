"""Running commands: in the foreground with a timeout, in the background, and what can be done with one that runs.

Nothing waits for a person: stdin is closed in the foreground, there is no terminal, and what would open a pager, an editor
or a prompt is told not to.
"""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from shadow.agent.toolbox import Answer, Bench
from shadow.agent.tools.command_output import (
    MAX_OUTPUT_BYTES,
    LiveOutput,
    ending_line,
    exit_code,
    has_failed,
    read_page,
    shown_result,
)
from shadow.agent.tools.described import Arguments, DescribedTool
from shadow.core.commands import Command, CommandResult, CommandSpec, StdinMode, shell
from shadow.core.errors import NotFound, OutcomeUnknown, Rejected, ShadowError
from shadow.core.ids import CommandId
from shadow.execution.excerpts import read_excerpt

DEFAULT_TIMEOUT_S = 120
MAX_TIMEOUT_S = 3600
FIRST_LOOK_S = 0.2
BACKGROUND_LOOK_S = 1.0
"""How long a background command is looked at: what fails at once is told at once."""
SETTLE_S = 0.1
MAX_WAIT_S = 300
AFTER_STDIN_S = 1.0
STDIN_LIMIT_S = 10.0
MAX_STDIN_CHARS = 32 * 1024
STOP_GRACE_S = 2.0
END_LIMIT_S = 2.0

_NO_EDITOR = "sh -c 'echo There is no editor here: give the text as an option or in a file. >&2; exit 1'"
NOBODY_IS_THERE: Mapping[str, str] = {
    "DEBIAN_FRONTEND": "noninteractive",
    "EDITOR": _NO_EDITOR,
    "GIT_ASKPASS": "false",
    "GIT_EDITOR": _NO_EDITOR,
    "GIT_PAGER": "cat",
    "GIT_SEQUENCE_EDITOR": _NO_EDITOR,
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    "GIT_TERMINAL_PROMPT": "0",
    "MANPAGER": "cat",
    "NO_COLOR": "1",
    "PAGER": "cat",
    "PIP_NO_INPUT": "1",
    "PYTHONUNBUFFERED": "1",
    "SSH_ASKPASS_REQUIRE": "never",
    "SYSTEMD_PAGER": "cat",
    "TERM": "dumb",
    "VISUAL": _NO_EDITOR,
}
"""What is added to the environment of each command."""

COMMAND_ID = "As run_terminal_cmd gave it."


class RunTerminalCmdArguments(Arguments):
    command: str = Field(description="A line for bash.")
    cwd: str = Field(default=".", description="The directory to run it in, relative to the workspace's root.")
    timeout_s: float = Field(
        default=DEFAULT_TIMEOUT_S, gt=0, le=MAX_TIMEOUT_S, description="Of a foreground command; then it is ended."
    )
    background: bool = Field(default=False, description="Let it run on: for servers and the like.")


class RunTerminalCmd(DescribedTool[RunTerminalCmdArguments]):
    name = "run_terminal_cmd"
    arguments = RunTerminalCmdArguments
    bounds: ClassVar[Mapping[str, int]] = {
        "default_timeout_s": DEFAULT_TIMEOUT_S,
        "max_timeout_s": MAX_TIMEOUT_S,
        "max_output_bytes": MAX_OUTPUT_BYTES,
    }

    async def call(self, arguments: RunTerminalCmdArguments, bench: Bench, *, call_id: str) -> Answer:
        if not arguments.command.strip():
            raise Rejected("The command is empty.")
        background = arguments.background
        spec = CommandSpec(
            argv=shell(arguments.command),
            cwd=arguments.cwd,
            env=NOBODY_IS_THERE,
            stdin=StdinMode.OPEN if background else StdinMode.CLOSED,
            timeout_s=None if background else arguments.timeout_s,
        )
        try:
            result = await _start(bench, spec, call_id, background=background)
        except OutcomeUnknown as error:
            return _unknown(error)
        command = result.command
        try:
            live = LiveOutput(bench, call_id=call_id)
            await live.tell_result(result)
            if command.ending is None and not background:
                command = await live.follow(command)
                result = await read_excerpt(bench.executor, command, limit_bytes=MAX_OUTPUT_BYTES)
            if command.ending is not None and command.descendants:
                await asyncio.sleep(SETTLE_S)  # most only need a moment to end
                result = replace(result, command=await bench.executor.get_command(command.id))
        except asyncio.CancelledError:
            if bench.stopping:
                await _end(bench, command.id)
            raise
        except ShadowError as error:
            return Answer(
                content=f"{error} Whether command {command.id} still runs cannot be told; ask read_command for it.",
                is_error=True,
                failure=error,
            )
        return _answer(result)


async def _start(bench: Bench, spec: CommandSpec, call_id: str, *, background: bool) -> CommandResult:
    """The command after a first look, or at its end. A run that is stopped meanwhile leaves nothing running."""
    look_s = BACKGROUND_LOOK_S if background else FIRST_LOOK_S
    operation = bench.operation(call_id)
    starting = asyncio.ensure_future(
        bench.executor.run(spec, wait_s=look_s, output_limit_bytes=MAX_OUTPUT_BYTES, operation=operation)
    )
    try:
        result = await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(ShadowError, TimeoutError):
            async with asyncio.timeout(END_LIMIT_S):
                command = (await starting).command
            bench.started(command.id, call_id=call_id, background=background)
            if bench.stopping:
                await _end(bench, command.id)
        raise
    bench.started(result.command.id, call_id=call_id, background=background)
    return result


async def _end(bench: Bench, command_id: CommandId) -> None:
    with suppress(ShadowError, TimeoutError):
        async with asyncio.timeout(END_LIMIT_S):
            await bench.executor.kill(command_id)


def _unknown(error: OutcomeUnknown) -> Answer:
    return Answer(
        content=f"lost: nobody can know whether the command was run, and how it ended. {error} Look at what it should have "
        "changed before you run it again.",
        is_error=True,
        failure=error,
    )


def _answer(result: CommandResult) -> Answer:
    command = result.command
    lines = [ending_line(command)]
    if command.ending is None:
        lines = [
            f'running in the background: command_id="{command.id}"; read_command goes on at offset={command.output_end}'
        ]
    lines += _left_running(command)
    lines.append(shown_result(result) or "(no output)")
    return Answer(content="\n".join(lines), is_error=has_failed(command), exit_code=exit_code(command))


def _left_running(command: Command) -> list[str]:
    if command.survivors:
        return [f"Processes that could not be ended: {', '.join(map(str, command.survivors))}."]
    if command.ending is not None and command.descendants:
        left = command.descendants
        return [f'{left} of its processes still run: stop_command with command_id="{command.id}" ends them.']
    return []


async def _find(bench: Bench, command_id: str) -> Command:
    """Raises: NotFound: with the commands that are there."""
    try:
        return await bench.executor.get_command(CommandId(command_id))
    except (NotFound, Rejected) as error:
        running = [command.id for command in await bench.executor.list_commands() if command.ending is None]
        raise NotFound(
            f"There is no command {command_id[:80]!r}.",
            mend=f"These run: {', '.join(running[-20:])}." if running else "No command runs.",
        ) from error


class ReadCommandArguments(Arguments):
    command_id: str = Field(description=COMMAND_ID)
    offset: int = Field(default=0, ge=0, description="The byte of its output to begin at.")
    wait_s: float = Field(
        default=0, ge=0, le=MAX_WAIT_S, description="Wait so long at most for its end before reading."
    )


class ReadCommand(DescribedTool[ReadCommandArguments]):
    name = "read_command"
    arguments = ReadCommandArguments
    changes = False
    bounds: ClassVar[Mapping[str, int]] = {"max_wait_s": MAX_WAIT_S, "max_output_bytes": MAX_OUTPUT_BYTES}

    async def call(self, arguments: ReadCommandArguments, bench: Bench, *, call_id: str) -> Answer:
        command = await _find(bench, arguments.command_id)
        if arguments.wait_s and command.ending is None:
            start = min(arguments.offset, command.output_end)
            command = await LiveOutput(bench, call_id=call_id, start=start).follow(command, wait_s=arguments.wait_s)
        return await _page(bench, command, arguments.offset)


async def _page(bench: Bench, command: Command, offset: int) -> Answer:
    if offset > command.output_end:
        return Answer(
            content=f"{ending_line(command)}\nIt has written {command.output_end} bytes; there is no offset {offset}.",
            is_error=True,
        )
    text, following = await read_page(bench, command, offset=offset)
    state = [ending_line(command), *_left_running(command)]
    if following < command.output_end:
        more = f"[There is more, up to {command.output_end}: go on with offset={following}.]"
    else:
        more = f"[That is all so far; offset={following} is next.]" if command.ending is None else "[That is all.]"
    body = [text or "(no output there)", more]
    return Answer(content="\n".join([*state, *body]), is_error=has_failed(command), exit_code=exit_code(command))


class WriteCommandStdinArguments(Arguments):
    command_id: str = Field(description=COMMAND_ID)
    text: str = Field(default="", description="Sent as it is: end a line with \\n.")
    close: bool = Field(default=False, description="Then close its stdin.")


class WriteCommandStdin(DescribedTool[WriteCommandStdinArguments]):
    name = "write_command_stdin"
    arguments = WriteCommandStdinArguments
    bounds: ClassVar[Mapping[str, int]] = {"max_stdin_chars": MAX_STDIN_CHARS}

    async def call(self, arguments: WriteCommandStdinArguments, bench: Bench, *, call_id: str) -> Answer:
        if len(arguments.text) > MAX_STDIN_CHARS:
            raise Rejected(f"More than {MAX_STDIN_CHARS} characters.", mend="Send them in several calls.")
        try:
            data = arguments.text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise Rejected("The text holds half a character.", mend="Write it again as whole characters.") from error
        before = await _find(bench, arguments.command_id)
        # A signal that does nothing to what runs is on record with how the command stood: a repeat of this call learns from it
        # where its text began, so that nothing is written twice.
        before = await bench.executor.signal(before.id, signal.SIGCONT, operation=bench.operation(call_id))
        if before.ending is not None:
            return Answer(content=f"{ending_line(before)}\nIt takes no input any more.", is_error=True)
        try:
            async with asyncio.timeout(STDIN_LIMIT_S):
                await bench.executor.write_stdin(before.id, data, offset=before.stdin_accepted, close=arguments.close)
        except TimeoutError:
            return Answer(
                content=f"Command {before.id} does not read its input: it has not taken all of the text within "
                f"{STDIN_LIMIT_S:g} s, but may still do so. Look at it with read_command before you write more.",
                is_error=True,
            )
        live = LiveOutput(bench, call_id=call_id, start=before.output_end)
        after = await live.follow(await bench.executor.get_command(before.id), wait_s=AFTER_STDIN_S)
        await live.tell(after)
        return await _page(bench, after, before.output_end)


class StopCommandArguments(Arguments):
    command_id: str = Field(description=COMMAND_ID)


class StopCommand(DescribedTool[StopCommandArguments]):
    name = "stop_command"
    arguments = StopCommandArguments

    async def call(self, arguments: StopCommandArguments, bench: Bench, *, call_id: str) -> Answer:
        found = await _find(bench, arguments.command_id)
        ended = await bench.executor.kill(found.id, grace_s=STOP_GRACE_S, operation=bench.operation(call_id))
        result = await read_excerpt(bench.executor, ended, limit_bytes=MAX_OUTPUT_BYTES)
        lines = [ending_line(ended), *_left_running(ended), shown_result(result) or "(no output)"]
        return Answer(content="\n".join(lines), exit_code=exit_code(ended))
