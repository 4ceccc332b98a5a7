"""The states of a task: nothing is stuck, nothing comes back from the archive."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import Conflict
from shadow.core.tasks import TaskState, TaskStep, step


def walk(steps: Sequence[TaskStep]) -> TaskState:
    """Where it ends that takes each step that is possible."""
    state = TaskState.STARTING
    for taken in steps:
        try:
            state = step(state, taken)
        except Conflict:
            continue
    return state


@given(st.lists(st.sampled_from(TaskStep), max_size=30))
def test_every_task_can_be_used_or_archived(steps: Sequence[TaskStep]) -> None:
    state = walk(steps)
    if state is TaskState.ARCHIVED:
        return
    state = walk([*steps, TaskStep.END_RUN])
    assert step(state, TaskStep.ARCHIVE) is TaskState.ARCHIVED
    usable = walk([*steps, TaskStep.END_RUN, TaskStep.RESTART, TaskStep.BE_READY, TaskStep.BEGIN_RUN])
    assert usable is TaskState.RUNNING


def test_all_states_are_reached() -> None:
    paths = (
        [],
        [TaskStep.BE_READY],
        [TaskStep.BE_READY, TaskStep.BEGIN_RUN],
        [TaskStep.BE_READY, TaskStep.HIBERNATE],
        [TaskStep.FAIL],
        [TaskStep.ARCHIVE],
    )
    assert {walk(path) for path in paths} == set(TaskState)


@pytest.mark.parametrize("taken", TaskStep)
def test_the_archive_is_the_end(taken: TaskStep) -> None:
    with pytest.raises(Conflict, match="archived"):
        step(TaskState.ARCHIVED, taken)


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        (TaskState.RUNNING, TaskStep.BEGIN_RUN),
        (TaskState.RUNNING, TaskStep.ARCHIVE),
        (TaskState.RUNNING, TaskStep.HIBERNATE),
        (TaskState.STARTING, TaskStep.BEGIN_RUN),
        (TaskState.FAILED, TaskStep.BEGIN_RUN),
        (TaskState.IDLE, TaskStep.RESTART),
    ],
)
def test_what_cannot_follow_is_refused(state: TaskState, taken: TaskStep) -> None:
    with pytest.raises(Conflict) as refused:
        step(state, taken)
    assert refused.value.details == {"state": state.value}
