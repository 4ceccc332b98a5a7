"""Who looks into a task that sleeps wakes it, and the record says so; what a run needs besides, the next run starts."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shadow.core.ids import WorkspaceId
from tests.support.git_servers import make_repository
from tests.support.local_workspaces import holder_pid, processes_with
from tests.support.shadow_cli import ShadowCli

SERVICE = f"{os.getpid()}.45"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[ShadowCli]:
    home = tmp_path / "home"
    home.mkdir()
    cli = ShadowCli(home)
    yield cli
    assert cli.run("workspace", "rm", "--all", "--yes").returncode == 0


def script(tmp_path: Path, command: str) -> str:
    path = tmp_path / f"script{len(list(tmp_path.iterdir()))}.yaml"
    calls: list[dict[str, Any]] = [
        {"tool": "run_terminal_cmd", "arguments": {"command": command}},
        {"tool": "finish", "arguments": {"summary": "Did it.", "success": True}},
    ]
    path.write_text(yaml.safe_dump({"version": 1, "steps": [{"calls": [call]} for call in calls]}))
    return f"scripted:{path}"


@pytest.fixture
def task(cli: ShadowCli, tmp_path: Path) -> str:
    """One that sleeps."""
    config = f'services = "sleep {SERVICE}"\n'
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n", ".shadow/config.toml": config.encode()})
    made = cli.run("task", "create", str(source), "x", "--model", script(tmp_path, "echo two >> a.txt"))
    assert made.returncode == 0, made
    task = standing(cli)["id"]
    assert cli.run("task", "hibernate", task).returncode == 0
    assert standing(cli)["state"] == "hibernated"
    return task


def standing(cli: ShadowCli) -> dict[str, Any]:
    (task,) = cli.json("task", "list")["tasks"]
    return task


def workspace_state(cli: ShadowCli) -> str:
    (workspace,) = cli.json("workspace", "list")["workspaces"]
    return workspace["state"]


@pytest.mark.parametrize("by_its_own_id", [False, True])
def test_a_command_in_it_wakes_it(cli: ShadowCli, task: str, by_its_own_id: bool) -> None:
    before = standing(cli)
    reference = before["workspace_id"] if by_its_own_id else task
    assert cli.run("workspace", "exec", reference, "--", "cat", "a.txt").stdout == b"one\ntwo\n"
    after = standing(cli)
    assert (after["state"], workspace_state(cli)) == ("idle", "ready")
    assert after["updated_at"] > before["updated_at"]
    # What is up already needs no record, and gets none.
    assert cli.run("workspace", "exec", reference, "--", "true").returncode == 0
    assert standing(cli)["events"] == after["events"]
    assert cli.run("task", "hibernate", task).returncode == 0
    assert (standing(cli)["state"], workspace_state(cli)) == ("hibernated", "stopped")


def test_a_look_at_its_changes_wakes_it_and_the_next_run_starts_its_services(
    cli: ShadowCli, task: str, tmp_path: Path
) -> None:
    assert b"+two" in cli.run("task", "diff", task).stdout
    assert (standing(cli)["state"], workspace_state(cli)) == ("idle", "ready")
    assert processes_with(f"sleep\0{SERVICE}") == []  # to look starts nothing
    sent = cli.run("task", "send", task, "y", "--model", script(tmp_path, "true"))
    assert sent.returncode == 0, sent
    assert b"WAKE_WORKSPACE" in sent.stdout
    assert len(processes_with(f"sleep\0{SERVICE}")) == 1
    # The run after it has nothing to wake.
    sent = cli.run("task", "send", task, "z", "--model", script(tmp_path, "true"))
    assert b"WAKE_WORKSPACE" not in sent.stdout
    assert len(processes_with(f"sleep\0{SERVICE}")) == 1


def test_a_look_from_outside_wakes_nothing(cli: ShadowCli, task: str) -> None:
    for arguments in (("task", "show", task), ("task", "events", task), ("task", "checkpoints", task)):
        assert cli.run(*arguments).returncode == 0
    assert json.loads(cli.run("workspace", "show", task, "--json").stdout)["health"] is None
    assert (standing(cli)["state"], workspace_state(cli)) == ("hibernated", "stopped")


def test_a_workspace_of_no_task_is_woken_without_a_database(cli: ShadowCli) -> None:
    workspace = cli.create()
    os.kill(holder_pid(cli.home / "data", WorkspaceId(workspace)), signal.SIGKILL)
    assert cli.run("workspace", "exec", workspace, "--", "true").returncode == 0
    assert not (cli.home / "data" / "shadow.db").exists()
