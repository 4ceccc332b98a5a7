"""The breaker against a model that keeps the whole history; the waits of repeats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from shadow.execution.sidecar_client.breaker import Breaker, BreakerPolicy, BreakerState, BreakerStatus
from shadow.execution.sidecar_client.retries import Repeats, RetryPolicy


class BreakerMachine(RuleBasedStateMachine):
    """The model: failures that count since the last answer, when the last of them opened it, and which probe is out."""

    tickets = Bundle("tickets")

    @initialize(failures=st.integers(1, 4), open_s=st.sampled_from([0.0, 1.0, 60.0]))
    def begin(self, failures: int, open_s: float) -> None:
        self.policy = BreakerPolicy(failures=failures, open_s=open_s)
        self.breaker = Breaker(self.policy)
        self.now = 1000.0
        self.counted = 0
        self.opened_at: float | None = None
        self.opens = 0
        self.probe: int | None = None
        self.stale: set[int] = set()
        """Calls that began before the state changed for the last time."""
        self.let_through: dict[int, int] = {}
        self.calls = 0

    def change(self) -> None:
        self.stale |= set(self.let_through)
        self.probe = None

    @rule(target=tickets)
    def call(self) -> int:
        ticket = self.breaker.admit(self.now)
        self.calls += 1
        due = self.opened_at is not None and self.now - self.opened_at >= self.policy.open_s and self.probe is None
        assert (ticket is not None) == (self.opened_at is None or due)
        if ticket is None:
            return -1
        if due:
            self.change()
            self.probe = self.calls
        self.let_through[self.calls] = ticket
        return self.calls

    @rule(call=tickets)
    def fails(self, call: int) -> None:
        if call not in self.let_through:
            return
        self.breaker.failed(self.let_through.pop(call), self.now)
        if call in self.stale:
            return
        self.counted += 1
        if call == self.probe or self.counted >= self.policy.failures:
            self.change()
            self.opened_at = self.now
            self.opens += 1

    @rule(call=tickets)
    def is_answered(self, call: int) -> None:
        if call not in self.let_through:
            return
        del self.let_through[call]
        self.breaker.answered()
        self.counted = 0
        if self.opened_at is not None:
            self.change()
            self.opened_at = None

    @rule(call=tickets)
    def is_cancelled(self, call: int) -> None:
        if call in self.let_through:
            self.breaker.left(self.let_through.pop(call))
            if call == self.probe:
                self.change()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 59.5, 60.0, 1e6]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def it_says_how_it_stands(self) -> None:
        if not hasattr(self, "breaker"):
            return
        state, retry_in_s = BreakerState.CLOSED, None
        if self.probe is not None:
            state = BreakerState.HALF_OPEN
        elif self.opened_at is not None:
            state, retry_in_s = BreakerState.OPEN, max(0.0, self.opened_at + self.policy.open_s - self.now)
        assert self.breaker.status(self.now) == BreakerStatus(
            state=state, failures=self.counted, opens=self.opens, retry_in_s=retry_in_s
        )


TestBreaker = BreakerMachine.TestCase


def test_five_failed_calls_open_it_for_a_minute() -> None:
    breaker = Breaker(BreakerPolicy())
    for _ in range(5):
        ticket = breaker.admit(0.0)
        assert ticket is not None
        breaker.failed(ticket, 10.0)
    assert breaker.admit(69.9) is None
    assert breaker.admit(70.0) is not None
    assert breaker.admit(70.0) is None  # one probe


@given(
    waits=st.lists(st.floats(0, 100), max_size=6),
    jitter=st.floats(0, 2),
    random=st.floats(0, 1, exclude_max=True),
    asked=st.lists(st.floats(0, 100), min_size=7, max_size=7),
    deadline=st.floats(0, 300),
)
def test_repeats_keep_their_number_their_waits_and_the_deadline(
    waits: list[float], jitter: float, random: float, asked: list[float], deadline: float
) -> None:
    policy = RetryPolicy(waits_s=tuple(waits), jitter=jitter)
    repeats = Repeats(policy, until=deadline, randomness=lambda: random)
    now, given = 0.0, 0
    for asked_s in asked:
        wait_s = repeats.wait_s(now=now, asked_s=asked_s)
        if wait_s is None:
            break
        assert max(waits[given], asked_s) <= wait_s <= max(waits[given] * (1 + jitter), asked_s)
        now += wait_s
        given += 1
        assert now < deadline
    assert given <= len(waits)


@pytest.mark.parametrize("wrong", [{"waits_s": (-1.0,)}, {"jitter": -0.1}, {"waits_s": (float("nan"),)}])
def test_waits_below_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="below 0"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"open_s": -1.0}, {"open_s": float("nan")}])
def test_a_breaker_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="breaker"):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]
