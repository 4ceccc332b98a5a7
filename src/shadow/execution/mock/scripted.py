"""Which program a command runs: one that the plan scripts, a simulated one, or none that is there."""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping
from random import Random

from shadow.core.commands import Channel, CommandSpec
from shadow.core.errors import Denied, NotFound, Unsupported
from shadow.execution.mock.files import MockFiles
from shadow.execution.mock.latency import draw
from shadow.execution.mock.lines import line_program
from shadow.execution.mock.plan import MockCommand, MockPlan, Program
from shadow.execution.mock.process import EndsBySignal, Process, command_line, shell_line
from shadow.execution.mock.programs import PROGRAMS
from shadow.execution.mock.shell import NoShell
from shadow.execution.mock.tree import ROOT, File

_BINARIES = ("/bin/", "/usr/bin/", "/usr/local/bin/")
_MEND = "Script it: MockPlan(commands=(MockCommand(pattern=…),)), see docs/mock.md."


class Programs:
    """Of one workspace: counts how often scripted commands have answered."""

    def __init__(self, plan: MockPlan, random: Random) -> None:
        self._plan = plan
        self._random = random
        self._answered: Counter[int] = Counter()
        self._named: Mapping[str, Program] = {**PROGRAMS, **plan.programs}

    def choose(self, spec: CommandSpec, files: MockFiles) -> tuple[Program, MockCommand | None]:
        """Raises: NotFound, Denied, Unsupported: a shell line or a file that only a real system could run."""
        line = command_line(spec.argv)
        for index, command in enumerate(self._plan.commands):
            fresh = command.times is None or self._answered[index] < command.times
            if fresh and re.fullmatch(command.pattern, line, re.DOTALL):
                self._answered[index] += 1
                return command.program or _scripted(command, self._random), command
        shell = shell_line(spec.argv)
        if shell is not None:
            return self._of_line(shell), None
        return self._of_name(spec.argv[0], spec.cwd, files), None

    def _of_name(self, name: str, cwd: str, files: MockFiles) -> Program:
        directory, base = posixpath.split(name)
        if not directory or f"{directory}/" in _BINARIES:
            program = self._named.get(base)
            if program is not None:
                return program
        elif not name.startswith("/") or name.startswith(ROOT + "/"):
            self._refuse_file(name, cwd, files)
        raise NotFound(f"There is no program {name!r}.", mend=_MEND, details={"program": name})

    def _refuse_file(self, name: str, cwd: str, files: MockFiles) -> None:
        """Raises: NotFound, Denied, Unsupported."""
        node, _ = files.tree.find(name if name.startswith("/") else f"{ROOT}/{cwd}/{name}")
        if not isinstance(node, File) or not node.mode & 0o111:
            raise Denied(f"{name!r} cannot be executed: Permission denied.", details={"program": name})
        raise _needs_programs(f"{name!r} is a file of the workspace, which the mock cannot execute.")

    def _of_line(self, line: str) -> Program:
        """What the mock has no shell for is refused."""
        try:
            return line_program(line, self._named)
        except NoShell as error:
            message = f"The mock has no shell that could run the line {line[:200]!r}: it holds {error}."
            raise _needs_programs(message) from error


def _needs_programs(message: str) -> Unsupported:
    return Unsupported(message, mend=_MEND, details={"capability": "programs"})


def _scripted(command: MockCommand, random: Random) -> Program:
    async def run(process: Process) -> int:
        await process.write(command.stdout)
        await process.write(command.stderr, Channel.STDERR)
        for chunk in command.chunks:
            await process.sleep(draw(chunk.after, random))
            await process.write(chunk.data, chunk.channel)
        await process.sleep(draw(command.latency, random))
        for name, content in command.files.items():
            if content is not None:
                process.files.write(process.path(name), content)
            else:
                process.files.delete(process.path(name), recursive=True)
        if command.signal is not None:
            raise EndsBySignal(command.signal)
        return command.exit_code

    return run
