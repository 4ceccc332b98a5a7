"""Commands: what to start, how it stands, how it ended. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Literal

from shadow.core.errors import Rejected
from shadow.core.ids import CommandId

DEFAULT_LOG_LIMIT_BYTES = 64 * 1024 * 1024
MIN_LOG_LIMIT_BYTES = 64 * 1024
MAX_LOG_LIMIT_BYTES = 4 * 1024 * 1024 * 1024
MAX_ARGUMENT_BYTES = 128 * 1024 - 1  # MAX_ARG_STRLEN of the kernel, less the final NUL
MAX_ARGUMENTS_BYTES = 6 * 1024 * 1024
"""All arguments and variables together: what the kernel takes at most, three quarters of 8 MiB, whatever the stack's limit."""
MAX_SHOWN_ARGV = 4096
MAX_TIMEOUT_S = 30 * 24 * 3600.0


class Channel(IntEnum):
    """Where a byte of a command's log came from."""

    STDOUT = 1
    STDERR = 2


class Overflow(StrEnum):
    """What happens when a command's log is full."""

    DROP_OLDEST = "drop_oldest"
    """The oldest bytes go; who reads them later gets an explicit gap."""
    WAIT = "wait"
    """The command is held back while a reader follows; one that made no progress for 10 s no longer counts."""


class StdinMode(StrEnum):
    CLOSED = "closed"
    """The command reads end-of-file at once."""
    OPEN = "open"
    """``write_stdin`` feeds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """What to start. ``argv[0]`` is looked up in the command's own ``PATH``; nothing is interpreted by a shell."""

    argv: tuple[str, ...]
    cwd: str = "."
    """Beneath the workspace's root."""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Added to the workspace's base environment."""
    stdin: StdinMode = StdinMode.CLOSED
    timeout_s: float | None = None
    """From the start to the end of the command; then its whole tree is ended."""
    log_limit_bytes: int = DEFAULT_LOG_LIMIT_BYTES
    overflow: Overflow = Overflow.DROP_OLDEST


def shell(line: str) -> tuple[str, ...]:
    """The argv that runs a shell line."""
    return ("bash", "-c", line)


def shown_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    """``argv`` for a description, which is kept and sent many times: a bounded beginning of it."""
    room = MAX_SHOWN_ARGV
    shown: list[str] = []
    for argument in argv:
        if len(argument) > room:
            return (*shown, argument[:room] + "…")
        shown.append(argument)
        room -= max(1, len(argument))
    return tuple(shown)


def size_bytes(text: str) -> int:
    """Of an argument or a variable as a process gets it. Raises: Rejected: no process can."""
    try:
        return len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise Rejected(f"{text[:80]!a} cannot be given to a process: it holds half a character.") from error


def check_spec(spec: CommandSpec) -> None:
    """Raises: Rejected: with the first thing about ``spec`` that no system could run."""
    if not spec.argv or not spec.argv[0]:
        raise Rejected("The command is empty.", mend="Give at least the name of a program.")
    texts = (*spec.argv, spec.cwd, *spec.env.keys(), *spec.env.values())
    if sum(map(len, texts)) > MAX_ARGUMENTS_BYTES:
        raise Rejected(
            f"The arguments and variables are larger than {MAX_ARGUMENTS_BYTES} bytes together.",
            mend="Write them to a file or send them on stdin.",
        )
    for text in texts:
        if "\0" in text:
            raise Rejected("A command's arguments, directory and environment cannot hold NUL characters.")
        if len(text) > MAX_ARGUMENT_BYTES or size_bytes(text) > MAX_ARGUMENT_BYTES:
            raise Rejected(
                f"One argument or variable is longer than {MAX_ARGUMENT_BYTES} bytes.",
                mend="Write it to a file or send it on stdin.",
            )
    for name in spec.env:
        if not name or "=" in name:
            raise Rejected(f"{name!r} cannot be the name of an environment variable.")
    if spec.timeout_s is not None and not 0 < spec.timeout_s <= MAX_TIMEOUT_S:
        raise Rejected(f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:.0f}, not {spec.timeout_s}.")
    if not MIN_LOG_LIMIT_BYTES <= spec.log_limit_bytes <= MAX_LOG_LIMIT_BYTES:
        raise Rejected(
            f"log_limit_bytes must lie between {MIN_LOG_LIMIT_BYTES} and {MAX_LOG_LIMIT_BYTES}, not {spec.log_limit_bytes}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    code: int
    kind: Literal["exited"] = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signalled:
    signal: int
    kind: Literal["signalled"] = "signalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    after_s: float
    kind: Literal["timed_out"] = "timed_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """Ended by ``kill``."""

    kind: Literal["killed"] = "killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Nobody can know how it ended: who watched it (the holder, the pod, the host) is gone."""

    reason: str
    kind: Literal["lost"] = "lost"


Ending = Exited | Signalled | TimedOut | Killed | Lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a command stands. Times are seconds since 1970, by the workspace's clock."""

    id: CommandId
    argv: tuple[str, ...]
    """As started; what goes beyond 4096 characters is left out, with a last ``…`` in its place."""
    cwd: str
    pid: int | None
    """In the workspace's pid namespace."""
    started_at: float
    ended_at: float | None
    ending: Ending | None
    """``None`` while it runs."""
    output_start: int
    """Offset of the oldest byte that is still kept."""
    output_end: int
    """Offset after the newest byte; grows after the end if a descendant still writes."""
    output_closed: bool
    """Whether no process holds the output open any more."""
    stdin_accepted: int
    """How many bytes of stdin the command's pipe has taken."""
    descendants: int
    """How many processes of its tree were alive when this was asked (the child itself included)."""
    survivors: tuple[int, ...] = ()
    """Pids that outlived a kill: in practice processes stuck in the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes of a command's log: ``data`` begins at ``offset``. Both channels share one sequence of offsets."""

    offset: int
    channel: Channel
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The bytes ``[start, end)`` are gone: the log was full."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """A finished (or still running, after ``run`` gave up waiting) command and the output that was asked for."""

    command: Command
    output: tuple[Output | Gap, ...]
    """In order. The middle is left out, as a ``Gap``, where the output was larger than asked for; ``read_output`` has it all."""

    @property
    def ending(self) -> Ending | None:
        return self.command.ending

    @property
    def exit_code(self) -> int | None:
        """The code of a command that exited by itself, else ``None``."""
        return self.command.ending.code if isinstance(self.command.ending, Exited) else None

    @property
    def stdout(self) -> bytes:
        return b"".join(o.data for o in self.output if isinstance(o, Output) and o.channel is Channel.STDOUT)

    @property
    def stderr(self) -> bytes:
        return b"".join(o.data for o in self.output if isinstance(o, Output) and o.channel is Channel.STDERR)

    @property
    def complete(self) -> bool:
        """Whether ``output`` is all that the command wrote up to its end."""
        return not any(isinstance(o, Gap) for o in self.output)
