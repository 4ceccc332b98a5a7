"""Runs, read from a log: each with its own end, and whether it still counts."""

from hypothesis import given
from hypothesis import strategies as st

from shadow.core.conversation import Usage, UserMessage
from shadow.core.events import Recorded, RolledBack, RunFinished, RunStarted, TaskEvent
from shadow.core.runs import runs_of


def begin(run: int) -> RunStarted:
    return RunStarted(run=run, message=UserMessage(text=f"say {run}"))


def end(run: int, status: str = "done") -> RunFinished:
    return RunFinished(run=run, status=status, summary="s", usage=Usage(input_tokens=1), cost_usd="0.5", took_ms=2.0)


def back(to_seq: int) -> RolledBack:
    return RolledBack(to_seq=to_seq, checkpoint_id="cp")


def log(*events: TaskEvent) -> list[Recorded]:
    return [Recorded(seq=number, at=float(number), event=event) for number, event in enumerate(events, 1)]


def test_each_run_has_its_own_end() -> None:
    done, going = runs_of(log(begin(1), end(1), begin(2)))
    assert (done.seq, done.message, done.started_at, done.finished_at, done.status) == (1, "say 1", 1.0, 2.0, "done")
    assert str(done.cost_usd) == "0.5"
    assert (going.run, going.finished_at, going.usage) == (2, None, None)


def test_the_end_of_a_run_that_is_not_there_is_nobody_elses() -> None:
    (run,) = runs_of(log(end(1), begin(2), end(3)))
    assert run.finished_at is None


def test_what_was_rolled_back_does_not_count() -> None:
    runs = runs_of(log(begin(1), end(1), begin(2), end(2), back(2), begin(3)))
    assert [run.counts for run in runs] == [True, False, True]


def test_what_was_returned_to_counts_again() -> None:
    # Run 2 is left, run 3 comes instead; then back to the end of run 2.
    runs = runs_of(log(begin(1), end(1), begin(2), end(2), back(2), begin(3), end(3), back(4), begin(4)))
    assert [run.counts for run in runs] == [True, True, False, True]


@given(st.lists(st.one_of(st.just("begin"), st.just("end"), st.integers(0, 30)), max_size=30))
def test_any_log_is_read_to_what_following_it_gives(steps: list[object]) -> None:
    """Against a list of what counts, kept as the log goes on."""
    events: list[TaskEvent] = []
    counting: dict[int, tuple[int, ...]] = {0: ()}  # after each event: the beginnings that count
    for seq, step in enumerate(steps, 1):
        number = sum(isinstance(event, RunStarted) for event in events)
        if step == "begin":
            events.append(begin(number + 1))
            counting[seq] = (*counting[seq - 1], seq)
        elif step == "end":
            events.append(end(number))
            counting[seq] = counting[seq - 1]
        else:
            assert isinstance(step, int)
            events.append(back(step % seq))
            counting[seq] = counting[step % seq]
    runs = runs_of(log(*events))
    assert tuple(run.seq for run in runs if run.counts) == counting[len(events)]
