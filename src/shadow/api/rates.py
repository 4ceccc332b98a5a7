"""How fast one user, or one address, may ask: each server counts for itself. No I/O."""

import math
from collections import OrderedDict

from shadow.core.errors import LimitExceeded
from shadow.http.admission import Busy, Clock, TokenBucket

MAX_BUCKETS = 10_000
"""Who has not asked for the longest is forgotten first: a bucket that rests that long is full again in all but a flood."""


class Rates:
    def __init__(self, limit: str, *, rate_per_s: float, burst: int, clock: Clock) -> None:
        self._limit = limit
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._buckets = OrderedDict[str, TokenBucket]()

    def take(self, of: str) -> None:
        """Raises: Busy."""
        bucket = self._buckets.get(of)
        if bucket is None:
            bucket = TokenBucket(rate_per_s=self._rate_per_s, burst=self._burst, clock=self._clock)
            self._buckets[of] = bucket
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(of)
        wait_s = bucket.take()
        if wait_s:
            seconds = math.ceil(wait_s)
            details = {"limit": self._limit, "retry_after_s": seconds}
            told = f"Too many at once: {self._rate_per_s:g} a second are taken from one, after a first {self._burst}."
            mend = f"Nothing was done: repeat it in {seconds} s."
            raise Busy(LimitExceeded(told, mend=mend, details=details), seconds)
