"""The commands of a mocked workspace: started, fed, signalled, ended, remembered, each ending told as it came about."""

import asyncio
import logging
import signal as signals
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shadow.core.commands import (
    Command,
    CommandResult,
    CommandSpec,
    Ending,
    Exited,
    Gap,
    Killed,
    Lost,
    Output,
    Signalled,
    StdinMode,
    TimedOut,
    shown_argv,
)
from shadow.core.errors import LimitExceeded, NotFound, Rejected
from shadow.core.ids import CommandId, make_id
from shadow.execution.mock.files import MockFiles
from shadow.execution.mock.output import MockOutput
from shadow.execution.mock.plan import Program
from shadow.execution.mock.process import EndsBySignal, NotSimulated, Process
from shadow.execution.mock.scripted import Programs
from shadow.execution.mock.stdin import MockStdin
from shadow.execution.mock.times import Time

MAX_RUNNING = 256
MAX_REMEMBERED = 1000
MAX_LOG_BYTES_IN_TOTAL = 256 * 1024 * 1024
READ_BYTES = 1024 * 1024
FIRST_PID = 100
_HARMLESS = frozenset({signals.SIGCHLD, signals.SIGURG, signals.SIGWINCH})
_STOPS = frozenset({signals.SIGSTOP, signals.SIGTSTP, signals.SIGTTIN, signals.SIGTTOU})
_NOT_TO_BE_IGNORED = frozenset({signals.SIGKILL, signals.SIGSTOP})

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """One command, from its start until it is forgotten."""

    id: CommandId
    spec: CommandSpec
    pid: int
    started_at: float
    output: MockOutput
    stdin: MockStdin
    ignores: frozenset[int]
    running: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared while it is stopped."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by output and by the end; who waits clears it first."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: Ending | None = None
    """What the ending will say where somebody brings it about."""
    ending: Ending | None = None
    ended_at: float | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def describe(self) -> Command:
        return Command(
            id=self.id,
            argv=shown_argv(self.spec.argv),
            cwd=self.spec.cwd,
            pid=self.pid,
            started_at=self.started_at,
            ended_at=self.ended_at,
            ending=self.ending,
            output_start=self.output.start,
            output_end=self.output.end,
            output_closed=self.ending is not None,
            stdin_accepted=self.stdin.accepted,
            descendants=0 if self.ending is not None else 1,
        )


