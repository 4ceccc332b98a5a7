"""``shadow task`` as a user meets it: real processes, real sandboxes, a scripted model, and kills."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.git_servers import git, make_repository
from tests.support.local_workspaces import processes_with
from tests.support.shadow_cli import DEADLINE_S, ShadowCli


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShadowCli]:
    cli = ShadowCli(tmp_path_factory.mktemp("cli"), {"SHADOW_WORKER_LEASE_S": "2"})
    yield cli
    done = cli.run("workspace", "rm", "--all", "--yes")
    assert done.returncode == 0, done


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "project", {"a.txt": b"one\n"})


def script(tmp_path: Path, *steps: dict[str, Any]) -> str:
    path = tmp_path / f"script{len(list(tmp_path.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "steps": list(steps)}))
    return f"scripted:{path}"


def shell(command: str) -> dict[str, Any]:
    arguments = {"command": command, "timeout_s": 60}
    return {"calls": [{"tool": "run_terminal_cmd", "arguments": arguments}]}


def finish(summary: str = "Did it.") -> dict[str, Any]:
    return {"calls": [{"tool": "finish", "arguments": {"summary": summary, "success": True}}]}


def branch_of(source: Path) -> str:
    (name,) = [
        name
        for name in git(source, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
        if name != "main"
    ]
    return name


def events(cli: ShadowCli, task: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in cli.run("task", "events", task).stdout.splitlines()]
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    return found


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in found]


def state(cli: ShadowCli, task: str) -> dict[str, Any]:
    return cli.json("task", "show", task)["task"]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def made(cli: ShadowCli, source: Path, model: str, *options: str, code: int = 0) -> str:
    done = cli.run("task", "create", str(source), "x", "--model", model, "--detach", *options)
    assert done.returncode == 0, done
    task = done.stdout.decode().strip()
    followed = cli.run("task", "follow", task)
    assert followed.returncode == code, followed
    return task


def test_a_task_goes_on_with_its_work_and_its_conversation(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    task = made(cli, source, script(tmp_path, shell("echo two >> a.txt"), finish()))
    assert git(source, "show", f"{branch_of(source)}:a.txt") == "one\ntwo"
    assert state(cli, task)["state"] == "idle"
    model = script(tmp_path, shell("cat a.txt; echo three >> a.txt"), finish("More."))
    done = cli.run("task", "send", task, "And three", "--model", model)
    assert done.returncode == 0, done
    assert git(source, "show", f"{branch_of(source)}:a.txt") == "one\ntwo\nthree"
    assert state(cli, task)["runs"] == 2


def test_a_hibernated_task_is_woken_by_the_next_message(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.5"
    keeps_running = {
        "calls": [{"tool": "run_terminal_cmd", "arguments": {"command": f"sleep {marker}", "background": True}}]
    }
    task = made(cli, source, script(tmp_path, shell("echo two >> a.txt"), keeps_running, {"text": "Look."}))
    workspace = state(cli, task)["workspace_id"]
    assert cli.run("task", "hibernate", task).returncode == 0
    assert state(cli, task)["state"] == "hibernated"
    assert processes_with(workspace) == []
    done = cli.run("task", "send", task, "Go on", "--model", script(tmp_path, shell("cat a.txt"), finish()))
    assert done.returncode == 0, done
    assert b"WAKE_WORKSPACE" in done.stdout
    assert state(cli, task)["workspace_id"] == workspace
    assert git(source, "show", f"{branch_of(source)}:a.txt") == "one\ntwo"


def test_messages_wait_are_edited_removed_and_reordered(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    model = script(tmp_path, shell("touch up; while [ ! -e go ]; do sleep 0.05; done"), finish("First."))
    task = cli.run("task", "create", str(source), "x", "--model", model, "--detach").stdout.decode().strip()
    with cli.start("task", "follow", task) as following:
        until(lambda: state(cli, task)["state"] == "running")
        workspace = state(cli, task)["workspace_id"]
        until(lambda: cli.run("workspace", "exec", workspace, "--", "test", "-e", "up").returncode == 0)
        for text in ("a", "b", "c"):
            assert cli.run("task", "send", task, text, "--detach").returncode == 0
        a, b, c = (message["id"] for message in cli.json("task", "queue", task)["messages"])
        assert cli.run("task", "queue", task, "--edit", b, "edited").returncode == 0
        assert cli.run("task", "queue", task, "--remove", a).returncode == 0
        assert cli.run("task", "queue", task, "--remove", a).returncode == 1
        queued = cli.json("task", "queue", task, "--first", c)["messages"]
        assert [message["text"] for message in queued] == ["c", "edited"]
        assert cli.run("workspace", "exec", workspace, "--", "touch", "go").returncode == 0
        following.communicate(timeout=DEADLINE_S)
    started = [event["message"]["text"] for event in events(cli, task) if event["kind"] == "run_started"]
    assert started == ["x", "c", "edited"]
    assert cli.json("task", "queue", task) == {"messages": []}


def test_stop_ends_what_runs_and_the_next_run_is_not_hurt(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.75"
    model = script(tmp_path, shell(f"setsid sleep {marker} & sleep {marker}"), finish("Second."))
    task = cli.run("task", "create", str(source), "x", "--model", model, "--detach").stdout.decode().strip()
    with cli.start("task", "follow", task) as following:
        until(lambda: len(processes_with(f"sleep\0{marker}")) == 2)
        assert cli.run("task", "send", task, "waits", "--detach").returncode == 0
        assert cli.run("task", "stop", task).returncode == 0
        following.communicate(timeout=DEADLINE_S)
    assert processes_with(f"sleep\0{marker}") == []
    assert (state(cli, task)["outcome"], state(cli, task)["state"]) == ("interrupted", "idle")
    assert cli.run("task", "stop", task).returncode == 1
    assert [message["text"] for message in cli.json("task", "queue", task)["messages"]] == ["waits"]
    done = cli.run("task", "resume", task)
    assert done.returncode == 0, done
    assert state(cli, task)["outcome"] == "done"


def test_stop_and_send_comes_first(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.85"
    model = script(tmp_path, shell(f"sleep {marker}"), finish("One."), finish("Two."), finish("Three."))
    task = cli.run("task", "create", str(source), "x", "--model", model, "--detach").stdout.decode().strip()
    with cli.start("task", "follow", task) as following:
        until(lambda: processes_with(f"sleep\0{marker}"))
        assert cli.run("task", "send", task, "later", "--detach").returncode == 0
        assert cli.run("task", "send", task, "now", "--stop", "--detach").returncode == 0
        following.communicate(timeout=DEADLINE_S)
    runs = [(e["message"]["text"]) for e in events(cli, task) if e["kind"] == "run_started"]
    assert runs == ["x", "now", "later"]
    assert [e["status"] for e in events(cli, task) if e["kind"] == "run_finished"] == ["interrupted", "done", "done"]


def test_a_failed_start_begins_again_where_it_failed(cli: ShadowCli, tmp_path: Path) -> None:
    setup = b'setup = "test -e ../home-is-ready || { echo ran >> setup.log; exit 3; }"\n'
    source = make_repository(tmp_path / "project", {".shadow/config.toml": setup.replace(b"../", b"/workspace/")})
    task = made(cli, source, script(tmp_path, shell("cat setup.log"), finish()), code=1)
    assert state(cli, task)["state"] == "failed"
    assert cli.run("task", "send", task, "y").returncode == 1
    workspace = state(cli, task)["workspace_id"]
    assert cli.run("workspace", "exec", workspace, "--", "touch", "home-is-ready").returncode == 0
    done = cli.run("task", "resume", task)
    assert done.returncode == 0, done
    steps = [e["name"] for e in events(cli, task) if e["kind"] == "step_finished"]
    assert steps.count("CLONE_REPOSITORY") == 1
    assert state(cli, task)["workspace_id"] == workspace


def test_a_repository_that_is_not_there_can_be_tried_again(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    model = script(tmp_path, finish())
    task = cli.run("task", "create", str(source), "x", "--model", model, "--detach").stdout.decode().strip()
    source.rename(hidden)
    assert cli.run("task", "follow", task).returncode == 1
    assert (state(cli, task)["state"], state(cli, task)["workspace_id"]) == ("failed", None)
    hidden.rename(source)
    assert cli.run("task", "resume", task).returncode == 0
    assert state(cli, task)["outcome"] == "done"


def test_rolling_back_restores_files_conversation_and_commit(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    task = made(cli, source, script(tmp_path, shell("echo two >> a.txt; echo new > b.txt"), finish("First.")))
    model = script(tmp_path, shell("echo WRONG > a.txt; rm b.txt"), finish("Second."))
    assert cli.run("task", "send", task, "Spoil it", "--model", model).returncode == 0
    branch = branch_of(source)
    spoilt = git(source, "rev-parse", branch)
    model = script(tmp_path, shell("cat a.txt b.txt; git status; echo three >> a.txt"), finish("Third."))
    cli.run("task", "send", task, "never said", "--model", model, "--detach")
    waiting = cli.json("task", "queue", task)["messages"][0]["id"]
    assert cli.run("task", "rollback", task, "--run", "2").returncode == 1  # it waits for a run
    cli.run("task", "queue", task, "--remove", waiting)
    assert cli.run("task", "follow", task).returncode == 0
    done = cli.run("task", "rollback", task, "--run", "2", "--message", "Do it right")
    assert done.returncode == 0, done
    assert git(source, "show", f"{branch}:a.txt") == "one\ntwo\nthree"
    assert git(source, "show", f"{branch}:b.txt") == "new"
    assert git(source, "log", "--format=%s", "main.." + branch).splitlines() == ["Third", "First"]
    # What was left behind can be returned to.
    taken = cli.json("task", "checkpoints", task)["checkpoints"]
    left = [checkpoint["id"] for checkpoint in taken if checkpoint["head"] == spoilt]
    done = cli.run("task", "rollback", task, left[-1])
    assert done.returncode == 0, done
    workspace = state(cli, task)["workspace_id"]
    assert cli.run("workspace", "exec", workspace, "--", "cat", "a.txt").stdout == b"WRONG\n"
    assert cli.run("workspace", "exec", workspace, "--", "git", "branch", "--show-current").stdout.strip() == (
        branch.encode()
    )


def test_a_message_during_a_run_that_would_end_its_task_is_heard_first(
    cli: ShadowCli, source: Path, tmp_path: Path
) -> None:
    first = shell("while [ ! -e go ]; do sleep 0.05; done; rm go; echo two >> a.txt")
    model = script(tmp_path, first, finish(), shell("echo three >> a.txt"), finish())
    with cli.start("run", str(source), "x", "--model", model, "--json") as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["kind"] != "command_started":
            pass
        task = cli.json("task", "list")["tasks"][0]["id"]
        assert cli.run("task", "send", task, "and this", "--detach").returncode == 0
        assert cli.run("workspace", "exec", task, "--", "touch", "go").returncode == 0
        process.communicate(timeout=DEADLINE_S)
    runs = [event["message"]["text"] for event in events(cli, task) if event["kind"] == "run_started"]
    assert runs == ["x", "and this"]
    assert git(source, "show", f"{branch_of(source)}:a.txt") == "one\ntwo\nthree"
    assert (state(cli, task)["state"], state(cli, task)["workspace_id"]) == ("archived", None)
    assert cli.json("task", "queue", task) == {"messages": []}


def test_archive_and_delete_free_everything(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.95"
    model = script(tmp_path, shell(f"sleep {marker}"), finish())
    task = cli.run("task", "create", str(source), "x", "--model", model, "--detach").stdout.decode().strip()
    with cli.start("task", "follow", task) as following:
        until(lambda: processes_with(f"sleep\0{marker}"))
        workspace = state(cli, task)["workspace_id"]
        assert cli.run("task", "archive", task).returncode == 0
        following.communicate(timeout=DEADLINE_S)
    assert processes_with(f"sleep\0{marker}") == []
    assert (state(cli, task)["state"], state(cli, task)["workspace_id"]) == ("archived", None)
    assert workspace not in [w["id"] for w in cli.json("workspace", "list")["workspaces"]]
    assert cli.run("task", "send", task, "y").returncode == 1
    assert cli.run("task", "delete", task).returncode == 0
    assert cli.run("task", "show", task).returncode == 1
    assert not list((cli.home / "data").glob(f"artifacts/{task}"))


def test_a_user_may_have_so_many_tasks(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    few = ShadowCli(tmp_path, {"SHADOW_LIMIT_TASKS": "1"})
    model = script(tmp_path, finish())
    assert few.run("task", "create", str(source), "x", "--model", model, "--detach").returncode == 0
    refused = few.run("task", "create", str(source), "x", "--model", model, "--detach")
    assert refused.returncode == 1
    assert b"SHADOW_LIMIT_TASKS" in refused.stderr
    assert len(few.json("task", "list")["tasks"]) == 1


def killed(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE_S)


def test_a_killed_run_goes_on_in_the_middle_of_a_command(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    command = "echo ran >> a.txt; echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended"
    model = script(tmp_path, shell("echo before >> a.txt"), shell(command), shell("rm go"), finish())
    process = cli.start("run", str(source), "x", "--model", model, "--json")
    assert process.stdout is not None
    seen: list[dict[str, Any]] = []
    while not any(event["kind"] == "command_output" and "begun" in event["text"] for event in seen):
        seen.append(json.loads(process.stdout.readline()))
    killed(process)
    task = cli.json("task", "list")["tasks"][0]["id"]
    workspace = state(cli, task)["workspace_id"]
    assert cli.run("workspace", "exec", workspace, "--", "touch", "go").returncode == 0
    done = cli.run("task", "resume", task)
    assert done.returncode == 0, done
    assert git(source, "show", f"{branch_of(source)}:a.txt") == "one\nbefore\nran"
    told = events(cli, task)
    results = [event["result"] for event in told if event["kind"] == "tool_finished"]
    assert len({result["call_id"] for result in results}) == len(results) == 4
    assert "begun\nended" in results[1]["content"]
    output = [
        event for event in told if event["kind"] == "command_output" and event["call_id"] == results[1]["call_id"]
    ]
    assert "".join(event["text"] for event in output) == "begun\nended\n"
    assert kinds(told).count("run_started") == kinds(told).count("work_delivered") == 1


def test_services_run_while_the_agent_works_and_again_when_it_is_woken(cli: ShadowCli, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.65"
    config = f'services = "echo started >> services.log; sleep {marker}"\ncheck = "true"\n'
    source = make_repository(tmp_path / "project", {".shadow/config.toml": config.encode(), ".gitignore": b"*.log\n"})
    spoil = "echo 'check = \"false\"' > .shadow/config.toml"
    task = made(cli, source, script(tmp_path, shell(f"cat services.log; {spoil}"), finish()))
    assert processes_with(f"sleep\0{marker}")
    assert cli.run("task", "hibernate", task).returncode == 0
    assert processes_with(f"sleep\0{marker}") == []
    done = cli.run("task", "send", task, "y", "--model", script(tmp_path, shell("cat services.log"), finish()))
    assert done.returncode == 0, done  # by the check of the base, not by the agent's
    assert processes_with(f"sleep\0{marker}")
    results = [event["result"]["content"] for event in events(cli, task) if event["kind"] == "tool_finished"]
    assert results[2].count("started") == 2
    assert cli.run("task", "archive", task).returncode == 0


def test_a_start_that_is_stopped_leaves_nothing_running_and_can_be_resumed(
    cli: ShadowCli, source: Path, tmp_path: Path
) -> None:
    marker = f"{os.getpid()}.55"
    setup = f'setup = "test -e ready || {{ touch ready; setsid sleep {marker} & sleep {marker}; }}"\n'
    slow = make_repository(tmp_path / "slow", {".shadow/config.toml": setup.encode()})
    process = cli.start("task", "create", str(slow), "x", "--model", script(tmp_path, finish()))
    until(lambda: len(processes_with(f"sleep\0{marker}")) == 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert processes_with(f"sleep\0{marker}") == []
    task = cli.json("task", "list")["tasks"][0]["id"]
    assert state(cli, task)["state"] == "failed"
    done = cli.run("task", "resume", task)
    assert done.returncode == 0, done
