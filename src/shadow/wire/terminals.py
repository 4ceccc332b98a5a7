"""Terminals on the wire."""

from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from shadow.core.ids import ID_PATTERN, TerminalId, is_terminal_id
from shadow.core.terminals import (
    DEFAULT_LAG_BYTES,
    DEFAULT_SCROLLBACK_LINES,
    DEFAULT_TERMINAL_LOG_BYTES,
    MAX_CELLS_A_SIDE,
    MAX_SCROLLBACK_LINES,
    Terminal,
    TerminalSize,
    TerminalSpec,
)
from shadow.wire.commands import EndingMessage
from shadow.wire.message import LARGE_BODY_BYTES, Message
from shadow.wire.values import Environment, FsPath, Items, Offset, OsText


def _terminal_id(value: object) -> TerminalId:
    if not isinstance(value, str) or not is_terminal_id(value):
        raise ValueError("this is not the id of a terminal")
    return TerminalId(value)


WireTerminalId = Annotated[
    TerminalId, PlainValidator(_terminal_id), WithJsonSchema({"type": "string", "pattern": "^term_[a-z0-9_-]{0,59}$"})
]
WriterId = Annotated[str, Field(pattern=f"^{ID_PATTERN.pattern}$")]
"""Who types, by an id of its own making."""
_Cells = Annotated[int, Field(ge=1, le=MAX_CELLS_A_SIDE)]


class TerminalSizeMessage(Message, core=TerminalSize):
    columns: _Cells = 80
    rows: _Cells = 24


class TerminalSpecMessage(Message, core=TerminalSpec, body_limit_bytes=LARGE_BODY_BYTES):
    argv: Items[OsText] = ("bash",)
    cwd: FsPath = "."
    env: Environment = Field(default_factory=dict)
    size: TerminalSizeMessage = Field(default_factory=TerminalSizeMessage)
    log_limit_bytes: int = DEFAULT_TERMINAL_LOG_BYTES


class TerminalMessage(Message, core=Terminal):
    id: WireTerminalId
    argv: Items[OsText]
    cwd: FsPath
    size: TerminalSizeMessage
    pid: int | None
    started_at: float
    ended_at: float | None
    ending: EndingMessage | None
    output_start: Offset
    output_end: Offset
    output_closed: bool
    descendants: int
    survivors: Items[int] = ()


class TerminalListMessage(Message):
    terminals: Items[TerminalMessage]


class TypedMessage(Message):
    """How much a writer has typed in all."""

    accepted: Offset


class TypeQuery(Message):
    writer: WriterId
    offset: Offset = 0
    """Where the body begins in all that the writer types: what was taken already is skipped, so that a repeat is safe."""


class AttachQuery(Message):
    after: Offset | None = None
    """Go on from this offset; without it, from a fresh screen."""
    snapshots: bool = False
    """A snapshot of the screen after each gap."""
    scrollback_lines: int = Field(default=DEFAULT_SCROLLBACK_LINES, ge=0, le=MAX_SCROLLBACK_LINES)
    lag_bytes: Offset = DEFAULT_LAG_BYTES
    """Whoever is further behind is skipped ahead; 0: never."""
    writer: WriterId | None = None
    """Without it nothing can be typed."""
