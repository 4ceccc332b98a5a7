"""Terminals: what to start, how one stands, what a reader sees of it. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from shadow.core.commands import CommandSpec, Ending, check_spec
from shadow.core.errors import Denied, Rejected
from shadow.core.ids import TerminalId

DEFAULT_TERMINAL_LOG_BYTES = 16 * 1024 * 1024
DEFAULT_LAG_BYTES = 4 * 1024 * 1024
"""How far a reader may fall behind before it is skipped ahead."""
MAX_CELLS_A_SIDE = 1000
DEFAULT_SCROLLBACK_LINES = 1000
MAX_SCROLLBACK_LINES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """In character cells."""

    columns: int = 80
    rows: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSpec:
    """An interactive program on a PTY of its own, whose controlling terminal that is. ``TERM`` is set unless ``env`` has it."""

    argv: tuple[str, ...] = ("bash",)
    cwd: str = "."
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    size: TerminalSize = field(default_factory=TerminalSize)
    log_limit_bytes: int = DEFAULT_TERMINAL_LOG_BYTES
    """How much of what it showed is kept; the oldest goes first."""


def check_size(size: TerminalSize) -> None:
    """Raises: Rejected."""
    if not (1 <= size.columns <= MAX_CELLS_A_SIDE and 1 <= size.rows <= MAX_CELLS_A_SIDE):
        raise Rejected(
            f"A terminal has 1 to {MAX_CELLS_A_SIDE} columns and rows, not {size.columns} by {size.rows}.",
            mend="Give a size within that.",
        )


def check_terminal_spec(spec: TerminalSpec) -> None:
    """Raises: Rejected: with the first thing about ``spec`` that no system could run."""
    check_size(spec.size)
    check_spec(CommandSpec(argv=spec.argv, cwd=spec.cwd, env=spec.env, log_limit_bytes=spec.log_limit_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """How a terminal stands. Times are seconds since 1970, by the workspace's clock."""

    id: TerminalId
    argv: tuple[str, ...]
    """As started; what goes beyond 4096 characters is left out, with a last ``…`` in its place."""
    cwd: str
    size: TerminalSize
    pid: int | None
    """Of its session leader, in the workspace's pid namespace."""
    started_at: float
    ended_at: float | None
    ending: Ending | None
    """``None`` while its program runs."""
    output_start: int
    """Offset of the oldest byte that is still kept."""
    output_end: int
    output_closed: bool
    """Whether no process holds the PTY open any more."""
    descendants: int
    survivors: tuple[int, ...] = ()


def check_writes(read_only: bool) -> None:
    """Raises: Denied."""
    if read_only:
        raise Denied("This attachment only reads the terminal.", mend="Attach to it without `read_only`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalOutput:
    """Bytes that the program wrote, beginning at ``offset``. They may split a character or an escape sequence."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """From ``offset`` on the terminal has another size."""

    offset: int
    size: TerminalSize


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenSnapshot:
    """What a fresh emulator of ``size`` must be fed to look as the terminal did at ``offset``; output goes on from there."""

    offset: int
    size: TerminalSize
    data: bytes
    """Scrollback lines that were asked for, then both screens, cursor and modes, as text and escape sequences in UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalEnded:
    """The last thing that a reader sees: the program has ended, and everything that it had written by then came before."""

    offset: int
    terminal: Terminal
