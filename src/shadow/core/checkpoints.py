"""Which checkpoint is meant. No I/O."""

from collections.abc import Sequence

from shadow.core.errors import NotFound
from shadow.core.events import CheckpointFailed, Recorded, RunStarted
from shadow.core.tasks import Checkpoint, TaskId


def before_run(task_id: TaskId, run: int, recorded: Sequence[Recorded], taken: Sequence[Checkpoint]) -> Checkpoint:
    """The last checkpoint from before anything of that run. Raises: NotFound: there is none, and why."""
    starts = [one.seq for one in recorded if isinstance(one.event, RunStarted) and one.event.run == run]
    if not starts:
        raise NotFound(f"The task {task_id} has no run {run}.", mend="`shadow task show` tells of its runs.")
    before = [checkpoint for checkpoint in taken if checkpoint.seq < starts[0]]
    if before and before[-1].run == run:
        return before[-1]
    said = recorded[starts[0] - 2].event
    why = f" ({said.message})" if isinstance(said, CheckpointFailed) else ""
    raise NotFound(
        f"No checkpoint could be taken before run {run}{why}.",
        mend=f"The last one before it is {before[-1].id}."
        if before
        else "`shadow task checkpoints` lists those there are.",
    )