class MockCommands:
    """``cwd`` in a spec has been checked and is relative to the root."""

    def __init__(
        self,
        *,
        programs: Programs,
        files: MockFiles,
        time: Time,
        entropy: Callable[[int], bytes],
        base_env: Mapping[str, str],
        default_timeout_s: float | None,
    ) -> None:
        self._programs = programs
        self._files = files
        self._time = time
        self._entropy = entropy
        self._base_env = base_env
        self._default_timeout_s = default_timeout_s
        self._commands: dict[CommandId, Running] = {}
        self._pids = FIRST_PID

    @property
    def running(self) -> int:
        return sum(command.ending is None for command in self._commands.values())

    def get(self, command_id: CommandId) -> Running:
        """Raises: NotFound."""
        command = self._commands.get(command_id)
        if command is None:
            raise NotFound(f"There is no command {command_id!r} in this workspace.", details={"command": command_id})
        return command

    def list(self) -> Sequence[Command]:
        return [command.describe() for command in self._commands.values()]

    # Starting

    def start(self, spec: CommandSpec) -> Running:
        """Raises: NotFound, Denied, Unsupported, LimitExceeded."""
        if self.running >= MAX_RUNNING:
            raise LimitExceeded(f"{MAX_RUNNING} commands run already.", mend="Wait for some to end, or kill them.")
        program, scripted = self._programs.choose(spec, self._files)
        self._pids += 1
        command = Running(
            id=CommandId(make_id("cmd", entropy=self._entropy(12))),
            spec=replace(spec, env={}),
            pid=self._pids,
            started_at=self._time.now(),
            output=MockOutput(limit_bytes=spec.log_limit_bytes, overflow=spec.overflow, time=self._time),
            stdin=MockStdin(is_open=spec.stdin is StdinMode.OPEN),
            ignores=scripted.ignores if scripted is not None else frozenset(),
        )
        command.running.set()
        process = Process(
            argv=spec.argv,
            cwd=spec.cwd,
            env={**self._base_env, **spec.env, "PWD": f"/workspace/{spec.cwd}".removesuffix("/.")},
            files=self._files,
            time=self._time,
            stdin=command.stdin,
            output=command.output,
            running=command.running,
            wrote=command.changed,
        )
        self._commands[command.id] = command
        command.tasks.append(asyncio.create_task(self._run(command, process, program)))
        timeout_s = spec.timeout_s or self._default_timeout_s
        if timeout_s is not None:
            command.tasks.append(asyncio.create_task(self._time_out(command, timeout_s)))
        return command

    async def _run(self, command: Running, process: Process, program: Program) -> None:
        try:
            ending: Ending = Exited(code=await program(process))
        except EndsBySignal as end:
            ending = Signalled(signal=end.signal)
        except NotSimulated as lack:
            ending = Lost(reason=f"the mock does not simulate {lack}")
        except Exception as error:
            log.warning("mock.program_failed", extra={"command": command.id}, exc_info=error)
            ending = Lost(reason=f"the program of the mock's plan raised {error!r}")
        self._end(command, ending)

    async def _time_out(self, command: Running, timeout_s: float) -> None:
        await self._time.background_sleep(timeout_s)
        self._end(command, TimedOut(after_s=timeout_s))

    def _end(self, command: Running, ending: Ending) -> None:
        if command.ending is not None:
            return
        command.ending = command.wanted or ending
        command.ended_at = self._time.now()
        command.stdin.close("The command has ended.")
        command.ended.set()
        command.changed.set()
        current = asyncio.current_task()
        for task in command.tasks:
            if task is not current:
                task.cancel()
        command.tasks.clear()
        self._forget_old()

    # Looking

    async def wait(self, command: Running, timeout_s: float | None) -> Command:
        await self._time.wait(command.ended, timeout_s)
        return command.describe()

    def excerpt(self, command: Running, limit_bytes: int) -> CommandResult:
        """All of the output, or its first and its last half with a gap between."""
        if limit_bytes < 0:
            raise Rejected(f"output_limit_bytes cannot be {limit_bytes}.")
        start, end = command.output.start, command.output.end
        items: list[Output | Gap] = [Gap(start=0, end=start)] if start else []
        if end - start <= limit_bytes:
            items += self._read(command, start, end)
        else:
            head_end = start + limit_bytes // 2
            tail_start = end - (limit_bytes - limit_bytes // 2)
            items += self._read(command, start, head_end)
            items.append(Gap(start=head_end, end=tail_start))
            items += self._read(command, tail_start, end)
        return CommandResult(command=command.describe(), output=tuple(items))

    def _read(self, command: Running, start: int, end: int) -> Sequence[Output | Gap]:
        return list(command.output.read(after=start, end=end, limit_bytes=end - start)) if end > start else []

    async def read_output(self, command: Running, *, after: int, follow: bool) -> AsyncIterator[Output | Gap]:
        if after > command.output.end:
            raise Rejected(f"The command has written {command.output.end} bytes so far; there is no offset {after}.")
        offset, end, output = after, command.output.end, command.output
        reader = output.new_reader()
        if follow:
            output.reader_at(reader, offset)
        try:
            while True:
                while offset < end:
                    for piece in list(output.read(after=offset, end=end, limit_bytes=READ_BYTES)):
                        offset = piece.end
                        yield piece
                        if follow:
                            output.reader_at(reader, offset)
                if not follow or (command.ending is not None and offset >= output.end):
                    return
                command.changed.clear()
                if output.end == offset and command.ending is None:
                    await self._time.wait(command.changed)
                end = output.end
        finally:
            output.reader_gone(reader)

    # Ending

    def signal(self, command: Running, number: int) -> Command:
        """Raises: Rejected."""
        if number not in signals.valid_signals():
            raise Rejected(f"{number} is not the number of a signal.")
        ignored = number in command.ignores and number not in _NOT_TO_BE_IGNORED
        if command.ending is None and not ignored:
            if number in _STOPS:
                command.running.clear()
            elif number == signals.SIGCONT:
                command.running.set()
            elif number not in _HARMLESS:
                self._end(command, Signalled(signal=number))
        return command.describe()

    async def kill(self, command: Running, *, grace_s: float) -> Command:
        if command.ending is None:
            command.wanted = command.wanted or Killed()
            if grace_s > 0 and signals.SIGTERM in command.ignores:
                await self._time.wait(command.ended, grace_s)
            self._end(command, Killed())
        return command.describe()

    def lose(self, reason: str) -> None:
        """Who watched the commands is gone: nobody knows how those that ran have ended."""
        for command in list(self._commands.values()):
            self._end(command, Lost(reason=reason))

    def _forget_old(self) -> None:
        """The oldest ended logs go first, then the oldest ended commands."""
        ended = [command for command in self._commands.values() if command.ending is not None]
        total = sum(command.output.kept_bytes for command in self._commands.values())
        for command in ended:
            if total <= MAX_LOG_BYTES_IN_TOTAL:
                break
            total -= command.output.kept_bytes
            command.output.discard()
        for command in ended[: max(0, len(self._commands) - MAX_REMEMBERED)]:
            del self._commands[command.id]
