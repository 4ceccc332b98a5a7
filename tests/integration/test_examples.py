"""The examples, and the scripts that mend them with the real tools."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shadow.agent.loop import RunStatus
from shadow.agent.recording import open_recording
from shadow.agent.replay import open_replay
from shadow.agent.script_file import load_script
from shadow.agent.scripted import open_scripted
from shadow.core.secrets import Redactor
from tests.support.agent_runs import outcome_of, run_agent
from tests.support.polyglot import NAMES, SCRIPT, SUBMODULE, make_polyglot

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

TESTS: dict[str, tuple[str, ...]] = {
    "openhours": (sys.executable, "-m", "unittest"),
    "timespan": ("node", "--test"),
}


def copied(tmp_path: Path, name: str, where: str) -> Path:
    """The example as a repository with one commit, where a run works on it."""
    if shutil.which(TESTS[name][0]) is None:
        pytest.skip(f"{TESTS[name][0]} is not installed")
    files = tmp_path / where / "files"
    shutil.copytree(EXAMPLES / name, files, ignore=shutil.ignore_patterns("__pycache__"))
    identity = ("-c", "user.name=A", "-c", "user.email=a@localhost")
    for arguments in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message=Begin")):
        subprocess.run(["git", *identity, *arguments], cwd=files, check=True, timeout=60)
    return files


def outcome_of_tests(files: Path, name: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(TESTS[name], cwd=files, capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize("name", TESTS)
async def test_the_script_of_an_example_really_mends_it(tmp_path: Path, name: str) -> None:
    files = copied(tmp_path, name, "run")
    assert outcome_of_tests(files, name).returncode == 1
    state = await run_agent(open_scripted(EXAMPLES / f"{name}.yaml"), tmp_path / "run")
    assert outcome_of(state).status is RunStatus.DONE, outcome_of(state).summary
    after = outcome_of_tests(files, name)
    assert after.returncode == 0, after.stdout + after.stderr


@pytest.mark.parametrize("name", TESTS)
async def test_an_example_that_is_mended_already_is_not_what_its_script_expects(tmp_path: Path, name: str) -> None:
    copied(tmp_path, name, "run")
    await run_agent(open_scripted(EXAMPLES / f"{name}.yaml"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run/state")
    outcome = outcome_of(await run_agent(open_scripted(EXAMPLES / f"{name}.yaml"), tmp_path / "run"))
    assert (outcome.status, outcome.code) == (RunStatus.FAILED, "script_expectation_failed")
    assert "exit code 1" in outcome.summary


@pytest.mark.parametrize("name", TESTS)
async def test_a_run_on_an_example_can_be_recorded_and_replayed(tmp_path: Path, name: str) -> None:
    copied(tmp_path, name, "run")
    model = open_scripted(EXAMPLES / f"{name}.yaml")
    with open_recording(tmp_path / "run.jsonl", model=model, redactor=Redactor()) as recorder:
        await run_agent(model, tmp_path / "run", watchers=[recorder])
    (tmp_path / "run").rename(tmp_path / "first")
    files = copied(tmp_path, name, "run")  # at the same place: output of tests names it
    model = open_replay(tmp_path / "run.jsonl", redactor=Redactor())
    outcome = outcome_of(await run_agent(model, tmp_path / "run"))
    assert outcome.status is RunStatus.DONE, outcome.summary
    assert outcome_of_tests(files, name).returncode == 0


async def test_a_repository_with_awkward_names_line_ends_and_a_submodule_is_worked_on(tmp_path: Path) -> None:
    repository = make_polyglot(tmp_path)
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True, timeout=60
    ).stdout.split(b"\0")
    assert {*NAMES, SUBMODULE.encode()} <= set(tracked)
    shutil.copytree(repository, tmp_path / "run/files", symlinks=True)
    (tmp_path / "script.yaml").write_text(SCRIPT)
    state = await run_agent(open_scripted(tmp_path / "script.yaml"), tmp_path / "run")
    assert outcome_of(state).status is RunStatus.DONE, outcome_of(state).summary
    assert (tmp_path / "run/files/windows/settings.ini").read_bytes() == b"[net]\r\nretries=3\r\n"
    assert (tmp_path / "run/files/windows/mixed.txt").read_bytes() == b"one\r\ntwo\nthree\r\n"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", blocks("scripts.md", "yaml"))
def test_the_scripts_of_the_documentation_are_scripts(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    assert load_script(tmp_path / "s.yaml").script.steps


def test_the_documentation_names_every_field_of_a_script() -> None:
    from shadow.agent.script_file import Expectation, Facts, Fault, FaultKind, ScriptedCall, Step, Tokens

    text = (ROOT / "docs/scripts.md").read_text()
    for part in (Expectation, Facts, Fault, ScriptedCall, Step, Tokens):
        for field in part.model_fields:
            assert f"`{field}`" in text, f"{part.__name__}.{field}"
    for kind in FaultKind:
        assert f"`{kind}`" in text
