"""Steps of a task that its log names and times."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum

from shadow.agent.task_log import TaskLog
from shadow.core.errors import ShadowError
from shadow.core.events import StepFailed, StepFinished, StepStarted
from shadow.core.tracing import Traced
from shadow.engine.retries import RetryPolicy

REMOTE = RetryPolicy(attempts=6, first_s=2.0)
"""For what needs a remote: about a minute, in which a short outage passes and nobody waits long for a typo."""


class Step(StrEnum):
    FETCH_REPOSITORY = "FETCH_REPOSITORY"
    """The mirror is brought up to date: what can be wrong with a repository shows before anything is made."""
    PREPARE_WORKSPACE = "PREPARE_WORKSPACE"
    CLONE_REPOSITORY = "CLONE_REPOSITORY"
    INSTALL_DEPENDENCIES = "INSTALL_DEPENDENCIES"
    START_BACKGROUND_SERVICES = "START_BACKGROUND_SERVICES"
    WAKE_WORKSPACE = "WAKE_WORKSPACE"
    ROLL_BACK = "ROLL_BACK"
    COMMIT = "COMMIT"
    VERIFY = "VERIFY"
    CHECK = "CHECK"
    DELIVER = "DELIVER"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@contextmanager
def step(log: TaskLog, name: Step) -> Generator[list[str]]:
    """What is appended to the list becomes the step's detail."""
    began = time.monotonic()
    details: list[str] = []
    log.tell(StepStarted(name=name))
    try:
        with log.tracer.span(Traced.STEP, name.value):
            yield details
    except ShadowError as error:
        took_ms = (time.monotonic() - began) * 1000
        log.tell(StepFailed(name=name, took_ms=took_ms, code=error.code, message=error.message, mend=error.mend))
        raise
    log.tell(StepFinished(name=name, took_ms=(time.monotonic() - began) * 1000, detail=", ".join(details)))
