"""``shadow workspace egress`` as a user meets it."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import needs_curl
from tests.support.shadow_cli import ShadowCli


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShadowCli]:
    cli = ShadowCli(tmp_path_factory.mktemp("cli"))
    yield cli
    done = cli.run("workspace", "rm", "--all", "--yes")
    assert done.returncode == 0, done


@pytest.fixture
def port() -> Iterator[int]:
    """Of a web server of the host."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def rules(cli: ShadowCli, id_: str, *options: str) -> list[str]:
    return cli.json("workspace", "egress", id_, *options)["egress"]["rules"]


def test_rules_are_given_shown_added_and_removed(cli: ShadowCli) -> None:
    id_ = cli.create("--allow", "pypi", "--allow", "private:git.corp.example:8443")
    preset = ["pypi.org", "files.pythonhosted.org"]
    assert rules(cli, id_) == [*preset, "private:git.corp.example:8443"]
    assert rules(cli, id_, "--allow", ".example.org", "--allow", "pypi")[-1] == ".example.org"
    assert rules(cli, id_, "--remove", "pypi") == ["private:git.corp.example:8443", ".example.org"]
    assert rules(cli, id_, "--nothing", "--allow", "go") == ["proxy.golang.org", "sum.golang.org"]
    shown = cli.run("workspace", "egress", id_)
    assert (shown.returncode, b"proxy.golang.org" in shown.stdout) == (0, True)
    assert rules(cli, id_, "--nothing") == []
    assert b"It may reach no host" in cli.run("workspace", "egress", id_).stderr


@needs_curl
def test_the_command_that_a_refusal_names_allows_it(cli: ShadowCli, port: int) -> None:
    id_ = cli.create("--allow", "example.org")
    fetch = ("workspace", "exec", id_, "--", "curl", "-sS", "--noproxy", "", f"http://127.0.0.1:{port}/")
    said = cli.run(*fetch).stdout.decode()
    named = said.partition("shadow ")[2].split()
    assert named[:4] == ["workspace", "egress", id_, "--allow"], said
    done = cli.run(*(word.strip("'") for word in named))
    assert done.returncode == 0, done
    assert b"Directory listing" in cli.run(*fetch).stdout
    shown = cli.json("workspace", "egress", id_)["egress"]
    assert [event["kind"] for event in shown["events"]] == ["refused", "first_use"]
    assert shown["counters"]["rules"][f"127.0.0.1:{port}"]["connections"] == 1


def test_the_setting_is_for_workspaces_that_say_nothing(cli: ShadowCli) -> None:
    with_setting = ShadowCli(cli.home, env={"SHADOW_EGRESS": "npm .example.org"})
    assert rules(cli, with_setting.create()) == [".npmjs.org", ".yarnpkg.com", ".example.org"]
    assert rules(cli, with_setting.create("--allow", "go")) == ["proxy.golang.org", "sum.golang.org"]
    done = ShadowCli(cli.home, env={"SHADOW_EGRESS": "https://example.org"}).run("workspace", "list")
    assert (done.returncode, b"write the host alone" in done.stderr) == (2, True)


def test_mistakes_are_explained(cli: ShadowCli, tmp_path: Path) -> None:
    done = cli.run("workspace", "create", "--allow", "pipy")
    assert (done.returncode, b"no preset 'pipy'" in done.stderr) == (1, True)
    id_ = cli.create()
    done = cli.run("workspace", "egress", id_, "--remove", "example.org")
    assert (done.returncode, b"There is no rule example.org" in done.stderr) == (1, True)
    none = cli.create("--isolation", "none")
    done = cli.run("workspace", "egress", none, "--allow", "example.org")
    assert (done.returncode, b"host's network" in done.stderr) == (3, True)
    assert cli.run("workspace", "create", "--isolation", "none", "--allow", "pypi").returncode == 3
