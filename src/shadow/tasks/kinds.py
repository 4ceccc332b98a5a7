"""The kinds of a task's jobs."""

from hashlib import sha256

INITIALISE = "initialise"
RUN = "run"
ROLL_BACK = "roll_back"
HIBERNATE = "hibernate"
ARCHIVE = "archive"
DELETE = "delete"
FREE = "free"
"""Removes what a task that was let go of has left on its host."""


def clean_up_of(host: str | None) -> str:
    """The kind of the job that looks after the tasks of ``host``: only its own workers can see what became of them there."""
    return f"clean_up_{sha256((host or '').encode()).hexdigest()[:16]}"
