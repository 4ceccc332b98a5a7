"""What a run tells people on the terminal."""

import pytest

from shadow.cli.run_display import Lines
from shadow.core.events import AttemptFailed, StepFailed

AWAY = "Could not resolve host: githib.example \x1b[31m"


def test_what_is_tried_again_says_why_and_when_and_not_twice(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    failed = AttemptFailed(what="initialise", code="x", message=AWAY, attempt=2, attempts=6, wait_s=3.7)
    lines(failed)
    lines(StepFailed(name="FETCH_REPOSITORY", took_ms=1, code="x", message=AWAY))
    lines(failed)
    lines(StepFailed(name="FETCH_REPOSITORY", took_ms=1, code="x", message=AWAY))
    first, step, second, again = capsys.readouterr().out.splitlines()
    for line in (first, step):
        assert "githib.example" in line
        assert "\x1b[31m" not in line
    assert "githib.example" not in second + again
    for line in (first, second):
        assert "attempt 2 of 6" in line
        assert "4 s" in line
