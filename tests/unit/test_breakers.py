"""One breaker for each workspace of a process, a bounded number of them."""

from hypothesis import given
from hypothesis import strategies as st

from shadow.core.ids import WorkspaceId
from shadow.execution.sidecar_client.breaker import BreakerPolicy, BreakerState
from shadow.execution.sidecar_client.breakers import Breakers

A, B, C = (WorkspaceId(f"ws_{letter}") for letter in "abc")


def fail(breakers: Breakers, workspace_id: WorkspaceId, *, now: float = 0.0) -> None:
    breaker = breakers.of(workspace_id)
    ticket = breaker.admit(now)
    assert ticket is not None
    breaker.failed(ticket, now)


def test_whoever_attaches_to_a_workspace_shares_its_breaker_and_no_other() -> None:
    breakers = Breakers(BreakerPolicy(failures=2))
    fail(breakers, A)
    fail(breakers, A)
    assert breakers.of(A).admit(1.0) is None
    assert breakers.of(B).admit(1.0) is not None
    assert breakers.by_state() == {BreakerState.CLOSED: 1, BreakerState.OPEN: 1, BreakerState.HALF_OPEN: 0}


def test_a_forgotten_workspace_begins_anew_and_its_opens_still_count() -> None:
    breakers = Breakers(BreakerPolicy(failures=1))
    fail(breakers, A)
    breakers.forget(A)
    breakers.forget(B)
    assert breakers.of(A).state is BreakerState.CLOSED
    assert breakers.opens == 1
    fail(breakers, A)
    assert breakers.opens == 2


def test_those_that_are_open_are_kept_longest() -> None:
    breakers = Breakers(BreakerPolicy(failures=1), limit=2)
    fail(breakers, A)
    breakers.of(B)
    breakers.of(C)
    assert set(breakers.statuses(0.0)) == {A, C}


def test_who_takes_a_workspace_over_need_not_wait_for_the_probe() -> None:
    breakers = Breakers(BreakerPolicy(failures=1, open_s=60))
    fail(breakers, A)
    assert breakers.of(A).admit(1.0) is None
    breakers.of(A).try_soon(1.0)
    assert breakers.of(A).admit(1.0) is not None
    assert breakers.of(A).admit(1.0) is None  # one probe


@given(
    limit=st.integers(1, 4),
    done=st.lists(st.tuples(st.sampled_from(["fail", "ask", "forget"]), st.integers(0, 7)), max_size=60),
)
def test_their_number_is_bounded_and_the_count_of_opens_never_falls(limit: int, done: list[tuple[str, int]]) -> None:
    breakers = Breakers(BreakerPolicy(failures=1, open_s=0), limit=limit)
    opens = 0
    for what, number in done:
        workspace_id = WorkspaceId(f"ws_{number}")
        if what == "fail":
            fail(breakers, workspace_id)
            opens += 1
        elif what == "ask":
            breakers.of(workspace_id)
        else:
            breakers.forget(workspace_id)
        assert len(breakers.statuses(0.0)) <= limit
        assert sum(breakers.by_state().values()) == len(breakers.statuses(0.0))
        assert breakers.opens == opens
