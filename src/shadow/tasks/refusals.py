"""What of a request is refused before anything of it is done. No I/O, no clock."""

from collections.abc import Sequence

from shadow.core.errors import Conflict, LimitExceeded, Rejected, Unsupported
from shadow.core.jobs import Job
from shadow.core.tasks import Task, TaskState
from shadow.core.workspaces import Capabilities
from shadow.tasks.kinds import HIBERNATE

MAX_MESSAGE_CHARS = 200_000


def is_in_use(task: Task, open_jobs: Sequence[Job], *, since: float | None) -> bool:
    """Whether something has happened with the task, or goes on; being put to sleep is no use."""
    return since is not None and (any(job.kind != HIBERNATE for job in open_jobs) or task.updated_at > since)


def check_capabilities(capabilities: Capabilities) -> None:
    """Raises: Unsupported: tasks cannot work in such workspaces."""
    if not capabilities.git:
        raise Unsupported(
            "A task begins with a clone of its repository, and workspaces of this mode have no git.",
            mend="Set AGENT_MODE=local; to test an agent without a repository, see docs/mock.md.",
            details={"capability": "git"},
        )


def check_message(text: str) -> None:
    """Raises: Rejected, LimitExceeded."""
    if not text.strip():
        raise Rejected("The instruction is empty.", mend="Say what is to be done.")
    if len(text) > MAX_MESSAGE_CHARS:
        raise LimitExceeded(f"A message has at most {MAX_MESSAGE_CHARS} characters; this one has {len(text)}.")


def check_usable(task: Task) -> None:
    """Raises: Conflict: no run of this task will ever begin."""
    if task.state is TaskState.ARCHIVED:
        raise Conflict(
            f"The workspace of {task.id} is gone: the task was archived.",
            mend="Begin a new one from the delivered branch (--branch); `shadow run --keep` would have kept it.",
        )
    if task.state is TaskState.FAILED:
        raise Conflict(
            f"The workspace of {task.id} could not be made.", mend=f"Try it again: shadow task resume {task.id}"
        )
