"""Commands on the wire."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, PlainSerializer, PlainValidator, Tag

from shadow.core.commands import (
    DEFAULT_LOG_LIMIT_BYTES,
    Channel,
    Command,
    CommandResult,
    CommandSpec,
    Exited,
    Gap,
    Killed,
    LimitReached,
    Lost,
    Output,
    Overflow,
    Signalled,
    StdinMode,
    TimedOut,
)
from shadow.core.ids import CommandId, is_id
from shadow.core.limits import LimitKind
from shadow.wire.message import Message
from shadow.wire.values import Blob, Environment, FsPath, Items, Offset, OsText


def _command_id(value: object) -> CommandId:
    if not isinstance(value, str) or not is_id(value):
        raise ValueError("this is not an id")
    return CommandId(value)


def _channel(value: object) -> Channel:
    if isinstance(value, Channel):
        return value
    if value == "stdout":
        return Channel.STDOUT
    if value == "stderr":
        return Channel.STDERR
    raise ValueError("stdout or stderr was expected")


def _channel_json(value: Channel) -> str:
    return "stdout" if value is Channel.STDOUT else "stderr"


WireCommandId = Annotated[CommandId, PlainValidator(_command_id)]
WireChannel = Annotated[Channel, PlainValidator(_channel), PlainSerializer(_channel_json, when_used="json")]


class CommandSpecMessage(Message, core=CommandSpec):
    argv: Items[OsText]
    cwd: FsPath = "."
    env: Environment = Field(default_factory=dict)
    stdin: StdinMode = StdinMode.CLOSED
    timeout_s: float | None = None
    log_limit_bytes: int = DEFAULT_LOG_LIMIT_BYTES
    overflow: Overflow = Overflow.DROP_OLDEST


class ExitedMessage(Message, core=Exited):
    kind: Literal["exited"] = "exited"
    code: int


class SignalledMessage(Message, core=Signalled):
    kind: Literal["signalled"] = "signalled"
    signal: int


class TimedOutMessage(Message, core=TimedOut):
    kind: Literal["timed_out"] = "timed_out"
    after_s: float


class KilledMessage(Message, core=Killed):
    kind: Literal["killed"] = "killed"


class LimitReachedMessage(Message, core=LimitReached):
    kind: Literal["limit_exceeded"] = "limit_exceeded"
    limit: LimitKind


class LostMessage(Message, core=Lost):
    kind: Literal["lost"] = "lost"
    reason: str


EndingMessage = Annotated[
    ExitedMessage | SignalledMessage | TimedOutMessage | KilledMessage | LimitReachedMessage | LostMessage,
    Field(discriminator="kind"),
]


class CommandMessage(Message, core=Command):
    id: WireCommandId
    argv: Items[OsText]
    cwd: FsPath
    pid: int | None
    started_at: float
    ended_at: float | None
    ending: EndingMessage | None
    output_start: Offset
    output_end: Offset
    output_closed: bool
    stdin_accepted: Offset
    descendants: int
    survivors: Items[int] = ()


class CommandListMessage(Message):
    commands: Items[CommandMessage]


class OutputMessage(Message, core=Output):
    kind: Literal["output"] = "output"
    offset: Offset
    channel: WireChannel
    data: Blob


class GapMessage(Message, core=Gap):
    kind: Literal["gap"] = "gap"
    start: Offset
    end: Offset


def _piece_kind(value: object) -> str | None:
    if isinstance(value, dict):
        return value.get("kind")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return "gap" if isinstance(value, Gap | GapMessage) else "output"


class CommandResultMessage(Message, core=CommandResult):
    command: CommandMessage
    output: Items[
        Annotated[
            Annotated[OutputMessage, Tag("output")] | Annotated[GapMessage, Tag("gap")], Discriminator(_piece_kind)
        ]
    ]


class StdinMessage(Message):
    """``done`` is false where the pipe stayed full for the length of a wait: send the rest from ``accepted``."""

    accepted: Offset
    done: bool = True


class SignalMessage(Message):
    signal: int = Field(ge=1, le=64)


class KillMessage(Message):
    grace_s: float = Field(default=0.0, ge=0)
