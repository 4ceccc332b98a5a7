"""``shadow workspace create --repo … --submodules --lfs`` in a sandbox."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git_servers import commit, git, http_server, make_repository
from tests.support.shadow_cli import ShadowCli


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[ShadowCli]:
    (tmp_path / "cli").mkdir()
    cli = ShadowCli(tmp_path / "cli")
    yield cli
    assert cli.run("workspace", "rm", "--all", "--yes").returncode == 0


@pytest.mark.parametrize("lfs", [False, True])
def test_submodules_and_large_files_come_along(cli: ShadowCli, tmp_path: Path, lfs: bool) -> None:
    if lfs and shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    served = tmp_path / "served"
    child = make_repository(served / "child", {".gitattributes": b"*.bin filter=lfs -text\n"})
    top = make_repository(served / "top")
    with http_server(served) as server:
        commit(child, {}, "attributes")
        large = server.lfs.add(b"large\n" * 1000)
        git(child, "config", "filter.lfs.process", "")
        git(child, "config", "filter.lfs.clean", "cat")
        git(child, "config", "filter.lfs.required", "false")
        commit(child, {"a.bin": large}, "large")
        git(top, "-c", "protocol.file.allow=always", "-c", "filter.lfs.smudge=cat", "-c", "filter.lfs.process=",
            "submodule", "--quiet", "add", "--", str(child), "sub")  # fmt: skip
        git(top, "config", "-f", ".gitmodules", "submodule.sub.url", "../child")
        commit(top, {}, "sub")
        id_ = cli.create("--repo", f"{server.url}/top", "--submodules", *(["--lfs"] if lfs else []))
    line = (
        "git submodule status | cut -c1; git status --porcelain; git submodule update --recursive; head -n1 sub/a.bin"
    )
    done = cli.run("workspace", "exec", id_, "-c", line)
    assert done.returncode == 0, done
    assert done.stdout.decode() == " \n" + ("large\n" if lfs else large.decode().splitlines(keepends=True)[0])


def test_they_go_with_a_repository(cli: ShadowCli) -> None:
    for option in ("--submodules", "--lfs"):
        done = cli.run("workspace", "create", option)
        assert done.returncode == 2
        assert b"--repo" in done.stderr
