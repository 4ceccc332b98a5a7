"""A line for ``bash -c`` as the program of a simulated command: its simple commands one after the other."""

import posixpath
from collections.abc import Mapping
from dataclasses import replace

from shadow.core.commands import Channel
from shadow.core.errors import NotADirectory, NotFound, ShadowError
from shadow.execution.mock.plan import Program
from shadow.execution.mock.process import DISCARDED, Process
from shadow.execution.mock.shell import NoShell, Redirection, SimpleCommand, parse
from shadow.execution.mock.stdin import MockStdin

NO_SUCH_COMMAND = 127
_WRONG_USAGE = 2
_CHANNELS = {1: Channel.STDOUT, 2: Channel.STDERR}


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def line_program(line: str, programs: Mapping[str, Program]) -> Program:
    """Raises: NoShell."""
    commands = parse(line)
    for command in commands:
        if "/" in command.words[0] and posixpath.dirname(command.words[0]) not in ("/bin", "/usr/bin"):
            raise NoShell(f"{command.words[0]!r}, which would have to be executed")

    async def run(process: Process) -> int:
        code = 0
        try:
            for command in commands:
                if (command.after == "&&" and code != 0) or (command.after == "||" and code == 0):
                    continue
                code = await _run(command, process, programs, code)
        except _Exit as end:
            return end.code
        return code

    return run


async def _run(command: SimpleCommand, shell: Process, programs: Mapping[str, Program], last: int) -> int:
    name = posixpath.basename(command.words[0])
    process = replace(shell, argv=tuple(command.words), targets=dict(shell.targets))
    try:
        for redirection in command.redirections:
            _redirect(process, redirection)
    except ShadowError as error:
        await _complain(shell, f"{error.message}")
        return 1
    match name, command.words[1:]:
        case "exit", words:
            raise _Exit(_code(words, last))
        case "cd", [directory]:
            return await _change_directory(shell, directory)
        case "read", _:
            return await _read_line(process)
        case ":", _:
            return 0
        case _:
            pass
    program = programs.get(name)
    if program is None:
        await _complain(process, f"{name}: command not found")
        return NO_SUCH_COMMAND
    return await program(process)


async def _complain(process: Process, text: str) -> None:
    await process.write(f"bash: line 1: {text}\n".encode("utf-8", "surrogateescape"), Channel.STDERR)


def _redirect(process: Process, redirection: Redirection) -> None:
    match redirection:
        case Redirection(to=1 | 2 as number):
            source = _CHANNELS[number]
            process.targets[_CHANNELS[redirection.channel]] = process.targets.get(source, source)
        case Redirection(channel=0, to=str(name)):
            content = b"" if name == DISCARDED else process.files.open(process.path(name))[0]
            process.stdin = MockStdin.of(content)
        case Redirection(to=str(name)):
            path = name if name == DISCARDED else process.path(name)
            if path != DISCARDED and (redirection.how == ">" or not _is_there(process, path)):
                process.files.write(path, b"", create_parents=False)
            process.targets[_CHANNELS[redirection.channel]] = path
        case _:
            raise NoShell(repr(redirection))


def _is_there(process: Process, path: str) -> bool:
    return process.files.tree.resolve(path).found is not None


def _code(words: list[str], last: int) -> int:
    if not words:
        return last
    return int(words[0]) & 0xFF if words[0].isdecimal() else _WRONG_USAGE


async def _change_directory(shell: Process, directory: str) -> int:
    try:
        _, where = shell.files.tree.directory(shell.path(directory))
    except (NotFound, NotADirectory) as error:
        reason = "Not a directory" if isinstance(error, NotADirectory) else "No such file or directory"
        await _complain(shell, f"cd: {directory}: {reason}")
        return 1
    shell.cwd = where
    return 0


async def _read_line(process: Process) -> int:
    while byte := await process.read(1):
        if byte == b"\n":
            return 0
    return 1
