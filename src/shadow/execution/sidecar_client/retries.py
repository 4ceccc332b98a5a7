"""When a call is repeated and when it is given up: pure rules over times that others tell."""

from collections.abc import Callable
from dataclasses import dataclass, field

from shadow.execution.sidecar_client.breaker import BreakerPolicy

ANSWER_S = 60.0
NO_PROGRESS_S = 30.0

Randomness = Callable[[], float]
"""From 0 to below 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    waits_s: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Before each repeat; so many there are."""
    jitter: float = 0.0
    """Each wait is longer by up to this share of itself, so that many clients do not come back at the same instant."""

    def __post_init__(self) -> None:
        if not (all(wait_s >= 0 for wait_s in self.waits_s) and self.jitter >= 0):
            raise ValueError("waits and jitter cannot be below 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resilience:
    """How a client of a sidecar meets failures."""

    retries: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    answer_s: float = ANSWER_S
    """How long one answer may take, besides what the call itself waits for."""
    no_progress_s: float = NO_PROGRESS_S
    """How long a reader tries to resume before it gives up."""

    def __post_init__(self) -> None:
        if not self.answer_s > 0:
            raise ValueError("an answer takes longer than 0 s")


class Repeats:
    """The repeats that one call has left, until ``until`` on the caller's clock."""

    def __init__(self, policy: RetryPolicy, *, until: float, randomness: Randomness) -> None:
        self._waits = iter(policy.waits_s)
        self._jitter = policy.jitter
        self._randomness = randomness
        self.until = until

    def wait_s(self, *, now: float, asked_s: float = 0.0) -> float | None:
        """How long to wait before the next one, ``asked_s`` at least; ``None``: there is none, or it would come too late."""
        planned_s = next(self._waits, None)
        if planned_s is None:
            return None
        if self._jitter:
            planned_s *= 1 + self._jitter * self._randomness()
        wait_s = max(planned_s, asked_s)
        return wait_s if now + wait_s < self.until else None
