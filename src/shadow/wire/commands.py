"""Commands on the wire."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, PlainSerializer, PlainValidator, Tag, WithJsonSchema

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
from shadow.core.ids import ID_PATTERN, CommandId, is_id
from shadow.core.limits import LimitKind
from shadow.wire.message import LARGE_BODY_BYTES, Message
from shadow.wire.values import Blob, Environment, FsPath, Items, Offset, OsText, WaitSeconds


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


WireCommandId = Annotated[
    CommandId, PlainValidator(_command_id), WithJsonSchema({"type": "string", "pattern": f"^{ID_PATTERN.pattern}$"})
]
WireChannel = Annotated[
    Channel,
    PlainValidator(_channel),
    PlainSerializer(_channel_json, when_used="json"),
    WithJsonSchema({"enum": ["stdout", "stderr"]}),
]


class CommandSpecMessage(Message, core=CommandSpec, body_limit_bytes=LARGE_BODY_BYTES):
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


MAX_OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024


class StartQuery(Message):
    wait_s: WaitSeconds | None = None
    """Wait so long for the end and answer with the output too; longer waits are cut to 60."""
    output_limit_bytes: int = Field(default=1024 * 1024, ge=0, le=MAX_OUTPUT_LIMIT_BYTES)
    """Of output in the answer; of more the middle is left out."""


class WaitQuery(Message):
    timeout_s: WaitSeconds | None = None
    """Longer waits are cut to 60, which is also the default."""


class OutputQuery(Message):
    after: Offset = 0
    follow: bool = True
    """Go on until the command has ended, instead of stopping at what is there now."""


class StdinQuery(Message):
    offset: Offset | None = None
    """Where the body begins in the whole of stdin: what was accepted already is skipped, so that a repeat is safe."""
    close: bool = False
    """Close stdin after it."""


class StdinMessage(Message):
    """``done`` is false where the pipe stayed full for the length of a wait: send the rest from ``accepted``."""

    accepted: Offset
    done: bool = True


class SignalMessage(Message):
    signal: int = Field(ge=1, le=64)


class KillMessage(Message):
    grace_s: float = Field(default=0.0, ge=0)
