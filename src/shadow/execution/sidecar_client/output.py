"""Reading a command's output: resumed by offset after any cut, without a hole, without an end to patience."""

from collections.abc import AsyncGenerator, Callable

from shadow.core.commands import Gap, Output
from shadow.core.errors import Broken, Unavailable
from shadow.core.ids import CommandId
from shadow.execution.sidecar_client.transport import CutOff, NotSent, Sleep, Transport
from shadow.wire.commands import CommandMessage
from shadow.wire.errors import decode_error
from shadow.wire.frames import MEDIA_TYPE, End, Failure, FrameDecoder, FrameError, Heartbeat, Piece
from shadow.wire.message import parse_answer

NO_PROGRESS_S = 30.0
"""How long a reader tries to resume before it gives up."""
RESUME_WAITS_S = (0.05, 0.1, 0.2, 0.5, 1.0)


async def read_output(
    transport: Transport,
    command_id: CommandId,
    *,
    after: int,
    follow: bool,
    clock: Callable[[], float],
    sleep: Sleep,
) -> AsyncGenerator[Output | Gap]:
    """Raises: Unavailable: no sidecar answered for ``NO_PROGRESS_S``; Broken: what it sends makes no sense."""
    offset = after
    cuts = 0
    cut_at: float | None = None
    while True:
        try:
            query = {"after": offset, "follow": follow}
            async with transport.stream(f"/v1/commands/{command_id}/output", query, accept=MEDIA_TYPE) as content:
                decoder = FrameDecoder()
                while data := await content.readany():
                    for piece in _decode(decoder, data):
                        cut_at = None
                        match piece:
                            case Output() | Gap():
                                offset = _follow_on(offset, piece)
                                cuts = 0
                                yield piece
                            case End():
                                _check_end(piece, offset, command_id)
                                return
                            case Failure():
                                raise decode_error(piece.error)
                            case Heartbeat():
                                pass
            reason: Exception = CutOff("the stream stopped")
        except (NotSent, CutOff, Unavailable) as error:
            reason = error
        cut_at = clock() if cut_at is None else cut_at
        if clock() - cut_at >= NO_PROGRESS_S:
            raise Unavailable(
                f"The output of {command_id} cannot be read on from offset {offset}: {reason}.",
                mend="Read on from that offset later.",
                details={"offset": offset},
            ) from reason
        await sleep(RESUME_WAITS_S[min(cuts, len(RESUME_WAITS_S) - 1)])
        cuts += 1


def _decode(decoder: FrameDecoder, data: bytes) -> "list[Piece]":
    try:
        return list(decoder.feed(data))
    except FrameError as error:
        raise Broken(f"The sidecar's output stream cannot be understood: {error}.") from error


def _follow_on(offset: int, piece: Output | Gap) -> int:
    start = piece.start if isinstance(piece, Gap) else piece.offset
    if start != offset:
        raise Broken(f"The sidecar sent output from offset {start} where {offset} was next.")
    return piece.end


def _check_end(end: End, offset: int, command_id: CommandId) -> None:
    if end.offset != offset:
        raise Broken(f"The sidecar ended the output at offset {end.offset}; {offset} was reached.")
    if parse_answer(CommandMessage, end.command).id != command_id:
        raise Broken("The sidecar ended the output of another command.")
