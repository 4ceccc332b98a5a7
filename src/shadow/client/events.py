"""A task's log as it grows: one WebSocket after another, each from the number that the last one reached."""

from collections.abc import AsyncGenerator, Callable
from urllib.parse import quote

from pydantic_core import from_json

from shadow.core.errors import Broken, LimitExceeded, Unavailable
from shadow.core.events import Recorded
from shadow.core.tasks import TaskId
from shadow.execution.sidecar_client.transport import CutOff, NotSent, Sleep, Transport
from shadow.wire.errors import decode_error
from shadow.wire.events import decode_recorded

WAITS_S = (0.1, 0.2, 0.5, 1.0, 2.0)
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


async def follow(
    transport: Transport,
    task_id: TaskId,
    *,
    after: int,
    until_rest: bool,
    patience_s: float | None,
    sleep: Sleep,
    clock: Callable[[], float],
) -> AsyncGenerator[Recorded]:
    """As ``Shadow.events``."""
    path = f"/v1/tasks/{quote(task_id, safe='')}/events/attach"
    cuts, cut_at = 0, None
    while True:
        try:
            async with transport.websocket(
                path, {"after": after, "until_rest": until_rest}, limit_bytes=MAX_MESSAGE_BYTES
            ) as socket:
                while (text := await socket.receive_text()) is not None:
                    recorded = _recorded(text, after=after)
                    after, cuts, cut_at = recorded.seq, 0, None
                    yield recorded
                return
        except (NotSent, CutOff, Unavailable, LimitExceeded) as error:
            cut_at = clock() if cut_at is None else cut_at
            if patience_s is not None and clock() - cut_at >= patience_s:
                raise Unavailable(
                    f"The log of {task_id} cannot be followed any more: {error}.",
                    mend=f"Follow it again later, from event {after} on.",
                    details={"after": after},
                ) from error
        await sleep(WAITS_S[min(cuts, len(WAITS_S) - 1)])
        cuts += 1


def _recorded(text: str, *, after: int) -> Recorded:
    """Raises: what the server tells; Broken: it makes no sense."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise Broken("The server sent what is no event.") from error
    if isinstance(value, dict) and "error" in value:
        raise decode_error(text.encode())
    recorded = decode_recorded(value)
    if recorded.seq != after + 1:
        raise Broken(f"The server sent event {recorded.seq} where {after + 1} was next.")
    return recorded
