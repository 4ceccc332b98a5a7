"""docs/mock.md: its examples work as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shadow.bootstrap import open_workspace
from shadow.core.commands import CommandSpec, Exited
from shadow.core.errors import OutcomeUnknown
from shadow.core.workspaces import Mode
from shadow.execution.mock.plan_file import parse_plan
from shadow.execution.mock.programs import PROGRAMS
from shadow.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs/mock.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_example_for_pytest_passes(tmp_path: Path) -> None:
    conftest, example = blocks("python")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_agent.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."],
        cwd=tmp_path,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_example_of_a_file_is_a_plan() -> None:
    plan = parse_plan(blocks("yaml")[0])
    assert (plan.seed, plan.files) == (7, {"README.md": b"hello\n"})
    assert (plan.faults[0].error, plan.faults[0].done) == (OutcomeUnknown, True)
    assert plan.commands[1].ignores == {15}


@pytest.mark.anyio
async def test_open_workspace_works_in_the_mode_mock_with_a_plan_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(blocks("yaml")[0])
    settings = Settings(mode=Mode.MOCK, mock_plan=path, data_dir=tmp_path / "data")
    async with open_workspace(settings=settings) as workspace:
        result = await workspace.run(CommandSpec(argv=("make", "test")))
        assert (result.ending, result.stdout) == (Exited(code=0), b"ok\n")
        assert (await workspace.read_file("README.md")).content == b"hello\n"
    assert not (tmp_path / "data").exists()


def test_every_simulated_program_is_named() -> None:
    named = re.search(r"^Simulated, .*?: `([^`]*)`", PAGE, re.DOTALL | re.MULTILINE)
    assert named is not None
    assert named[1].split() == sorted(PROGRAMS)
