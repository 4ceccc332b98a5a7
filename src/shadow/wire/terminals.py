"""Terminals on the wire."""

from typing import Annotated

from pydantic import Field, PlainValidator

from shadow.core.ids import TerminalId, is_terminal_id
from shadow.core.terminals import (
    DEFAULT_TERMINAL_LOG_BYTES,
    MAX_CELLS_A_SIDE,
    Terminal,
    TerminalSize,
    TerminalSpec,
)
from shadow.wire.commands import EndingMessage
from shadow.wire.message import Message
from shadow.wire.values import Environment, FsPath, Items, Offset, OsText


def _terminal_id(value: object) -> TerminalId:
    if not isinstance(value, str) or not is_terminal_id(value):
        raise ValueError("this is not the id of a terminal")
    return TerminalId(value)


WireTerminalId = Annotated[TerminalId, PlainValidator(_terminal_id)]
_Cells = Annotated[int, Field(ge=1, le=MAX_CELLS_A_SIDE)]


class TerminalSizeMessage(Message, core=TerminalSize):
    columns: _Cells = 80
    rows: _Cells = 24


class TerminalSpecMessage(Message, core=TerminalSpec):
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
