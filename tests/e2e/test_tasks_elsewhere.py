"""A database that was restored below another data directory: what needs the old workspaces is refused, what does not goes on."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.git_servers import git, make_repository
from tests.support.shadow_cli import DEADLINE_S, ShadowCli

BUSY = "touch up; while [ ! -e go ]; do sleep 0.05; done"


@pytest.fixture
def there(tmp_path: Path) -> Iterator[ShadowCli]:
    cli = ShadowCli(make(tmp_path / "there"), {"SHADOW_WORKER_LEASE_S": "1"})
    yield cli
    done = cli.run("workspace", "rm", "--all", "--yes")
    assert done.returncode == 0, done


@pytest.fixture
def here(tmp_path: Path) -> ShadowCli:
    return ShadowCli(make(tmp_path / "here"), {"SHADOW_WORKER_LEASE_S": "1"})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "project", {"a.txt": b"one\n"})


def make(path: Path) -> Path:
    path.mkdir()
    return path


def script(tmp_path: Path, *commands: str) -> str:
    path = tmp_path / f"script{len(list(tmp_path.iterdir()))}.yaml"
    calls: list[dict[str, Any]] = [{"tool": "run_terminal_cmd", "arguments": {"command": c}} for c in commands]
    calls.append({"tool": "finish", "arguments": {"summary": "Did it.", "success": True}})
    path.write_text(yaml.safe_dump({"version": 1, "steps": [{"calls": [call]} for call in calls]}))
    return f"scripted:{path}"


def task_of(cli: ShadowCli) -> dict[str, Any]:
    (task,) = cli.json("task", "list")["tasks"]
    return task


def restored(there: ShadowCli, here: ShadowCli) -> str:
    """The name of the host that the tasks came from."""
    backup = str(there.home / "tasks.db")
    assert there.run("backup", backup).returncode == 0
    assert here.run("restore", backup).returncode == 0
    return (there.home / "data" / "host").read_text().strip()


def refused(cli: ShadowCli, host: str, *arguments: str) -> None:
    began = time.monotonic()
    done = cli.run(*arguments, "--json")
    assert done.returncode in (1, 125), done
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["details"]["host"]) == ("other_host", host)
    assert host in error["message"]
    assert "SHADOW_DATA_DIR" in error["mend"]
    assert "task archive" in error["mend"]
    assert time.monotonic() - began < DEADLINE_S / 2


def test_what_needs_the_other_hosts_workspace_is_refused(
    there: ShadowCli, here: ShadowCli, source: Path, tmp_path: Path
) -> None:
    model = script(tmp_path, "echo two >> a.txt")
    made = there.run("task", "create", str(source), "x", "--model", model)
    assert made.returncode == 0, made
    task = task_of(there)
    host = restored(there, here)
    before = here.run("task", "events", task["id"]).stdout
    refused(here, host, "task", "send", task["id"], "y", "--model", model)
    refused(here, host, "task", "send", task["id"], "y", "--model", model, "--detach")
    refused(here, host, "run", "--continue", task["id"], "y", "--model", model)
    refused(here, host, "task", "rollback", task["id"], "--run", "1")
    refused(here, host, "task", "hibernate", task["id"])
    refused(here, host, "task", "resume", task["id"])
    refused(here, host, "workspace", "exec", task["id"], "-c", "true")
    assert here.run("task", "events", task["id"]).stdout == before
    assert here.json("task", "queue", task["id"]) == {"messages": []}
    # What was delivered is in the log.
    assert b"+two" in here.run("task", "diff", task["id"]).stdout
    assert host.encode() in here.run("task", "show", task["id"]).stdout


def test_a_task_of_another_host_is_archived_and_deleted(
    there: ShadowCli, here: ShadowCli, source: Path, tmp_path: Path
) -> None:
    made = there.run("task", "create", str(source), "x", "--model", script(tmp_path, "true"))
    assert made.returncode == 0, made
    task = task_of(there)
    host = restored(there, here)
    left = {"workspace": task["workspace_id"], "host": host}
    assert here.json("task", "archive", task["id"]) == {"task": task["id"], "left": left}
    assert (task_of(here)["state"], task_of(here)["workspace_id"]) == ("archived", None)
    assert here.json("task", "archive", task["id"]) == {"task": task["id"]}
    assert here.run("task", "delete", task["id"]).returncode == 0
    assert here.json("task", "list") == {"tasks": []}
    # Where it is, it is untouched.
    assert task_of(there)["state"] == "idle"
    assert there.run("workspace", "exec", task["id"], "--", "true").returncode == 0


@pytest.mark.parametrize("how", ["archive", "delete"])
def test_what_was_going_on_at_the_backup_keeps_nobody_waiting(
    there: ShadowCli, here: ShadowCli, source: Path, tmp_path: Path, how: str
) -> None:
    with there.start("run", str(source), "x", "--model", script(tmp_path, BUSY), "--json") as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["kind"] != "command_started":
            pass
        task = task_of(there)["id"]
        assert there.run("task", "send", task, "waits", "--detach").returncode == 0
        host = restored(there, here)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)
    refused(here, host, "task", "resume", task)
    done = here.run("task", "stop", task)
    assert done.returncode == 1, done
    assert host.encode() in done.stderr
    done = here.run("task", how, task)
    assert done.returncode == 0, done
    assert host.encode() in done.stderr
    if how == "archive":
        assert task_of(here)["state"] == "archived"
        kinds = [json.loads(line)["kind"] for line in here.run("task", "events", task).stdout.splitlines()]
        assert kinds.count("run_finished") == 1
    else:
        assert here.json("task", "list") == {"tasks": []}
    assert git(source, "branch", "--list", "shadow/*") == ""
