"""Work leaves a workspace as verified commits: on a new branch, by a push or as a patch, and never over other work."""

import os
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shadow.core.errors import Conflict, Denied, LimitExceeded, NotFound, Rejected
from shadow.core.repositories import Checkout
from shadow.execution.host.executor import open_host
from shadow.execution.interface import ToolExecutor
from shadow.scm.collecting import NothingToDeliver
from shadow.scm.delivering import patch
from shadow.scm.failures import CredentialsWanted
from shadow.scm.repositories import Repositories
from tests.support.git_servers import commit, git, http_server, make_repository
from tests.support.scm import clone, commit_inside, repositories, sh

pytestmark = pytest.mark.anyio


@pytest.fixture
def repos(tmp_path: Path) -> Repositories:
    return repositories(tmp_path / "data")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "served/source")


@asynccontextmanager
async def worked(
    repos: Repositories, address: str | Path, directory: Path, line: str = "echo new > new"
) -> AsyncGenerator[tuple[ToolExecutor, Checkout, str]]:
    async with clone(repos, str(address), directory) as (executor, checkout):
        yield executor, checkout, await commit_inside(executor, line)


def state_of(repository: Path) -> tuple[str, str, str, bytes]:
    """What a delivery must not touch."""
    index = (repository / ".git/index").read_bytes()
    return (
        git(repository, "status", "--porcelain"),
        git(repository, "symbolic-ref", "HEAD"),
        git(repository, "stash", "list"),
        index,
    )


async def test_a_new_branch_in_the_source(repos: Repositories, source: Path, tmp_path: Path) -> None:
    (source / "README").write_text("not committed yet")
    before = state_of(source)
    async with (
        worked(repos, source, tmp_path / "w") as (executor, checkout, tip),
        repos.collected(executor, checkout) as work,
    ):
        assert (work.tip, work.commits, [c.path for c in work.changes]) == (tip, 1, ["new"])
        await repos.deliver(work, checkout)
        await repos.deliver(work, checkout)  # a repeat changes nothing
    assert git(source, "rev-parse", checkout.branch) == tip
    assert git(source, "show", f"{checkout.branch}:new") == "new"
    assert git(source, "log", "-1", "--format=%an <%ae>", checkout.branch) == "Shadow <shadow@localhost>"
    assert state_of(source) == before
    git(source, "fsck", "--strict")


async def test_later_work_moves_the_branch_forward(repos: Repositories, source: Path, tmp_path: Path) -> None:
    async with worked(repos, source, tmp_path / "w") as (executor, checkout, _):
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
        tip = await commit_inside(executor, "echo more >> new")
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
    assert git(source, "rev-parse", checkout.branch) == tip


async def test_a_branch_with_other_work_is_left_alone(repos: Repositories, source: Path, tmp_path: Path) -> None:
    git(source, "branch", "taken")
    async with worked(repos, source, tmp_path / "w") as (executor, checkout, tip):
        async with repos.collected(executor, checkout) as work:
            with pytest.raises(Conflict):
                await repos.deliver(work, checkout, branch="taken")
            await repos.deliver(work, checkout)
        git(source, "checkout", "-q", checkout.branch)
        ours = commit(source, {"mine": b"x"}, "somebody went on")
        git(source, "checkout", "-q", "main")
        async with repos.collected(executor, checkout) as work:
            with pytest.raises(Conflict):
                await repos.deliver(work, checkout)
        assert git(source, "rev-parse", checkout.branch) == ours
        assert tip in git(source, "log", "--format=%H", checkout.branch)


async def test_a_checked_out_branch_is_never_moved(repos: Repositories, source: Path, tmp_path: Path) -> None:
    async with worked(repos, source, tmp_path / "w") as (executor, checkout, tip):
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
        git(source, "worktree", "add", "-q", str(tmp_path / "tree"), checkout.branch)
        await commit_inside(executor, "echo more >> new")
        async with repos.collected(executor, checkout) as work:
            with pytest.raises(Conflict, match="checked out"):
                await repos.deliver(work, checkout)
    assert git(source, "rev-parse", checkout.branch) == tip


