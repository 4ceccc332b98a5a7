"""When something is tried again: pure, but for ``insist``, which does it for writes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from shadow.core.errors import OutcomeUnknown, ShadowError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    attempts: int = 4
    """The first one included."""
    first_s: float = 0.5
    """The wait before the second attempt; it doubles each time."""
    most_s: float = 30.0

    def again(self, error: ShadowError, attempt: int) -> bool:
        """Whether to try once more after attempt number ``attempt``, from 1, failed so."""
        return error.repeat_is_safe and attempt < self.attempts

    def wait_s(self, attempt: int) -> float:
        """Before what follows attempt number ``attempt``."""
        return min(self.first_s * 2 ** min(attempt - 1, 32), self.most_s)


STEPS = RetryPolicy()
JOBS = RetryPolicy(attempts=100, first_s=2.0, most_s=300.0)
"""A job may have fewer attempts of its own."""
WRITES = RetryPolicy(attempts=10, first_s=0.05, most_s=5.0)


async def insist(write: Callable[[], Awaitable[Result]]) -> Result:
    """Do a write that may be done twice, also where an answer was lost. Raises: what its last attempt raised."""
    attempt = 1
    while True:
        try:
            return await write()
        except ShadowError as error:
            if not (WRITES.again(error, attempt) or (isinstance(error, OutcomeUnknown) and attempt < WRITES.attempts)):
                raise
        await asyncio.sleep(WRITES.wait_s(attempt))
        attempt += 1
