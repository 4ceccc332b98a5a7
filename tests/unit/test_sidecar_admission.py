"""How many requests the sidecar takes on: the bucket, and what is open at once."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.http.admission import Admission, Busy, HttpLimits, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.integers(1, 1000),
    burst=st.integers(1, 50),
    steps=st.lists(st.floats(-1, 5, allow_nan=False), max_size=200),
)
def test_no_more_than_the_burst_and_what_time_brings_gets_through(rate: int, burst: int, steps: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate_per_s=rate, burst=burst, clock=clock)
    taken, passed = 0, 0.0
    for step in steps:
        clock.now += step  # a clock that goes back gives nothing
        passed += max(0.0, step)
        if bucket.take() == 0:
            taken += 1
        assert taken <= burst + passed * rate + 1e-6


@given(rate=st.integers(1, 1000), burst=st.integers(1, 50))
def test_who_comes_again_when_told_gets_through(rate: int, burst: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate_per_s=rate, burst=burst, clock=clock)
    assert [bucket.take() for _ in range(burst)] == [0] * burst
    wait_s = bucket.take()
    assert 0 < wait_s <= 1 / rate
    clock.now += wait_s * 1.001
    assert bucket.take() == 0


def test_requests_and_streams_are_counted_apart() -> None:
    admission = Admission(HttpLimits(requests=2, streams=3), clock=Clock())
    with ExitStack() as open_:
        for _ in range(3):
            open_.enter_context(admission.request())
            open_.enter_context(admission.stream())
        open_.enter_context(admission.request())
        with admission.request():
            assert (admission.requests, admission.streams) == (2, 3)
            with pytest.raises(Busy) as raised, admission.request():
                pass
            assert raised.value.error.details == {"limit": "requests", "retry_after_s": 1}
            with pytest.raises(Busy) as raised, admission.stream():
                pass
            assert raised.value.error.details["limit"] == "streams"
    assert (admission.requests, admission.streams) == (0, 0)
    assert admission.refused == {"requests": 1, "streams": 1}


def test_too_fast_is_told_how_long_to_wait() -> None:
    admission = Admission(HttpLimits(requests_per_s=0.1, burst=1), clock=Clock())
    with admission.request():
        pass
    with pytest.raises(Busy) as raised, admission.request():
        pass
    assert raised.value.retry_after_s == 10
    assert raised.value.error.code == "limit_exceeded"
