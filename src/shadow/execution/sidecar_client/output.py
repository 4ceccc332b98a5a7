"""Reading a command's output: resumed by offset after any cut, without a hole, without an end to patience."""

from collections.abc import AsyncGenerator, Callable, Iterator

from shadow.core.commands import Gap, Output
from shadow.core.errors import Broken, LimitExceeded, Unavailable
from shadow.core.ids import CommandId
from shadow.execution.sidecar_client.answers import asked_wait_s
from shadow.execution.sidecar_client.retries import NO_PROGRESS_S
from shadow.execution.sidecar_client.transport import CutOff, NotSent, Sleep, Transport
from shadow.wire.commands import CommandMessage
from shadow.wire.errors import decode_error
from shadow.wire.frames import MEDIA_TYPE, End, Failure, FrameDecoder, FrameError, Heartbeat, Piece
from shadow.wire.message import parse_answer

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
    """Raises: Unavailable: nobody answered for ``no_progress_s``, or the breaker is open; Broken: it makes no sense."""
    path = f"/v1/commands/{command_id}/output"
    offset = after
    cuts = 0
    cut_at: float | None = None
    with transport.admitted():
        while True:
            try:
                async with transport.stream(path, {"after": offset, "follow": follow}, accept=MEDIA_TYPE) as content:
                    decoder = FrameDecoder()
                    while data := await content.readany():
                        for piece in _told(decoder, data):
                            transport.answered()
                            cut_at = None
                            if isinstance(piece, End):
                                _check_end(piece, offset, command_id)
                                return
                            if isinstance(piece, Output | Gap):
                                offset = _follow_on(offset, piece)
                                cuts = 0
                                yield piece
                reason: Exception = CutOff("the stream stopped")
            except (NotSent, CutOff, Unavailable, LimitExceeded) as error:
                if isinstance(error, LimitExceeded) and asked_wait_s(error) is None:
                    raise
                reason = error
            cut_at = clock() if cut_at is None else cut_at
            if clock() - cut_at >= transport.patience_s:
                raise _given_up(command_id, offset, reason) from reason
            await sleep(max(RESUME_WAITS_S[min(cuts, len(RESUME_WAITS_S) - 1)], _asked(reason)))
            cuts += 1


def _told(decoder: FrameDecoder, data: bytes) -> Iterator[Output | Gap | End | Heartbeat]:
    for piece in _decode(decoder, data):
        if isinstance(piece, Failure):
            raise decode_error(piece.error)
        yield piece


def _given_up(command_id: CommandId, offset: int, reason: Exception) -> Unavailable:
    return Unavailable(
        f"The output of {command_id} cannot be read on from offset {offset}: {reason}.",
        mend="Read on from that offset later.",
        details={"offset": offset},
    )


def _asked(reason: Exception) -> float:
    return min(asked_wait_s(reason) or 0.0, NO_PROGRESS_S)


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