async def test_into_a_bare_repository_and_a_worktree(repos: Repositories, source: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(source), "bare.git")
    git(source, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
    for number, target in enumerate((tmp_path / "bare.git", tmp_path / "tree")):
        async with worked(repos, target, tmp_path / f"w{number}") as (executor, checkout, tip):
            async with repos.collected(executor, checkout) as work:
                await repos.deliver(work, checkout)
        assert git(target, "rev-parse", checkout.branch) == tip
    assert checkout.branch in git(source, "branch", "--list", "shadow/*")


async def test_a_push(repos: Repositories, source: Path, tmp_path: Path) -> None:
    git(source, "config", "http.receivepack", "true")
    with http_server(source.parent) as server:
        async with worked(repos, f"{server.url}/source", tmp_path / "w") as (executor, checkout, tip):
            async with repos.collected(executor, checkout) as work:
                await repos.deliver(work, checkout)
                await repos.deliver(work, checkout)
            assert git(source, "rev-parse", checkout.branch) == tip
            git(source, "branch", "taken")
            other = commit(source, {"x": b"x"}, "other")
            async with repos.collected(executor, checkout) as work:
                for name in ("taken", "main"):
                    with pytest.raises(Conflict):
                        await repos.deliver(work, checkout, branch=name)
            assert git(source, "rev-parse", "main") == other
            tip = await commit_inside(executor, "echo more >> new")
            async with repos.collected(executor, checkout) as work:
                await repos.deliver(work, checkout)
            assert git(source, "rev-parse", checkout.branch) == tip


async def test_a_push_with_a_credential(source: Path, tmp_path: Path) -> None:
    git(source, "config", "http.receivepack", "true")
    repos = repositories(tmp_path / "data", tokens="127.0.0.1=me:t0ken")
    with http_server(source.parent) as server:
        server.user = ("me", "t0ken")
        async with worked(repos, f"{server.url}/source", tmp_path / "w") as (executor, checkout, tip):
            async with repos.collected(executor, checkout) as work:
                await repos.deliver(work, checkout)
            assert git(source, "rev-parse", checkout.branch) == tip
            server.user = ("me", "another")
            await commit_inside(executor, "echo more >> new")
            async with repos.collected(executor, checkout) as work:
                with pytest.raises(CredentialsWanted):
                    await repos.deliver(work, checkout)


async def test_a_push_that_the_remote_declines(repos: Repositories, source: Path, tmp_path: Path) -> None:
    git(source, "config", "http.receivepack", "true")
    hook = source / ".git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'policy: no' >&2\nexit 1\n")
    hook.chmod(0o755)
    with http_server(source.parent) as server:
        async with worked(repos, f"{server.url}/source", tmp_path / "w") as (executor, checkout, _):
            async with repos.collected(executor, checkout) as work:
                with pytest.raises(Denied, match="policy: no"):
                    await repos.deliver(work, checkout)


async def test_a_patch_applies(repos: Repositories, source: Path, tmp_path: Path) -> None:
    line = (
        "printf '\\0\\1' > bin; mv README 'read me é'; git add -A; git commit -qm 'one (`$&`)'; printf 'x\\r\\n' > crlf"
    )
    async with (
        worked(repos, source, tmp_path / "w", line) as (executor, checkout, _),
        repos.collected(executor, checkout) as work,
    ):
        assert work.commits == 2
        content = await patch(work)
        tree = git(work.repository, "rev-parse", f"{work.tip}^{{tree}}")
    git(tmp_path, "clone", "-q", str(source), "other")
    git(tmp_path / "other", "am", "--quiet", "--keep-cr", stdin=content)
    assert git(tmp_path / "other", "rev-parse", "HEAD^{tree}") == tree


async def test_a_patch_of_work_with_merges(repos: Repositories, source: Path, tmp_path: Path) -> None:
    line = (
        "git checkout -qb side; echo a > a; git add -A; git commit -qm a; git checkout -q -; "
        "echo b > b; git add -A; git commit -qm b; git merge -q --no-edit side; echo c > c"
    )
    async with (
        worked(repos, source, tmp_path / "w", line) as (executor, checkout, _),
        repos.collected(executor, checkout) as work,
    ):
        content = await patch(work)
        tree = git(work.repository, "rev-parse", f"{work.tip}^{{tree}}")
    git(tmp_path, "clone", "-q", str(source), "other")
    git(tmp_path / "other", "apply", "--index", stdin=content)
    assert git(tmp_path / "other", "write-tree") == tree


async def test_nothing_to_deliver(repos: Repositories, source: Path, tmp_path: Path) -> None:
    async with clone(repos, str(source), tmp_path / "w") as (executor, checkout):
        await sh(executor, "echo not committed > x")
        with pytest.raises(NothingToDeliver):
            async with repos.collected(executor, checkout):
                pass


