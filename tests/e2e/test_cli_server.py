"""``shadow --server`` as a user meets it: the command line against a real server, which is killed in between."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_server import FINISH, script, shell
from tests.support.git_servers import git, make_repository
from tests.support.people import Person
from tests.support.servers import Server
from tests.support.shadow_cli import DEADLINE_S, ShadowCli

BASH = ("--", "bash", "--norc", "--noprofile")


def restart(server: Server) -> None:
    server.end(signal.SIGKILL)
    asyncio.run(server.start())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    asyncio.run(server.start())
    yield server
    if server.process is not None:
        server.end()
    # What is left of its tasks, which outlive it.
    cleaned = ShadowCli(server.home).run("workspace", "rm", "--all", "--yes")
    assert cleaned.returncode == 0, cleaned


@pytest.fixture(scope="module")
def cli(server: Server, tmp_path_factory: pytest.TempPathFactory) -> ShadowCli:
    """Somebody who has logged in."""
    restart(server)  # its codes are good for one login each
    cli = ShadowCli(tmp_path_factory.mktemp("cli"))
    done = cli.run("login", server.url, "--code", server.code)
    assert done.returncode == 0, done
    return cli


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "project", {"a.txt": b"one\n"})


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def task_of(cli: ShadowCli, task: str) -> dict[str, Any]:
    return cli.json("task", "show", task)["task"]


def done(finished: subprocess.CompletedProcess[bytes], code: int = 0) -> str:
    assert finished.returncode == code, finished
    return finished.stdout.decode()


def begun(cli: ShadowCli, source: Path, model: str, *options: str) -> str:
    return done(cli.run("task", "create", str(source), "Do it.", "--model", model, "--detach", *options)).strip()


def waits(cli: ShadowCli, source: Path, tmp_path: Path) -> tuple[str, str]:
    """A task whose agent is at work until a file ``go`` is there; and its workspace."""
    task = begun(cli, source, script(tmp_path, shell("touch up; while [ ! -e go ]; do sleep 0.05; done"), FINISH))
    until(lambda: b'"command_started"' in cli.run("task", "events", task).stdout)
    return task, task_of(cli, task)["workspace_id"]


def refused(finished: subprocess.CompletedProcess[bytes], code: int = 1) -> dict[str, Any]:
    """The error, which says what to do."""
    error = json.loads(done(finished, code))["error"]
    assert error["mend"]
    return error


def test_a_login_is_kept_for_its_user_alone_and_ends_with_a_logout(server: Server, tmp_path: Path) -> None:
    restart(server)
    cli = ShadowCli(tmp_path)
    told = cli.json("login", server.url, "--code", server.code)
    assert (told["user"]["name"], told["server"]) == ("local", server.url)
    path = tmp_path / ".config/shadow/logins.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = json.loads(path.read_text())["tokens"][server.url]
    assert cli.json("task", "list") is not None
    assert refused(cli.run("login", server.url, "--code", server.code, "--json"))["code"] == "unauthenticated"
    assert path.read_text().count("shadow_token_") == 1  # the refused login changed nothing
    done(cli.run("logout"))
    assert token not in path.read_text()
    assert refused(cli.run("--server", server.url, "task", "list", "--json"))["code"] == "unauthenticated"
    elsewhere = ShadowCli(tmp_path, {"SHADOW_SERVER": server.url, "SHADOW_SERVER_TOKEN": token})
    assert refused(elsewhere.run("task", "list", "--json"))["code"] == "unauthenticated"  # it ended there too


def test_a_task_is_made_seen_changed_and_ended(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    model = script(tmp_path, shell("echo two >> a.txt"), FINISH)
    made = cli.run("task", "create", os.path.relpath(source, cli.home), "Do it.", "--model", model)
    assert "Delivered" in made.stderr.decode(), made
    task = next(one["id"] for one in cli.json("task", "list", "--limit", "1")["tasks"])
    assert task in done(cli.run("task", "list"))
    assert "echo two" in done(cli.run("task", "show", task[:12]))
    events = [json.loads(line) for line in done(cli.run("task", "events", task)).splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert "+two" in done(cli.run("task", "diff", task))
    more = script(tmp_path, shell("cat a.txt; echo three >> a.txt"), FINISH)
    assert "echo three" in done(cli.run("task", "send", task, "And three", "--model", more))
    branch = task_of(cli, task)["checkout"]["branch"]
    assert git(source, "show", f"{branch}:a.txt") == "one\ntwo\nthree"
    found = cli.json("task", "checkpoints", task)["checkpoints"]
    assert task_of(cli, task)["runs"] == 2
    done(cli.run("task", "rollback", task, "--run", "2"))
    assert "+three" not in done(cli.run("task", "diff", task))
    assert found[-1]["id"] in done(cli.run("task", "checkpoints", task))
    done(cli.run("task", "hibernate", task))
    assert task_of(cli, task)["state"] == "hibernated"
    done(cli.run("task", "archive", task))
    assert task_of(cli, task)["state"] == "archived"
    assert refused(cli.run("task", "send", task, "More", "--json"))["code"] == "conflict"
    done(cli.run("task", "delete", task))
    assert refused(cli.run("task", "show", task, "--json"))["code"] == "not_found"


def test_what_waits_is_changed_and_a_run_is_stopped_and_resumed(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    task, _ = waits(cli, source, tmp_path)
    enough = script(tmp_path, shell("true"), FINISH, deepcopy(FINISH))
    for text in ("first", "second", "third"):
        done(cli.run("task", "send", task, text, "--detach", "--model", enough))
    ids = [message["id"] for message in cli.json("task", "queue", task)["messages"]]
    changed = cli.json("task", "queue", task, "--edit", ids[0], "1st", "--remove", ids[1], "--first", ids[2])
    assert [message["text"] for message in changed["messages"]] == ["third", "1st"]
    done(cli.run("task", "stop", task))
    assert (task_of(cli, task)["outcome"], task_of(cli, task)["state"]) == ("interrupted", "idle")
    done(cli.run("task", "resume", task))
    assert cli.json("task", "queue", task)["messages"] == []
    assert task_of(cli, task)["runs"] == 3
    assert refused(cli.run("task", "stop", task, "--json"))["code"] == "conflict"
    assert refused(cli.run("task", "rollback", task, "--run", "99", "--json"))["code"] == "not_found"


def test_what_a_start_failed_with_is_told(cli: ShadowCli, tmp_path: Path) -> None:
    missing = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    model = script(tmp_path, FINISH)
    made = cli.run("task", "create", str(missing), "x", "--model", model, "--branch", "none-such")
    assert made.returncode == 1, made
    assert b"none-such" in made.stderr
    assert b"none-such" in cli.run("task", "follow", task_of(cli, _newest(cli))["id"]).stderr


def _newest(cli: ShadowCli) -> str:
    return cli.json("task", "list", "--limit", "1")["tasks"][0]["id"]


def test_run_does_it_all(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    model = script(tmp_path, shell("echo two >> a.txt"), FINISH)
    ran = cli.run("run", str(source), "Do it.", "--model", model, "--as", "mended", "--json")
    kinds = [json.loads(line)["kind"] for line in done(ran).splitlines()]
    assert kinds[-1] in ("state_changed", "run_finished")
    assert git(source, "show", "mended:a.txt") == "one\ntwo"
    failing = script(tmp_path, {"calls": [{"tool": "finish", "arguments": {"summary": "No.", "success": False}}]})
    assert cli.run("run", str(source), "Do it.", "--model", failing).returncode == 1


def test_a_workspace_is_worked_in(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    task, workspace = waits(cli, source, tmp_path)
    assert workspace in [one["id"] for one in cli.json("workspace", "list")["workspaces"]]
    ran = cli.run("workspace", "exec", task, "-c", "cat; echo err >&2; exit 7", stdin=b"typed")
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"typed", b"err\n")
    (tmp_path / "local").mkdir()
    (tmp_path / "local/file").write_bytes(b"\xff\x00")
    done(cli.run("workspace", "cp", str(tmp_path / "local"), f"{workspace}:there"))
    done(cli.run("workspace", "cp", f"{workspace}:there/file", str(tmp_path / "back")))
    assert (tmp_path / "back").read_bytes() == b"\xff\x00"
    assert "ready" in done(cli.run("workspace", "list"))
    assert workspace in done(cli.run("workspace", "show", task))
    command = cli.json("logs", task)["commands"][0]["id"]
    assert "cat; echo err" in done(cli.run("logs", task))
    done(cli.run("workspace", "exec", workspace, "--", "echo", "logged"))
    assert done(cli.run("logs", workspace, "--last")) == "logged\n"
    done(cli.run("record", task, command, "-o", str(tmp_path / "cast")))
    assert json.loads((tmp_path / "cast").read_text().splitlines()[0])["version"] == 2
    done(cli.run("workspace", "exec", workspace, "--", "touch", "go"))
    done(cli.run("task", "follow", task))


def test_follow_goes_on_over_the_kill_of_the_server(
    cli: ShadowCli, server: Server, source: Path, tmp_path: Path
) -> None:
    task, workspace = waits(cli, source, tmp_path)
    with cli.start("task", "follow", task, "--json") as following:
        assert following.stdout is not None
        lines = [json.loads(following.stdout.readline())]
        while lines[-1]["kind"] != "command_started":
            lines.append(json.loads(following.stdout.readline()))
        restart(server)
        done(cli.run("workspace", "exec", workspace, "--", "touch", "go"))
        lines += [json.loads(line) for line in following.stdout]
        following.wait(DEADLINE_S)
    assert following.returncode == 0
    logged = [json.loads(line) for line in done(cli.run("task", "events", task)).splitlines()]
    assert lines == [{name: value for name, value in line.items() if name not in ("seq", "at")} for line in logged]


def test_a_terminal_goes_on_over_the_kill_of_the_server(
    cli: ShadowCli, server: Server, source: Path, tmp_path: Path
) -> None:
    task, _ = waits(cli, source, tmp_path)
    with Person(cli, "terminal", task, *BASH) as person:
        person.is_sent(b"$ ")
        person.type("mine=there; echo before $((6 * 7))\r")
        person.sees("before 42")
        server.end(signal.SIGKILL)
        person.type("echo meanwhile $mine\r")
        asyncio.run(server.start())
        person.sees("meanwhile there")
        person.type("touch go; exit 5\r")
        assert person.leaves() == 5
    done(cli.run("task", "follow", task))


def test_ctrl_c_leaves_and_the_server_goes_on(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    task, workspace = waits(cli, source, tmp_path)
    with cli.start("task", "follow", task, "--json") as following:
        assert following.stdout is not None
        following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, told = following.communicate(timeout=DEADLINE_S)
    assert following.returncode == 130
    assert task.encode() in told
    assert task_of(cli, task)["state"] == "running"
    done(cli.run("workspace", "exec", workspace, "--", "touch", "go"))
    done(cli.run("task", "follow", task))


def test_a_patch_is_fetched_as_the_server_keeps_it(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    model, out = script(tmp_path, shell("echo two >> a.txt; printf '\\0\\1' > binary"), FINISH), tmp_path / "out.patch"
    done(cli.run("run", str(source), "Do it.", "--model", model, "--deliver", "patch", "--output", str(out)))
    task = cli.json("task", "list", "--limit", "1")["tasks"][0]["id"]
    assert cli.run("task", "patch", task).stdout == out.read_bytes()
    (artifact,) = cli.json("task", "artifacts", task)["artifacts"]
    assert artifact["size_bytes"] == out.stat().st_size
    git(source, "am", "-q", str(out))
    assert ((source / "a.txt").read_bytes(), (source / "binary").read_bytes()) == (b"one\ntwo\n", b"\0\1")


def test_what_was_delivered_as_a_branch_is_a_patch_too(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    task, out = begun(cli, source, script(tmp_path, shell("echo two >> a.txt"), FINISH)), tmp_path / "out.patch"
    done(cli.run("task", "follow", task))
    done(cli.run("task", "patch", task, "-o", str(out)))
    git(source, "apply", "--index", str(out))
    assert (source / "a.txt").read_bytes() == b"one\ntwo\n"


def test_what_no_server_does_is_refused(cli: ShadowCli, server: Server, source: Path, tmp_path: Path) -> None:
    for arguments in (
        ("workspace", "create"),
        ("workspace", "deliver", "x"),
        ("audit", "verify"),
        ("run", str(source), "x", "--record", str(tmp_path / "record")),
    ):
        assert refused(cli.run(*arguments, "--json"), 3)["code"] == "unsupported", arguments
    for command in ("backup", "doctor", "demo", "serve"):
        ran = cli.run("--server", server.url, command, *(["x"] if command == "backup" else []))
        assert (ran.returncode, b"this host" in ran.stderr) == (2, True), ran
    done(cli.run("--server", "none", "workspace", "list"))


def test_a_server_that_is_away_or_knows_nobody_is_told(cli: ShadowCli, server: Server) -> None:
    wrong = ShadowCli(cli.home, {"SHADOW_SERVER_TOKEN": "shadow_token_wrong", "SHADOW_SERVER": server.url})
    assert refused(wrong.run("task", "list", "--json"))["code"] == "unauthenticated"
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        away = ShadowCli(
            cli.home, {"SHADOW_SERVER_TOKEN": "x", "SHADOW_SERVER": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        )
        assert refused(away.run("task", "list", "--json"))["code"] == "unavailable"
    assert refused(cli.run("--server", "ftp://x", "task", "list", "--json"))["code"] == "rejected"


def test_tokens_and_users(cli: ShadowCli, server: Server, tmp_path: Path) -> None:
    made = cli.json("token", "create", "--name", "reader", "--scope", "tasks:read", "--expires", "1h")
    program = ShadowCli(tmp_path, {"SHADOW_SERVER": server.url, "SHADOW_SERVER_TOKEN": made["token"]})
    assert "tasks" in program.json("task", "list")
    assert refused(program.run("workspace", "list", "--json"))["code"] == "denied"
    assert refused(program.run("audit", "list", "--json"))["code"] == "denied"
    (entry, *_) = cli.json("audit", "list")["entries"]
    assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/v1/tokens", 201)
    assert [one["name"] for one in cli.json("usage")["users"]] == ["local"]
    assert "reader" in done(cli.run("token", "list"))
    done(cli.run("token", "revoke", made["credential"]["id"]))
    assert refused(program.run("task", "list", "--json"))["code"] == "unauthenticated"
    invited = cli.json("user", "invite", "ada", "--role", "viewer")
    ada = ShadowCli(tmp_path / "ada")
    (tmp_path / "ada").mkdir()
    done(ada.run("login", server.url, "--code", invited["code"]))
    assert ada.json("task", "list")["tasks"] == []
    assert refused(ada.run("user", "list", "--json"))["code"] == "denied"
    assert cli.json("user", "change", "ada", "--role", "member")["user"]["role"] == "member"
    code = cli.json("user", "code", "ada")["code"]
    done(cli.run("user", "change", "ada", "--disable"))
    assert refused(ada.run("task", "list", "--json"))["code"] == "unauthenticated"
    assert refused(ada.run("login", server.url, "--code", code, "--json"))["code"] == "unauthenticated"
    assert "shut out" in done(cli.run("user", "list"))
    assert refused(cli.run("user", "change", "nobody", "--enable", "--json"))["code"] == "not_found"


def logged_in_as(cli: ShadowCli, server: Server, directory: Path, name: str, *options: str) -> ShadowCli:
    """Somebody whom ``cli``, an administrator, has invited."""
    (directory / name).mkdir()
    theirs = ShadowCli(directory / name)
    done(theirs.run("login", server.url, "--code", cli.json("user", "invite", name, *options)["code"]))
    return theirs


def test_a_project_is_shared_by_those_who_are_in_it(
    cli: ShadowCli, server: Server, source: Path, tmp_path: Path
) -> None:
    project = done(cli.run("project", "create", "Website")).strip()
    assert refused(cli.run("user", "invite", "max", "--project", "None such", "--json"))["code"] == "not_found"
    max_ = logged_in_as(cli, server, tmp_path, "max", "--project", "Website")  # nobody was made by the refused one
    task = begun(cli, source, script(tmp_path, FINISH), "--project", project[:9])
    assert "Website" in done(max_.run("task", "list"))
    assert [one["id"] for one in max_.json("task", "list", "--project", "Website")["tasks"]] == [task]
    members = cli.json("project", "add", project, "max", "--role", "viewer")["members"]
    assert [(one["name"], one["role"]) for one in members] == [("local", "member"), ("max", "viewer")]
    assert refused(max_.run("task", "send", task, "x", "--json"))["code"] == "denied"
    assert refused(cli.run("project", "delete", "Website", "--json"))["code"] == "conflict"
    assert "Site" in done(cli.run("project", "rename", "Website", "Site"))
    assert "viewer" in done(max_.run("project", "show", "Site"))
    done(cli.run("project", "remove", "Site", "max"))
    assert max_.json("project", "list")["projects"] == []
    done(cli.run("task", "delete", task))
    done(cli.run("project", "delete", project))


def test_without_a_server_there_are_no_projects(source: Path, tmp_path: Path) -> None:
    alone = ShadowCli(tmp_path, {"SHADOW_MODEL": script(tmp_path, FINISH)})
    for arguments in (
        ("project", "list"),
        ("task", "list", "--project", "x"),
        ("task", "create", str(source), "x", "--project", "x"),
    ):
        error = refused(alone.run(*arguments, "--json"), 2)
        assert (error["code"], "--server" in error["mend"]) == ("wrong_usage", True), arguments


def test_who_may_only_read_watches_a_terminal(cli: ShadowCli, server: Server, source: Path, tmp_path: Path) -> None:
    cli.json("project", "create", "Watched")
    watcher = logged_in_as(cli, server, tmp_path, "ivy", "--role", "viewer", "--project", "Watched", "--as", "viewer")
    busy = script(tmp_path, shell("touch up; while [ ! -e go ]; do sleep 0.05; done"), FINISH)
    task = begun(cli, source, busy, "--project", "Watched")
    until(lambda: b'"command_started"' in cli.run("task", "events", task).stdout)
    assert refused(watcher.run("workspace", "exec", task, "--json", "--", "ls"), 125)["code"] == "denied"
    with Person(cli, "terminal", task, *BASH, columns=90, rows=20) as person:
        person.is_sent(b"$ ")
        with Person(watcher, "terminal", task, columns=70, rows=20) as refusal:
            assert refusal.leaves() == 125
            assert b"--last" in refusal.sent
        for options in (("--last",), ("--last", "--read-only")):
            with Person(watcher, "terminal", task, *options, columns=70, rows=20) as viewer:
                viewer.is_sent(b"the program goes on")
                assert (b"you may only watch" in viewer.sent) == (len(options) == 1)
                viewer.type("echo typed by nobody\r")
                person.type("stty size; echo seen $((6 * 7))\r")
                viewer.sees("seen 42")
                assert "20 90" in "\n".join(viewer.screen.text)
                assert b"typed by nobody" not in person.sent
                viewer.type("\x1d")
                assert viewer.leaves() == 0
        person.type("touch go; exit 0\r")
        assert person.leaves() == 0
    done(cli.run("task", "follow", task))
