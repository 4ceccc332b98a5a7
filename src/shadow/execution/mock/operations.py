"""Operations of a mocked workspace: a repeat gets the first result, an older epoch is refused."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from shadow.core.errors import Conflict, StaleEpoch
from shadow.core.ids import Operation, OperationId

MAX_OPERATIONS = 10_000

T = TypeVar("T")


class Operations:
    """Remembers the newest ``MAX_OPERATIONS``. What failed was not done, so that a repeat may try again."""

    def __init__(self, *, epoch: int) -> None:
        self.epoch = epoch
        self._done: OrderedDict[OperationId, tuple[str, asyncio.Future[Any]]] = OrderedDict()

    def check_epoch(self, epoch: int) -> None:
        """Adopt a newer epoch. Raises: StaleEpoch."""
        if epoch < self.epoch:
            raise StaleEpoch(
                f"The call carries epoch {epoch}, the workspace is at {self.epoch}: somebody has taken over.",
                mend="Attach again.",
                details={"epoch": self.epoch},
            )
        self.epoch = epoch

    async def once(self, operation: Operation, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Do ``action`` unless this operation was done. Raises: StaleEpoch, Conflict: the id was used for another call."""
        self.check_epoch(operation.epoch)
        known = self._done.get(operation.id)
        if known is None:
            known = self._done[operation.id] = (what, asyncio.ensure_future(action()))
            known[1].add_done_callback(lambda done: self._finished(operation.id, done))
        elif known[0] != what:
            raise Conflict(f"Operation {operation.id} is a {known[0]!r} already; it cannot be a {what!r} too.")
        # Once begun it is finished, whether or not the caller still waits.
        return await asyncio.shield(known[1])

    def _finished(self, operation_id: OperationId, done: "asyncio.Future[Any]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._done.pop(operation_id, None)
        while len(self._done) > MAX_OPERATIONS:
            self._done.popitem(last=False)
