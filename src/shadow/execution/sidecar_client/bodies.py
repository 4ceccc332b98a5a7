"""Bodies of requests: bytes, which can be sent again, and streams, which cannot once they have begun."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable

SLICE_BYTES = 256 * 1024
SLICE_DEADLINE_S = 60.0
"""How long the other side may take to accept one slice."""


class Body(ABC):
    @property
    @abstractmethod
    def length(self) -> int | None: ...

    @property
    @abstractmethod
    def can_be_sent_again(self) -> bool: ...

    @property
    @abstractmethod
    def incomplete(self) -> bool:
        """Whether surely not all of it was sent."""

    @property
    def failure(self) -> Exception | None:
        """What the source of the body raised."""
        return None

    @abstractmethod
    def pieces(
        self, deadline: asyncio.Timeout, *, answer_s: float, left_s: float
    ) -> AsyncGenerator[bytes | memoryview]:
        """What to send. Moves ``deadline`` on with each slice that is taken; after the last, the answer has ``answer_s``.

        ``left_s``: for all of it, where its length is known.
        """


class BytesBody(Body):
    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def length(self) -> int:
        return len(self.data)

    @property
    def can_be_sent_again(self) -> bool:
        return True

    @property
    def incomplete(self) -> bool:
        return False

    async def pieces(
        self, deadline: asyncio.Timeout, *, answer_s: float, left_s: float
    ) -> AsyncGenerator[bytes | memoryview]:
        view = memoryview(self.data)
        latest = asyncio.get_running_loop().time() + left_s
        for start in range(0, len(view), SLICE_BYTES):
            _move(deadline, SLICE_DEADLINE_S, latest=latest)
            yield view[start : start + SLICE_BYTES]
        _move(deadline, answer_s, latest=latest)


class StreamBody(Body):
    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self._begun = False
        self._finished = False
        self._failure: Exception | None = None

    @property
    def length(self) -> None:
        return None

    @property
    def can_be_sent_again(self) -> bool:
        return not self._begun

    @property
    def incomplete(self) -> bool:
        return not self._finished

    @property
    def failure(self) -> Exception | None:
        return self._failure

    async def pieces(
        self, deadline: asyncio.Timeout, *, answer_s: float, left_s: float
    ) -> AsyncGenerator[bytes | memoryview]:
        self._begun = True
        _move(deadline, None)  # how long the source takes is its owner's affair
        try:
            async for piece in self._source:
                view = memoryview(piece)
                for start in range(0, len(view), SLICE_BYTES):
                    _move(deadline, SLICE_DEADLINE_S)
                    yield view[start : start + SLICE_BYTES]
                _move(deadline, None)
        except Exception as error:
            self._failure = error
            raise
        self._finished = True
        _move(deadline, answer_s)


def _move(deadline: asyncio.Timeout, seconds: float | None, *, latest: float = math.inf) -> None:
    if not deadline.expired():
        at = None if seconds is None else min(asyncio.get_running_loop().time() + seconds, latest)
        deadline.reschedule(at)
