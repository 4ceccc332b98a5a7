"""The circuit breaker of one sidecar: pure, fed with what came of calls and with the time.

Calls go through while it is closed. So many failed calls in a row open it: then calls fail at once, for a while. After that
one call is let through as a probe, half-open; its end decides. An answer always closes it, whoever it came to: somebody is
there. What failed that began before the last change of state says nothing any more.
"""

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    failures: int = 5
    """So many failed calls in a row open it; a call with its repeats counts once."""
    open_s: float = 60.0
    """How long it stays open before a probe."""

    def __post_init__(self) -> None:
        if self.failures < 1 or not self.open_s >= 0:
            raise ValueError("a breaker opens after 1 failure or more, for 0 s or longer")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatus:
    state: BreakerState
    failures: int
    """Failed calls since the last answer."""
    opens: int
    """How often it has opened so far, after failed probes too."""
    retry_in_s: float | None
    """Until the next probe may go; ``None`` where calls go through, or a probe is out."""


class Breaker:
    """Times are seconds of one monotonic clock."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._opens = 0
        self._probe_at = 0.0
        self._turn = 0
        """Grows with each change of state; who was let through carries it as a ticket."""

    def admit(self, now: float) -> int | None:
        """A ticket for one call, to be told of with ``failed``, ``answered`` or ``left``; ``None``: not now."""
        if self._state is BreakerState.OPEN and now >= self._probe_at:
            self._change(BreakerState.HALF_OPEN)
            return self._turn
        return self._turn if self._state is BreakerState.CLOSED else None

    def answered(self) -> None:
        self._failures = 0
        if self._state is not BreakerState.CLOSED:
            self._change(BreakerState.CLOSED)

    def failed(self, ticket: int, now: float) -> None:
        if ticket != self._turn:
            return
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN or self._failures >= self._policy.failures:
            self._opens += 1
            self._probe_at = now + self._policy.open_s
            self._change(BreakerState.OPEN)

    def left(self, ticket: int) -> None:
        """The caller gave up before anything came of it: a probe that tells nothing makes room for the next."""
        if ticket == self._turn and self._state is BreakerState.HALF_OPEN:
            self._change(BreakerState.OPEN)

    def try_soon(self, now: float) -> None:
        """The next call is let through as a probe, without a wait: there is reason to believe that things have changed."""
        self._probe_at = min(self._probe_at, now)

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def opens(self) -> int:
        """How often it has opened so far, after failed probes too."""
        return self._opens

    def status(self, now: float) -> BreakerStatus:
        return BreakerStatus(
            state=self._state,
            failures=self._failures,
            opens=self._opens,
            retry_in_s=max(0.0, self._probe_at - now) if self._state is BreakerState.OPEN else None,
        )

    def _change(self, state: BreakerState) -> None:
        self._state = state
        self._turn += 1
