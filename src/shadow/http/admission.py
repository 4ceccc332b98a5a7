"""How many requests and streams a service takes on, and how fast: who is too many is told to come again. No I/O."""

import math
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, Field

from shadow.core.errors import LimitExceeded

Clock = Callable[[], float]

FULL_RETRY_S = 1.0
"""When to come again where it is not the rate."""


class HttpLimits(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_s: float = Field(default=2000, gt=0)
    burst: int = Field(default=4000, ge=1)
    """How many requests may come at once after a quiet time."""
    requests: int = Field(default=512, ge=1)
    """That wait for their answers at once; streams are counted apart."""
    streams: int = Field(default=1024, ge=1)
    """Outputs, downloads and terminals that are open at once."""
    connections: int = Field(default=2048, ge=1)
    header_bytes: int = Field(default=64 * 1024, ge=1024)
    """The first line counts too."""
    headers: int = Field(default=100, ge=1)
    head_time_s: float = Field(default=10, gt=0)
    """From a connection, or the first byte of a next request on it, to the end of the headers."""
    body_pause_s: float = Field(default=30, gt=0)
    """How long a body may keep us waiting. What it waited is made good by what then comes, a second for each"""
    body_bytes_per_s: int = Field(default=1024, ge=1)
    """of these: no body is slower for long."""
    keep_alive_s: float = Field(default=75, gt=0)
    """How long a connection may rest between requests."""
    grace_s: float = Field(default=3, gt=0)
    """How long answers that were begun may take once the service is told to stop. What waits is ended at once."""


class Busy(Exception):
    """Nothing was done. A failure of its own, so that no handler takes it for the outcome of its call."""

    def __init__(self, error: LimitExceeded, retry_after_s: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_after_s = retry_after_s


class TokenBucket:
    def __init__(self, *, rate_per_s: float, burst: int, clock: Clock) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> float:
        """0 where there was a token; else how many seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate_per_s)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate_per_s


class Admission:
    def __init__(self, limits: HttpLimits, *, clock: Clock) -> None:
        self._limits = limits
        self._bucket = TokenBucket(rate_per_s=limits.requests_per_s, burst=limits.burst, clock=clock)
        self._active = 0
        self.streams = 0
        self.refused = Counter[str]()

    @property
    def requests(self) -> int:
        return self._active - self.streams

    @contextmanager
    def request(self) -> Generator[None]:
        """Raises: Busy."""
        wait_s = self._bucket.take()
        if wait_s:
            raise self._busy("rate", wait_s, f"More than {self._limits.requests_per_s:g} requests a second.")
        if self.requests >= self._limits.requests:
            raise self._busy("requests", FULL_RETRY_S, f"{self.requests} requests are being served.")
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    @contextmanager
    def stream(self) -> Generator[None]:
        """A request that turned out to be a stream. Raises: Busy."""
        if self.streams >= self._limits.streams:
            raise self._busy("streams", FULL_RETRY_S, f"{self.streams} streams are open.")
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def _busy(self, limit: str, wait_s: float, told: str) -> Busy:
        self.refused[limit] += 1
        seconds = math.ceil(wait_s)
        details = {"limit": limit, "retry_after_s": seconds}
        return Busy(LimitExceeded(told, mend=f"Nothing was done: repeat it in {seconds} s.", details=details), seconds)
