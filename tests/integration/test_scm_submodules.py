"""Submodules come along on request, from real servers and from what a local parent has, each by a mirror of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.core.egress import parse_rules
from shadow.core.errors import NotFound, Rejected
from shadow.core.repositories import parse_repository
from shadow.scm.failures import CredentialsWanted
from shadow.scm.repositories import Repositories
from tests.support.git_servers import GitServer, commit, git, http_server, make_certificate, make_repository
from tests.support.scm import clone, commit_inside, repositories, sh

pytestmark = pytest.mark.anyio


@pytest.fixture
def repos(tmp_path: Path) -> Repositories:
    return repositories(tmp_path / "data")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return tmp_path / "served"


@pytest.fixture
def server(served: Path) -> Iterator[GitServer]:
    served.mkdir()
    with http_server(served) as running:
        yield running


def add_submodule(parent: Path, child: Path, *, url: str, path: str, name: str | None = None) -> str:
    """As `git submodule add`, with ``child`` in its place; the parent's commit."""
    named = ["--name", name] if name else []
    git(parent, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", *named, "--", str(child), path)
    git(parent, "config", "-f", ".gitmodules", f"submodule.{name or path}.url", url)
    return commit(parent, {}, f"add {path}")


async def is_clean(executor) -> None:
    """What git itself says: everything there, nothing to do, nothing changed."""
    lines = (await sh(executor, "git submodule status --recursive")).splitlines()
    assert lines
    assert all(line.startswith(" ") for line in lines), lines
    assert await sh(executor, "git status --porcelain") == ""
    assert await sh(executor, "git submodule update --init --recursive 2>&1") == ""
    assert await sh(executor, "git submodule foreach --quiet --recursive 'git fsck --strict 2>&1'") == ""


async def test_submodules_of_a_remote_come_along_nested_ones_too(
    repos: Repositories, server: GitServer, served: Path, tmp_path: Path
) -> None:
    inner = make_repository(served / "inner.git", {"deep": b"deep\n"})
    middle = make_repository(served / "libs/middle", {"m": b"m\n"})
    add_submodule(middle, inner, url="../../inner.git", path="vendor/inner", name="in ner")
    top = make_repository(served / "top")
    add_submodule(top, middle, url=f"{server.url}/libs/middle", path="libs/mid dle", name="group/middle")
    add_submodule(top, inner, url="../inner.git/", path="inner")
    async with clone(repos, f"{server.url}/top", tmp_path / "w", submodules=True) as (executor, checkout):
        assert checkout.repository == f"{server.url}/top"
        assert (
            await sh(executor, "cat 'libs/mid dle/m' 'libs/mid dle/vendor/inner/deep' inner/deep") == "m\ndeep\ndeep\n"
        )
        await is_clean(executor)
        origin = "git -C 'libs/mid dle/vendor/inner' remote get-url origin"
        assert (await sh(executor, origin)).strip() == f"{server.url}/inner.git"
        # Work in a submodule is ordinary work.
        await sh(executor, "cd inner && echo more > deep && git commit -qam more && cd .. && git diff --submodule=log")
        assert (await sh(executor, "git status --porcelain")).strip() == "M inner"


async def test_without_being_asked_they_stay_away(
    repos: Repositories, server: GitServer, served: Path, tmp_path: Path
) -> None:
    child = make_repository(served / "child")
    top = make_repository(served / "top")
    add_submodule(top, child, url="../child", path="sub")
    async with clone(repos, f"{server.url}/top", tmp_path / "w") as (executor, _):
        assert await sh(executor, "ls sub") == ""
        assert await sh(executor, "git status --porcelain") == ""
    assert not any("/child" in request for request in server.requests)


async def test_an_older_commit_and_one_on_no_branch(
    repos: Repositories, server: GitServer, served: Path, tmp_path: Path
) -> None:
    child = make_repository(served / "child")
    top = make_repository(served / "top")
    lonely = commit(child, {"lonely": b"x"}, "on no branch")
    add_submodule(top, child, url="../child", path="sub")
    git(child, "reset", "--quiet", "--hard", "HEAD~1")
    commit(child, {"later": b"x"}, "later")
    for number in range(2):  # from the remote, then from the mirror
        async with clone(repos, f"{server.url}/top", tmp_path / f"w{number}", submodules=True) as (executor, _):
            assert (await sh(executor, "git -C sub rev-parse HEAD")).strip() == lonely
            assert await sh(executor, "ls sub") == "README\nlonely\nsrc\n"
            await is_clean(executor)
    wants = [request for request in server.requests if "POST /child/git-upload-pack" in request]
    assert len(wants) <= 5  # two listings, the branches, the commit, and one more listing


async def test_with_a_depth(repos: Repositories, server: GitServer, served: Path, tmp_path: Path) -> None:
    child = make_repository(served / "child")
    top = make_repository(served / "top")
    pinned = commit(child, {"pinned": b"x"}, "pinned")
    add_submodule(top, child, url="../child", path="sub")
    for number in range(3):
        commit(child, {"n": b"%d" % number}, str(number))
    async with clone(repos, f"{server.url}/top", tmp_path / "w", submodules=True, depth=1) as (executor, _):
        assert (await sh(executor, "git -C sub rev-parse HEAD; git log --oneline | wc -l")).split() == [pinned, "1"]
        assert (await sh(executor, "git -C sub log --oneline | wc -l")).strip() == "1"
        await is_clean(executor)


async def test_a_commit_that_the_remote_does_not_have(
    repos: Repositories, server: GitServer, served: Path, tmp_path: Path
) -> None:
    child = make_repository(served / "child")
    other = make_repository(tmp_path / "other")
    commit(other, {"x": b"x"}, "elsewhere")
    top = make_repository(served / "top")
    add_submodule(top, other, url="../child", path="sub")
    with pytest.raises(NotFound) as caught:
        async with repos.opened(parse_repository(f"{server.url}/top", local_user=True), submodules=True):
            pass
    assert "sub" in caught.value.message
    assert caught.value.mend
    blob = git(child, "rev-parse", "HEAD:README")  # there, and no commit
    git(top, "update-index", "--cacheinfo", f"160000,{blob},sub")
    git(top, "commit", "--quiet", "-m", "a blob")
    with pytest.raises(NotFound):
        async with repos.opened(parse_repository(f"{server.url}/top", local_user=True), submodules=True):
            pass


async def test_what_update_none_says_stays_away(
    repos: Repositories, server: GitServer, served: Path, tmp_path: Path
) -> None:
    child = make_repository(served / "child")
    top = make_repository(served / "top")
    add_submodule(top, child, url="../child", path="sub")
    git(top, "config", "-f", ".gitmodules", "submodule.sub.update", "none")
    commit(top, {}, "not this one")
    async with clone(repos, f"{server.url}/top", tmp_path / "w", submodules=True) as (executor, _):
        assert await sh(executor, "ls sub") == ""


async def test_a_local_parent_gives_what_it_has_itself(repos: Repositories, tmp_path: Path) -> None:
    """Also commits that were made there and pushed nowhere."""
    inner = make_repository(tmp_path / "inner", {"deep": b"deep\n"})
    middle = make_repository(tmp_path / "middle", {"m": b"m\n"})
    add_submodule(middle, inner, url=str(inner), path="inner")
    top = make_repository(tmp_path / "top")
    add_submodule(top, middle, url=str(middle), path="middle")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    own = commit(top / "middle", {"own": b"own\n"}, "made here, on no branch")
    commit(top, {}, "take it")
    async with clone(repos, str(top), tmp_path / "w", submodules=True) as (executor, _):
        assert await sh(executor, "cat middle/own middle/inner/deep") == "own\ndeep\n"
        assert (await sh(executor, "git -C middle rev-parse HEAD")).strip() == own
        await is_clean(executor)
    git(top, "worktree", "add", "-q", str(tmp_path / "tree"))
    async with clone(repos, str(tmp_path / "tree"), tmp_path / "w2", submodules=True) as (executor, _):
        assert await sh(executor, "cat middle/own") == "own\n"


async def test_a_local_parent_without_its_submodule_says_how_to_get_it(repos: Repositories, tmp_path: Path) -> None:
    child = make_repository(tmp_path / "child")
    top = make_repository(tmp_path / "top")
    add_submodule(top, child, url="../child", path="sub")
    git(tmp_path, "clone", "--quiet", str(top), "fresh")
    with pytest.raises(NotFound, match="git submodule update --init"):
        async with repos.opened(parse_repository(str(tmp_path / "fresh"), local_user=True), submodules=True):
            pass


async def test_a_local_parent_may_lead_to_a_remote(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    if certificate is None:
        pytest.skip("openssl is not installed")
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
    child = make_repository(served / "child")
    top = make_repository(tmp_path / "top")
    repos = repositories(tmp_path / "data", egress=parse_rules(["127.0.0.1:*"]))
    with http_server(served, certificate=certificate) as server:
        add_submodule(top, child, url=f"{server.url}/child", path="sub")
        git(tmp_path, "clone", "--quiet", str(top), "fresh")
        async with clone(repos, str(tmp_path / "fresh"), tmp_path / "w", submodules=True) as (executor, _):
            await sh(executor, "cat sub/README")
            await is_clean(executor)


async def test_credentials_go_along_to_the_same_host(server: GitServer, served: Path, tmp_path: Path) -> None:
    child = make_repository(served / "child")
    top = make_repository(served / "top")
    add_submodule(top, child, url="../child", path="sub")
    server.user = ("me", "s3cret")
    address = f"{server.url}/top"
    with_tokens = repositories(tmp_path / "data", tokens="127.0.0.1=me:s3cret")
    async with clone(with_tokens, address, tmp_path / "w", submodules=True) as (executor, _):
        assert await sh(executor, "grep -ra s3cret . || true") == ""
    without = repositories(tmp_path / "data2")
    async with clone(without, address.replace("//", "//me:s3cret@"), tmp_path / "w2", submodules=True) as (executor, _):
        await sh(executor, "cat sub/README")
        assert await sh(executor, "grep -ra s3cret . || true") == ""
    with pytest.raises(CredentialsWanted):
        async with repositories(tmp_path / "data3").opened(parse_repository(address, local_user=True), submodules=True):
            pass


async def test_work_on_the_parent_is_delivered(repos: Repositories, tmp_path: Path) -> None:
    child = make_repository(tmp_path / "child")
    top = make_repository(tmp_path / "top")
    add_submodule(top, child, url="../child", path="sub")
    async with clone(repos, str(top), tmp_path / "w", submodules=True) as (executor, checkout):
        await commit_inside(executor, "echo new > new")
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
            assert [change.path for change in work.changes] == ["new"]
    assert git(top, "show", f"{checkout.branch}:new") == "new"


async def test_a_submodule_that_nothing_describes(repos: Repositories, tmp_path: Path) -> None:
    top = make_repository(tmp_path / "top")
    git(top, "update-index", "--add", "--cacheinfo", f"160000,{git(top, 'rev-parse', 'HEAD')},stray")
    git(top, "commit", "--quiet", "-m", "stray")
    with pytest.raises(Rejected, match="stray"):
        async with repos.opened(parse_repository(str(top), local_user=True), submodules=True):
            pass


async def test_a_parent_of_somebody_else_gives_its_submodules_and_large_files(
    repos: Repositories, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a repository away")
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    child = make_repository(tmp_path / "child", {".gitattributes": b"*.bin filter=lfs -text\n"})
    git(child, "lfs", "install", "--local")
    commit(child, {"a.bin": b"large"}, "large")
    top = make_repository(tmp_path / "top")
    add_submodule(top, child, url=str(child), path="sub")
    git(top / "sub", "lfs", "fetch")
    subprocess.run(["chown", "-R", "12345:12345", top], check=True)
    for parent in top.parents:
        if str(parent).startswith("/tmp/") and parent != Path("/tmp"):
            parent.chmod(0o755)
    async with clone(repos, str(top), tmp_path / "w", submodules=True, lfs=True) as (executor, _):
        assert await sh(executor, "cat sub/a.bin") == "large"
        await is_clean(executor)
