"""Changes of files through a sidecar: watched anew after any cut, which is told, since what happened meanwhile is not known."""

from collections.abc import AsyncGenerator, Iterator

from shadow.core.errors import Broken, NotADirectory, NotFound, Unavailable
from shadow.core.watching import ChangesMissed, FileChanges, Watching
from shadow.execution.interface import WatchEvent
from shadow.execution.sidecar_client.files import check_paths
from shadow.execution.sidecar_client.output import RESUME_WAITS_S
from shadow.execution.sidecar_client.sender import Sender
from shadow.execution.sidecar_client.transport import CutOff, NotSent
from shadow.execution.streams import closing
from shadow.wire.errors import decode_error
from shadow.wire.message import parse_answer, to_core
from shadow.wire.server_sent import EVENTS, EventDecoder, EventStreamError
from shadow.wire.watching import ChangesMissedMessage, FileChangesMessage


class WatchClient(Sender):
    """The ``watch`` of ``ToolExecutor``."""

    async def watch(self, path: str = ".") -> AsyncGenerator[WatchEvent]:
        """Raises: Unavailable: no sidecar answered for ``Resilience.no_progress_s``."""
        with self.transport.admitted():
            async with closing(self._watched(path)) as events:
                async for event in events:
                    yield event

    async def _watched(self, path: str) -> AsyncGenerator[WatchEvent]:
        begun = False
        cuts, cut_at = 0, None
        while True:
            try:
                async with self.transport.stream("/v1/watch", {"path": path}, accept=EVENTS) as content:
                    decoder = EventDecoder()
                    while data := await content.readany():
                        self.transport.answered()
                        for event in _events(decoder, data):
                            cuts, cut_at = 0, None
                            if event is None:
                                return
                            if isinstance(event, Watching) and begun:
                                yield ChangesMissed(reason="a disconnect")
                            else:
                                yield event
                            begun = True
                reason: Exception = CutOff("the stream stopped")
            except (NotSent, CutOff, Unavailable) as error:
                reason = error
            except (NotFound, NotADirectory):
                if begun:
                    return  # it went while nobody saw it
                raise
            cut_at = self.clock() if cut_at is None else cut_at
            if self.clock() - cut_at >= self.transport.patience_s:
                raise Unavailable(
                    f"Changes below {path!a} cannot be told any more: {reason}.", mend="Watch it again later."
                ) from reason
            await self.sleep(RESUME_WAITS_S[min(cuts, len(RESUME_WAITS_S) - 1)])
            cuts += 1


def _events(decoder: EventDecoder, data: bytes) -> Iterator[WatchEvent | None]:
    """``None`` is the end. Raises: what the sidecar says went wrong; Broken."""
    try:
        for name, body in decoder.feed(data):
            match name:
                case "watching":
                    yield Watching()
                case "changes":
                    changes = to_core(parse_answer(FileChangesMessage, body), FileChanges)
                    check_paths(change.path for change in changes.changes)
                    check_paths(change.source for change in changes.changes if change.source is not None)
                    yield changes
                case "missed":
                    yield to_core(parse_answer(ChangesMissedMessage, body), ChangesMissed)
                case "end":
                    yield None
                case "error":
                    raise decode_error(body)
                case _:
                    pass  # from a newer sidecar
    except EventStreamError as error:
        raise Broken(f"The sidecar's changes cannot be understood: {error}.") from error
