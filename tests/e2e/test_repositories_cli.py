"""``shadow workspace create --repo`` and ``deliver`` as a user meets them: the real program, real sandboxes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git_servers import git, http_server, make_repository
from tests.support.shadow_cli import ShadowCli


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShadowCli]:
    cli = ShadowCli(tmp_path_factory.mktemp("cli"))
    yield cli
    done = cli.run("workspace", "rm", "--all", "--yes")
    assert done.returncode == 0, done


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "my project")


def error(cli: ShadowCli, *arguments: str) -> tuple[int, dict[str, str]]:
    done = cli.run(*arguments, "--json")
    return done.returncode, json.loads(done.stdout)["error"]


def test_a_branch_comes_back(cli: ShadowCli, source: Path) -> None:
    made = cli.json("workspace", "create", "--repo", str(source), "--name", "Fix it")["workspace"]
    assert made["checkout"]["branch"].startswith("shadow/fix-it-")
    inside = cli.run("workspace", "exec", made["id"], "-c", "git status -sb && echo new > new")
    assert inside.stdout.decode().strip() == f"## {made['checkout']['branch']}"
    done = cli.run("workspace", "deliver", made["id"], "--commit", "Add (new) `thing` — é\n\nWhy not.")
    assert done.returncode == 0, done
    assert b"new  +1 -0" in done.stderr
    branch = made["checkout"]["branch"]
    assert git(source, "show", f"{branch}:new") == "new"
    assert git(source, "log", "-1", "--format=%B", branch).strip() == "Add (new) `thing` — é\n\nWhy not."
    assert git(source, "status", "--porcelain") == ""
    shown = cli.run("workspace", "show", made["id"]).stdout.decode()
    assert branch in shown
    assert str(source) in shown


def test_a_patch_to_a_file_and_to_stdout(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    id_ = cli.create("--repo", str(source))
    cli.run("workspace", "exec", id_, "-c", "echo new > new")
    out = tmp_path / "out.patch"
    assert cli.run("workspace", "deliver", id_, "--commit", "x", "--to", "patch", "-o", str(out)).returncode == 0
    assert out.read_bytes() == cli.run("workspace", "deliver", id_, "--to", "patch").stdout
    again, problem = error(cli, "workspace", "deliver", id_, "--to", "patch", "-o", str(out))
    assert (again, problem["code"]) == (1, "already_exists")


def test_over_http(cli: ShadowCli, source: Path) -> None:
    git(source, "config", "http.receivepack", "true")
    with http_server(source.parent) as server:
        id_ = cli.create("--repo", f"{server.url}/my%20project")
        cli.run("workspace", "exec", id_, "-c", "echo new > new")
        done = cli.json("workspace", "deliver", id_, "--commit", "x", "--branch", "work")
    assert git(source, "rev-parse", "work") == done["commit"]


def test_what_cannot_be_says_why_and_leaves_nothing(cli: ShadowCli, source: Path, tmp_path: Path) -> None:
    before = cli.json("workspace", "list")
    (tmp_path / "empty").mkdir()
    cases = {
        ("--repo", str(tmp_path / "empty")): "not_a_repository",
        ("--repo", str(tmp_path / "nowhere")): "not_found",
        ("--repo", str(source), "--branch", "nope"): "not_found",
        ("--repo", "ext::sh -c x"): "rejected",
        ("--repo", "http://127.0.0.1:9/x"): "remote_unreachable",
        ("--repo", str(source), "--from", str(source)): "wrong_usage",
        ("--branch", "main"): "wrong_usage",
    }
    for arguments, code in cases.items():
        status, problem = error(cli, "workspace", "create", *arguments)
        assert (problem["code"], bool(status), bool(problem["mend"])) == (code, True, True), (arguments, problem)
    assert cli.json("workspace", "list") == before


def test_deliver_needs_a_repository_and_work(cli: ShadowCli, source: Path) -> None:
    plain, filled = cli.create(), cli.create("--repo", str(source))
    assert error(cli, "workspace", "deliver", plain)[1]["code"] == "rejected"
    assert error(cli, "workspace", "deliver", filled)[1]["code"] == "nothing_to_deliver"
    assert error(cli, "workspace", "deliver", filled, "--to", "moon")[1]["code"] == "wrong_usage"
