"""Repositories come in from real servers and paths, with what is asked for and nothing else, or a typed error and nothing."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shadow.core.errors import LimitExceeded, NotARepository, NotFound, Rejected, ShadowError
from shadow.core.repositories import Checkout, parse_repository
from shadow.execution.interface import ToolExecutor
from shadow.scm.failures import (
    CredentialsWanted,
    EmptyRepository,
    RemoteUnreachable,
    TlsFailed,
    UnsoundRepository,
)
from shadow.scm.git import Call
from shadow.scm.git import git as git_call
from shadow.scm.owners import Owner
from shadow.scm.repositories import Repositories
from tests.support.git_servers import GitServer, commit, git, http_server, make_certificate, make_repository, ssh_server
from tests.support.scm import clone, repositories, sh

pytestmark = pytest.mark.anyio


@pytest.fixture
def repos(tmp_path: Path) -> Repositories:
    return repositories(tmp_path / "data")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "served/source")


@pytest.fixture
def server(source: Path) -> Iterator[GitServer]:
    with http_server(source.parent) as running:
        yield running


@pytest.fixture
def cloned(repos: Repositories, tmp_path: Path):
    @asynccontextmanager
    async def opened(
        address: str | Path, name: str = "w", **options: object
    ) -> AsyncGenerator[tuple[ToolExecutor, Checkout]]:
        async with clone(repos, str(address), tmp_path / name, **options) as found:
            yield found

    return opened


async def refused(repos: Repositories, address: str | Path, **options: object) -> ShadowError:
    """The error; and that it says what to do."""
    with pytest.raises(ShadowError) as caught:
        async with repos.opened(parse_repository(str(address), local_user=True), **options):  # type: ignore[arg-type]
            pass
    assert caught.value.mend
    return caught.value


# What is there afterwards


async def test_a_clone_stands_on_its_own_branch(cloned, source: Path) -> None:
    git(source, "tag", "-a", "v1", "-m", "v1")
    git(source, "branch", "topic/ümlaut")
    head = git(source, "rev-parse", "HEAD")
    async with cloned(source, about="Fix it") as (executor, checkout):
        assert checkout.base_commit == head
        assert checkout.base_branch == "main"
        assert (await sh(executor, "git symbolic-ref HEAD")).strip() == f"refs/heads/{checkout.branch}"
        assert (await sh(executor, "git status --porcelain")) == ""
        assert (await sh(executor, "git rev-parse HEAD main origin/main origin/HEAD v1^{}")).split() == [head] * 5
        assert "topic/ümlaut" in await sh(executor, "git branch -a")
        assert (await sh(executor, "git config user.name; git config user.email")).split() == [
            "Shadow",
            "shadow@localhost",
        ]
        assert (await sh(executor, "git remote get-url origin")).strip() == str(source)
        await sh(executor, "git fsck --strict")


async def test_only_heads_and_tags_come_along(cloned, source: Path) -> None:
    (source / "README").write_text("secret")
    git(source, "stash")
    git(source, "update-ref", "refs/private/x", "HEAD")
    commit(source, {"gone": b"secret of a deleted branch"}, "gone")
    gone = git(source, "rev-parse", "HEAD")
    git(source, "reset", "--hard", "HEAD~1")
    async with cloned(source) as (executor, _):
        refs = await sh(executor, "git for-each-ref --format='%(refname)'")
        assert "stash" not in refs
        assert "private" not in refs
        assert (await sh(executor, f"git cat-file -e {gone} 2>/dev/null && echo there || true")) == ""


async def test_what_the_remote_takes_back_goes_from_the_mirror(repos: Repositories, cloned, source: Path) -> None:
    secret = commit(source, {"secret": b"a token"}, "oops")
    async with cloned(source, "one") as (executor, _):
        await sh(executor, f"git cat-file -e {secret}")
    git(source, "reset", "--hard", "HEAD~1")
    async with cloned(source, "two") as (executor, _):
        assert (await sh(executor, f"git cat-file -e {secret} 2>/dev/null && echo there || true")) == ""


async def test_later_commits_come_with_the_next_fetch(cloned, source: Path) -> None:
    for number in range(20):  # more fetches than packs are kept
        new = commit(source, {f"file{number}": b"x"}, f"number {number}")
        async with cloned(source, f"w{number}") as (executor, checkout):
            assert checkout.base_commit == new
            assert (await sh(executor, "git log --oneline | wc -l")).strip() == str(number + 2)


async def test_a_branch_or_a_tag_may_be_named(cloned, source: Path) -> None:
    first = git(source, "rev-parse", "HEAD")
    git(source, "tag", "-a", "v1", "-m", "one")
    second = commit(source, {"b": b"b"}, "second")
    git(source, "checkout", "-q", "-b", "dev/x", first)
    async with cloned(source, "a", branch="main") as (_, checkout):
        assert (checkout.base_branch, checkout.base_commit) == ("main", second)
    async with cloned(source, "b", branch="v1") as (executor, checkout):
        assert (checkout.base_branch, checkout.base_commit) == (None, first)
        assert (await sh(executor, "git log --oneline | wc -l")).strip() == "1"
    async with cloned(source, "c") as (_, checkout):
        assert checkout.base_branch == "dev/x"


async def test_a_detached_source(cloned, source: Path) -> None:
    commit(source, {"b": b"b"}, "second")
    git(source, "checkout", "-q", "--detach")
    lonely = commit(source, {"c": b"c"}, "on no branch")
    async with cloned(source) as (executor, checkout):
        assert (checkout.base_branch, checkout.base_commit) == (None, lonely)
        assert (await sh(executor, "cat c")) == "c"


async def test_a_worktree_of_another_repository(cloned, source: Path, tmp_path: Path) -> None:
    git(source, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
    there = commit(tmp_path / "tree", {"b": b"b"}, "beside")
    async with cloned(tmp_path / "tree") as (_, checkout):
        assert (checkout.base_branch, checkout.base_commit) == ("side", there)


async def test_a_bare_and_a_shallow_source(cloned, source: Path, tmp_path: Path) -> None:
    commit(source, {"b": b"b"}, "second")
    git(tmp_path, "clone", "-q", "--bare", str(source), "bare.git")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{source}", "shallow")
    async with cloned(tmp_path / "bare.git", "a") as (executor, _):
        assert (await sh(executor, "git log --oneline | wc -l")).strip() == "2"
    async with cloned(tmp_path / "shallow", "b") as (executor, _):
        assert (await sh(executor, "git log --oneline | wc -l; cat b")).split() == ["1", "b"]
        await sh(executor, "git fsck")


async def test_a_depth_may_be_asked_for(cloned, server: GitServer, source: Path) -> None:
    for number in range(5):
        commit(source, {"n": b"%d" % number}, str(number))
    async with cloned(f"{server.url}/source", "a", depth=2) as (executor, checkout):
        assert (await sh(executor, "git log --oneline | wc -l")).strip() == "2"
        assert checkout.depth == 2
    async with cloned(f"{server.url}/source", "b") as (executor, _):
        assert (await sh(executor, "git log --oneline | wc -l")).strip() == "6"


async def test_sha256_objects(cloned, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "-q", "--object-format=sha256", "-b", "main")
    head = commit(tmp_path / "new", {"a": b"a"}, "first")
    async with cloned(tmp_path / "new") as (executor, checkout):
        assert checkout.base_commit == head
        await sh(executor, "git fsck && cat a")


async def test_awkward_names(cloned, tmp_path: Path) -> None:
    names = [
        "a b",
        "-n",
        "--",
        "é",
        "e\u0301",
        "tab\there",
        "new\nline",
        "q'uo\"te",
        "back\\slash",
        ":(glob)x",
        "HEAD",
        "$&",
    ]
    files = {name: name.encode() for name in names}
    make_repository(tmp_path / "awk ward'$(x)", files)
    odd = os.fsencode(str(tmp_path / "awk ward'$(x)")) + b"/\xff\xfe"
    Path(os.fsdecode(odd)).write_bytes(b"bytes")
    git(tmp_path / "awk ward'$(x)", "add", "-A")
    git(tmp_path / "awk ward'$(x)", "commit", "-qm", "odd")
    async with cloned(tmp_path / "awk ward'$(x)") as (executor, _):
        assert (await sh(executor, "git status --porcelain")) == ""
        for name in names:
            assert (await executor.read_file(name)).content == name.encode()
        assert (await executor.read_file(os.fsdecode(b"\xff\xfe"))).content == b"bytes"


async def test_two_at_once_share_one_fetch(repos: Repositories, server: GitServer, tmp_path: Path) -> None:
    async def one(number: int) -> str:
        async with clone(repos, f"{server.url}/source", tmp_path / f"w{number}") as (_, checkout):
            return checkout.base_commit

    assert len(set(await asyncio.gather(*(one(number) for number in range(4))))) == 1
    assert len(list((tmp_path / "data/mirrors").glob("*/HEAD"))) == 1


async def test_mirrors_are_not_shared_between_owners(repos: Repositories, cloned, source: Path, tmp_path: Path) -> None:
    async with cloned(source, "a", owner=Owner(id="one")), cloned(source, "b", owner=Owner(id="two")):
        assert len(list((tmp_path / "data/mirrors").glob("*/HEAD"))) == 2


async def test_a_damaged_mirror_is_made_anew(cloned, source: Path, tmp_path: Path) -> None:
    async with cloned(source, "a"):
        pass
    (mirror,) = (path.parent for path in (tmp_path / "data/mirrors").glob("*/HEAD"))
    for pack in (mirror / "objects/pack").glob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(b"nonsense")
    commit(source, {"b": b"b"}, "second")
    try:
        async with cloned(source, "b"):
            pass
    except (UnsoundRepository, ShadowError):
        pass  # told once; the next one must work
    async with cloned(source, "c") as (executor, _):
        await sh(executor, "git fsck && cat b")


# Credentials


async def test_a_token_reaches_the_remote_and_nothing_else(server: GitServer, tmp_path: Path) -> None:
    server.user = ("x-access-token", "s3cret-t0ken")
    repos = repositories(tmp_path / "data", tokens="127.0.0.1=s3cret-t0ken")
    async with clone(repos, f"{server.url}/source", tmp_path / "w") as (executor, checkout):
        assert "x-access-token:s3cret-t0ken" in server.authorizations
        assert (await sh(executor, "grep -r s3cret . /proc/*/environ /proc/*/cmdline 2>/dev/null; true")) == ""
        assert "s3cret" not in checkout.repository
    everything = subprocess.run(["grep", "-ra", "s3cret-t0ken", tmp_path / "data"], capture_output=True, check=False)
    assert everything.stdout == b""


async def test_a_credential_in_the_address_is_used_and_not_kept(
    repos: Repositories, server: GitServer, tmp_path: Path
) -> None:
    server.user = ("me", "p@ss")
    address = server.url.replace("//", "//me:p%40ss@") + "/source"
    async with clone(repos, address, tmp_path / "w") as (executor, checkout):
        assert checkout.repository == f"{server.url}/source"
        assert "me:" not in await sh(executor, "git config --list")
    assert subprocess.run(["grep", "-ra", "p@ss", tmp_path / "data"], capture_output=True, check=False).stdout == b""


async def test_a_netrc_of_the_user_is_used(
    repos: Repositories, server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.user = ("net", "rc")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.netrc").write_text("machine 127.0.0.1 login net password rc\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    async with clone(repos, f"{server.url}/source", tmp_path / "w"):
        assert "net:rc" in server.authorizations


async def test_a_redirect_does_not_carry_the_token_to_another_host(server: GitServer, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other/source")
    repos = repositories(tmp_path / "data", tokens=f"{server.url.removeprefix('http://')}=s3cret")
    with http_server(other.parent) as elsewhere:
        elsewhere.user = ("nobody", "nothing")
        server.redirect = elsewhere.url
        error = await refused(repos, f"{server.url}/source")
        assert isinstance(error, CredentialsWanted)
        assert elsewhere.authorizations == []


async def test_credentials_are_wanted(repos: Repositories, server: GitServer) -> None:
    server.user = ("a", "b")
    assert isinstance(await refused(repos, f"{server.url}/source"), CredentialsWanted)
    wrong = server.url.replace("//", "//a:wrong@")
    error = await refused(repos, f"{wrong}/source")
    assert isinstance(error, CredentialsWanted)
    assert "wrong" not in str(error)


async def test_ssh(repos: Repositories, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloned) -> None:
    with ssh_server(tmp_path / "ssh") as ssh:
        if ssh is None:
            pytest.skip("sshd is not installed")
        address = f"ssh://127.0.0.1:{ssh.port}{source}"
        monkeypatch.setenv("GIT_SSH_COMMAND", ssh.command)
        async with cloned(address) as (executor, checkout):
            assert checkout.repository == address
            await sh(executor, "cat README")
        monkeypatch.setenv("GIT_SSH_COMMAND", ssh.strange_command)
        assert isinstance(await refused(repos, address), TlsFailed)  # the host cannot prove who it is
        monkeypatch.setenv("GIT_SSH_COMMAND", ssh.strange_command + " -o StrictHostKeyChecking=no")
        assert isinstance(await refused(repos, address), CredentialsWanted)


async def test_https(
    repos: Repositories, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloned
) -> None:
    certificate = make_certificate(tmp_path)
    if certificate is None:
        pytest.skip("openssl is not installed")
    with http_server(source.parent, certificate=certificate) as server:
        monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
        assert isinstance(await refused(repos, f"{server.url}/source"), TlsFailed)
        monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
        async with cloned(f"{server.url}/source") as (executor, _):
            await sh(executor, "cat README")


# git of the control plane


async def test_limits_of_git_hold_for_what_it_starts_however_busy_we_are() -> None:
    """index-pack and others are children of git; a limit that is set while git runs comes too late for them."""
    call = Call(arguments=["-c", "alias.limits=!ulimit -v", "limits"], memory_bytes=1 << 30)
    told = await asyncio.gather(*(git_call(call) for _ in range(20)))
    assert {tuple(done.stdout.split()[-1:]) for done in told} == {(b"%d" % (1 << 20),)}


# What cannot be


@pytest.mark.parametrize("name", ["missing", "missing.git"])
async def test_a_remote_without_that_repository(repos: Repositories, server: GitServer, name: str) -> None:
    assert isinstance(await refused(repos, f"{server.url}/{name}"), NotFound)


async def test_a_server_that_is_not_there(repos: Repositories) -> None:
    error = await refused(repos, "http://127.0.0.1:9/x")
    assert (error.code, error.repeat_is_safe) == ("remote_unreachable", True)
    error = await refused(repos, "https://does-not-exist.invalid/x")
    assert "there is no host 'does-not-exist.invalid'" in error.message
    assert (error.code, error.repeat_is_safe) == ("host_unknown", True)


async def test_a_server_that_fails_in_the_middle(repos: Repositories, server: GitServer) -> None:
    def cut(request) -> bool:
        if request.command == "POST":
            request.send_response(200)
            request.send_header("Content-Type", "application/x-git-upload-pack-result")
            request.send_header("Content-Length", "100000")
            request.end_headers()
            request.wfile.write(b"0008NAK\n")
            request.close_connection = True
            return True
        return False

    server.answer = cut
    assert isinstance(await refused(repos, f"{server.url}/source"), RemoteUnreachable)
    server.answer = None
    async with repos.opened(parse_repository(f"{server.url}/source", local_user=True)) as found:
        assert found.checkout.base_branch == "main"


async def test_paths_that_are_no_repositories(repos: Repositories, source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert isinstance(await refused(repos, tmp_path / "nowhere"), NotFound)
    assert isinstance(await refused(repos, tmp_path / "empty"), NotARepository)
    assert isinstance(await refused(repos, tmp_path / "file"), NotARepository)
    below = await refused(repos, source / "src")
    assert isinstance(below, NotARepository)
    assert str(source) in str(below.mend)


async def test_a_repository_without_commits(repos: Repositories, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "-q")
    assert isinstance(await refused(repos, tmp_path / "new"), EmptyRepository)


async def test_an_unborn_branch_names_the_others(repos: Repositories, source: Path) -> None:
    git(source, "checkout", "-q", "--orphan", "unborn")
    error = await refused(repos, source)
    assert isinstance(error, EmptyRepository)
    assert "main" in str(error.mend)


async def test_a_branch_that_is_not_there(repos: Repositories, source: Path) -> None:
    for name in ("nope", "", "--upload-pack=x", "../x", "main^{tree}", "a b", "\udcff"):
        error = await refused(repos, source, branch=name)
        assert isinstance(error, NotFound)
        assert "main" in str(error.mend)


async def test_a_depth_below_one(repos: Repositories, source: Path) -> None:
    assert isinstance(await _refused_without_mend(repos, source, depth=0), Rejected)


async def _refused_without_mend(repos: Repositories, source: Path, **options: int) -> ShadowError:
    with pytest.raises(ShadowError) as caught:
        async with repos.opened(parse_repository(str(source), local_user=True), **options):
            pass
    return caught.value


async def test_a_repository_above_the_limit(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "big", {"noise": os.urandom(3 << 20)})
    repos = repositories(tmp_path / "data", repository_limit_bytes=2 << 20)
    assert isinstance(await refused(repos, source), LimitExceeded)
    assert list((tmp_path / "data/mirrors").glob("*/HEAD")) == []


async def test_a_repository_of_somebody_else(repos: Repositories, source: Path, cloned) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a repository away")
    subprocess.run(["chown", "-R", "12345:12345", source], check=True)
    for parent in source.parents:
        if str(parent).startswith("/tmp/") and parent != Path("/tmp"):
            parent.chmod(0o755)
    async with cloned(source) as (executor, _):
        await sh(executor, "cat README")