async def test_work_outlives_the_mirror_and_the_base(repos: Repositories, source: Path, tmp_path: Path) -> None:
    """The remote forgot the base, and our mirror with it: the workspace still has everything."""
    commit(source, {"b": b"b"}, "second")
    async with worked(repos, source, tmp_path / "w") as (executor, checkout, tip):
        git(source, "reset", "-q", "--hard", "HEAD~1")
        git(source, "reflog", "expire", "--expire=now", "--all")
        git(source, "gc", "-q", "--prune=now")
        async with clone(repos, str(source), tmp_path / "w2"):
            pass
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
    assert git(source, "rev-parse", checkout.branch) == tip


async def test_work_on_a_shallow_clone(repos: Repositories, source: Path, tmp_path: Path) -> None:
    for number in range(3):
        commit(source, {"n": b"%d" % number}, str(number))
    async with clone(repos, str(source), tmp_path / "w", depth=1) as (executor, checkout):
        tip = await commit_inside(executor, "echo new > new")
        async with repos.collected(executor, checkout) as work:
            assert work.commits == 1
            await repos.deliver(work, checkout)
    assert git(source, "rev-parse", checkout.branch) == tip
    git(source, "fsck")


async def test_work_above_the_limit(source: Path, tmp_path: Path) -> None:
    repos = repositories(tmp_path / "data", delivery_limit_bytes=100_000)
    async with worked(repos, source, tmp_path / "w", "head -c 300000 /dev/urandom > big") as (executor, checkout, _):
        with pytest.raises(LimitExceeded):
            async with repos.collected(executor, checkout):
                pass
    assert list((tmp_path / "data/quarantine").iterdir()) == []


async def test_a_source_that_is_gone(repos: Repositories, source: Path, tmp_path: Path) -> None:
    async with worked(repos, source, tmp_path / "w") as (executor, checkout, _):
        source.rename(tmp_path / "moved")
        async with repos.collected(executor, checkout) as work:
            with pytest.raises(NotFound):
                await repos.deliver(work, checkout)


async def test_a_read_only_source(repos: Repositories, source: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    async with worked(repos, source, tmp_path / "w") as (executor, checkout, _):
        subprocess.run(["chmod", "-R", "a-w", source], check=True)
        try:
            async with repos.collected(executor, checkout) as work:
                with pytest.raises(Denied):
                    await repos.deliver(work, checkout)
        finally:
            subprocess.run(["chmod", "-R", "u+w", source], check=True)


async def test_a_source_of_somebody_else_gets_files_of_its_owner(
    repos: Repositories, source: Path, tmp_path: Path
) -> None:
    """As root: nothing in the repository may come to belong to root, or its owner is locked out."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a repository away")
    subprocess.run(["chown", "-R", "12345:12345", source], check=True)
    for parent in source.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    async with (
        worked(repos, source, tmp_path / "w") as (executor, checkout, _),
        repos.collected(executor, checkout) as work,
    ):
        await repos.deliver(work, checkout)
    owners = subprocess.run(["find", source, "!", "-uid", "12345"], capture_output=True, text=True, check=True).stdout
    assert owners == ""


async def test_a_bad_branch_name(repos: Repositories, source: Path, tmp_path: Path) -> None:
    async with (
        worked(repos, source, tmp_path / "w") as (executor, checkout, _),
        repos.collected(executor, checkout) as work,
    ):
        for name in ("", "a..b", "-x", "a b", "x.lock", "../../x", "a\nb", "@{", "/x", "x/"):
            with pytest.raises(Rejected):
                await repos.deliver(work, checkout, branch=name)
    assert git(source, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


async def test_a_fresh_workspace_can_hold_the_verified_work(repos: Repositories, source: Path, tmp_path: Path) -> None:
    """As the product's own check needs it: the commit that is delivered and nothing that lay around it."""
    async with (
        worked(repos, source, tmp_path / "w", "echo new > new") as (executor, checkout, tip),
        repos.collected(executor, checkout) as work,
    ):
        await sh(executor, "echo untracked > untracked; echo changed > new")
        (tmp_path / "fresh/files").mkdir(parents=True)
        (tmp_path / "fresh/state").mkdir()
        async with (
            repos.opened_work(work, checkout) as found,
            open_host(tmp_path / "fresh/files", tmp_path / "fresh/state") as fresh,
        ):
            await repos.fill(fresh, found)
            assert (await sh(fresh, "git rev-parse HEAD; git symbolic-ref --short HEAD")).split() == [
                tip,
                checkout.branch,
            ]
            assert (await sh(fresh, "git status --porcelain; cat new; ls")).split() == ["new", "README", "new", "src"]
            await sh(fresh, "git fsck")
