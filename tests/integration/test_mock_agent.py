"""An agent with its real tools in a mocked workspace: what others test theirs against."""

from pathlib import Path

import pytest
import yaml

from shadow.agent.loop import RunStatus
from shadow.agent.scripted import open_scripted
from shadow.core.errors import OutcomeUnknown
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.mock.plan import Fault, MockCommand, MockPlan
from tests.support.agent_runs import outcome_of, run_agent

pytestmark = pytest.mark.anyio

TESTED = "python -m pytest -q"


def call(tool: str, expect: dict[str, object] | None = None, **arguments: object) -> dict[str, object]:
    return {"tool": tool, "arguments": arguments} | ({"expect": expect} if expect else {})


async def test_an_agent_mends_a_mocked_repository(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    calls = [
        call("run_terminal_cmd", {"exit_code": 1, "contains": "1 failed"}, command=TESTED),
        call("read_file", {"contains": "return 0"}, path="src/clock.py"),
        call("search_replace", {"is_error": True}, path="src/clock.py", old="return 0", new="return 1"),
        call("search_replace", path="src/clock.py", old="return 0", new="return 1"),
        call("run_terminal_cmd", {"exit_code": 0, "contains": "1 passed"}, command=TESTED),
        call("run_terminal_cmd", {"contains": "MockPlan"}, command="for i in 1 2; do echo $i; done"),
        call("finish", summary="Mend the clock"),
    ]
    script.write_text(yaml.safe_dump({"version": 1, "steps": [{"calls": [one]} for one in calls]}))
    plan = MockPlan(
        files={"src/clock.py": b"def now(): return 0\n"},
        faults=(Fault(operation="search_replace", error=OutcomeUnknown),),
        commands=(
            MockCommand(pattern="python -m pytest.*", stdout=b"1 failed\n", exit_code=1, times=1),
            MockCommand(pattern="python -m pytest.*", stdout=b"1 passed\n"),
        ),
    )
    workspace = MockWorkspaceManager(plan).open(WorkspaceSpec())
    state = await run_agent(open_scripted(script), tmp_path, workspace=workspace)
    assert outcome_of(state).status is RunStatus.DONE, outcome_of(state).summary
