"""Hostile repositories on both sides of the wall: nothing of theirs runs in the control plane, nothing of others gets out."""

import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shadow.core.egress import parse_rules
from shadow.core.errors import Denied, LimitExceeded, Rejected, ShadowError
from shadow.core.repositories import Checkout, parse_repository
from shadow.execution.host.executor import open_host
from shadow.execution.interface import ToolExecutor
from shadow.scm.failures import UnsoundRepository
from shadow.scm.repositories import Repositories
from tests.support.git_servers import commit, git, http_server, make_repository
from tests.support.hostile import arm, ran, raw_tree
from tests.support.scm import clone, commit_inside, repositories, sh

pytestmark = pytest.mark.anyio


@pytest.fixture
def repos(tmp_path: Path) -> Repositories:
    return repositories(tmp_path / "data")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A program that leaves a file where it was run; the file is ``canary.ran``."""
    program = tmp_path / "canary"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/canary.ran\nexit 0\n")
    program.chmod(0o755)
    return program


async def test_nothing_of_a_local_source_runs(repos: Repositories, canary: Path, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "source", {".gitattributes": b"* filter=x diff=x\n", "a": b"a\n"})
    arm(source, canary)
    async with clone(repos, str(source), tmp_path / "w") as (executor, checkout):
        await commit_inside(executor, "echo new > new")
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
        await commit_inside(executor, "echo more > new")
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
    assert not ran(canary)
    assert (source / ".git/refs/heads" / checkout.branch).read_text().strip() == work.tip


async def test_nothing_of_the_workspaces_repository_runs_outside(
    repos: Repositories, canary: Path, tmp_path: Path
) -> None:
    """Inside it may do what it likes; what we call there runs no hook, and outside nothing runs at all."""
    source = make_repository(tmp_path / "source")
    async with clone(repos, str(source), tmp_path / "w") as (executor, checkout):
        await commit_inside(executor, "printf '* filter=x diff=x\\n' > .gitattributes; echo new > new")
        arm(tmp_path / "w/files", canary)
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
    assert not ran(canary)


async def test_a_git_file_that_points_at_another_repository(repos: Repositories, tmp_path: Path) -> None:
    private = make_repository(tmp_path / "private", {"secret": b"secret"})
    for number, pointer in enumerate((f"gitdir: {private}/.git\n", "gitdir: ../private/.git")):
        trap = tmp_path / f"trap{number}"
        trap.mkdir()
        (trap / ".git").write_text(pointer)
        await _refused(repos, trap)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/.git").symlink_to(private / ".git")
    await _refused(repos, tmp_path / "linked")


async def test_a_commondir_that_points_at_another_repository(repos: Repositories, tmp_path: Path) -> None:
    private = make_repository(tmp_path / "private", {"secret": b"secret"})
    trap = make_repository(tmp_path / "trap")
    (trap / ".git/commondir").write_text(f"{private}/.git\n")
    await _refused(repos, trap)


async def test_alternates_that_point_at_another_repository(repos: Repositories, tmp_path: Path) -> None:
    private = make_repository(tmp_path / "private", {"secret": b"secret"})
    trap = make_repository(tmp_path / "trap")
    (trap / ".git/objects/info").mkdir(exist_ok=True)
    (trap / ".git/objects/info/alternates").write_text(f"{private}/.git/objects\n")
    (trap / ".git/refs/heads/main").write_text(git(private, "rev-parse", "HEAD") + "\n")
    await _refused(repos, trap)
    shutil.rmtree(trap / ".git/objects")
    (trap / ".git/objects").symlink_to(private / ".git/objects")
    await _refused(repos, trap)


async def _refused(repos: Repositories, path: Path) -> None:
    with pytest.raises(Rejected):
        async with repos.opened(parse_repository(str(path), local_user=True)):
            pass


async def test_a_ref_that_is_a_symbolic_link_out_of_the_repository(repos: Repositories, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "source")
    (tmp_path / "outside").mkdir()
    async with clone(repos, str(source), tmp_path / "w") as (executor, checkout):
        await commit_inside(executor, "echo new > new")
        (source / ".git/refs/heads/shadow").symlink_to(tmp_path / "outside")
        async with repos.collected(executor, checkout) as work:
            with pytest.raises(Rejected):
                await repos.deliver(work, checkout)
    assert list((tmp_path / "outside").iterdir()) == []


def hostile_commit(repository: Path, kind: str) -> str:
    """A commit on top of HEAD with what file systems and tools have been attacked with."""
    blob = git(repository, "hash-object", "-w", "--stdin", stdin=b"x")
    tree = git(repository, "rev-parse", "HEAD^{tree}")
    match kind:
        case "dot git":
            bad = raw_tree(repository, ("40000", ".git", tree))
        case "dot GIT":
            bad = raw_tree(repository, ("40000", ".GIT", tree))
        case "dot dot":
            bad = raw_tree(repository, ("40000", "..", tree))
        case "slash":
            bad = raw_tree(repository, ("100644", "../../x", blob))
        case "twice":
            bad = raw_tree(repository, ("100644", "a", blob), ("120000", "a", blob))
        case "unsorted":
            bad = raw_tree(repository, ("100644", "b", blob), ("100644", "a", blob))
        case "gitmodules link":
            bad = raw_tree(repository, ("120000", ".gitmodules", blob))
        case "gitmodules option":
            text = b'[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/x\n'
            modules = git(repository, "hash-object", "-w", "--stdin", stdin=text)
            bad = raw_tree(repository, ("100644", ".gitmodules", modules))
        case "gitmodules name":
            text = b'[submodule "../../x"]\n\tpath = x\n\turl = https://example.org/x\n'
            modules = git(repository, "hash-object", "-w", "--stdin", stdin=text)
            bad = raw_tree(repository, ("100644", ".gitmodules", modules))
        case _:
            raise AssertionError(kind)
    return git(repository, "commit-tree", bad, "-p", "HEAD", "-m", kind)


KINDS = [
    "dot git", "dot GIT", "dot dot", "slash", "twice", "unsorted", "gitmodules link", "gitmodules option", "gitmodules name",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_unsound_trees_do_not_come_in(repos: Repositories, kind: str, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "served/source")
    git(source, "update-ref", "refs/heads/main", hostile_commit(source, kind))
    with http_server(source.parent) as server, pytest.raises(UnsoundRepository):
        async with repos.opened(parse_repository(f"{server.url}/source", local_user=True)):
            pass


@asynccontextmanager
async def forging(
    repos: Repositories, source: Path, directory: Path, forge: str
) -> AsyncGenerator[tuple[ToolExecutor, Checkout]]:
    """A workspace whose git has been replaced: ``git … bundle create …`` runs the shell line ``forge``, which writes $OUT."""
    real = shutil.which("git")
    (directory / "bin").mkdir(parents=True)
    fake = directory / "bin/git"
    fake.write_text(
        f'#!/bin/sh\ngit() {{ {real} "$@"; }}\n'
        f'case "$*" in *" bundle create "*) OUT=.git/shadow-out.bundle; {forge}; exit 0;; esac\n'
        f'exec {real} "$@"\n'
    )
    fake.chmod(0o755)
    (directory / "files").mkdir()
    (directory / "state").mkdir()
    env = {"PATH": f"{directory}/bin:{os.environ['PATH']}", "HOME": str(directory), "LANG": "C.UTF-8"}
    async with repos.opened(parse_repository(str(source), local_user=True)) as found:
        async with open_host(directory / "files", directory / "state", base_env=env) as executor:
            await repos.fill(executor, found)
            await commit_inside(executor, "echo new > new")
            await sh(executor, f"echo {found.checkout.branch} > ../branch; echo {found.checkout.base_commit} > ../base")
            yield executor, found.checkout


BRANCH, BASE = "$(cat ../branch)", "$(cat ../base)"
FORGERIES = {
    "nothing": "true",
    "empty": ": > $OUT",
    "nonsense": "head -c 100000 /dev/urandom > $OUT",
    "a header without an end": "(echo '# v2 git bundle'; yes | head -c 200000) > $OUT",
    "no refs": "(printf '# v2 git bundle\\n\\nPACK') > $OUT",
    "no pack": f"(printf '# v2 git bundle\\n'; echo \"$(git rev-parse HEAD) refs/heads/{BRANCH}\"; echo) > $OUT",
    "another branch": "git branch -q evil; git bundle create -q $OUT evil --not " + BASE,
    "another branch too": f"git branch -q evil; git bundle create -q $OUT evil {BRANCH} --not {BASE}",
    "a tag": f"git tag x; git bundle create -q $OUT refs/tags/x --not {BASE}",
    "HEAD": f"git bundle create -q $OUT HEAD --not {BASE}",
    "another history": (
        f"git checkout -q --orphan o; git commit -qm o; git branch -f {BRANCH} o; git bundle create -q $OUT refs/heads/{BRANCH}"
    ),
    "the base missing": (
        f"(printf '# v2 git bundle\\n-%040d x\\n' 1; echo \"$(git rev-parse HEAD) refs/heads/{BRANCH}\"; echo; "
        f"printf '%s\\n^%s\\n' HEAD {BASE} | git pack-objects --revs --stdout -q) > $OUT"
    ),
    "objects missing": (
        f'(printf \'# v2 git bundle\\n\'; echo "-{BASE} x"; echo "$(git rev-parse HEAD) refs/heads/{BRANCH}"; echo; '
        "git rev-parse HEAD | git pack-objects --stdout -q) > $OUT"
    ),
    "a tree for a commit": (
        f'(printf \'# v2 git bundle\\n\'; echo "-{BASE} x"; echo "$(git rev-parse HEAD^{{tree}}) refs/heads/{BRANCH}"; echo; '
        f"printf '%s\\n^%s\\n' HEAD {BASE} | git pack-objects --revs --stdout -q) > $OUT"
    ),
    "a damaged pack": (
        f"git bundle create -q $OUT refs/heads/{BRANCH} --not {BASE}; "
        "size=$(stat -c %s $OUT); printf X | dd of=$OUT bs=1 seek=$((size - 30)) conv=notrunc 2>/dev/null"
    ),
    "a cut pack": f"git bundle create -q b refs/heads/{BRANCH} --not {BASE}; head -c -40 b > $OUT",
    "a filter": (
        "(printf '# v3 git bundle\\n@filter=blob:none\\n'; "
        f'echo "$(git rev-parse HEAD) refs/heads/{BRANCH}"; echo; echo PACK) > $OUT'
    ),
    "a link": "ln -s /etc/passwd $OUT",
    "a link to a device": "ln -s /dev/zero $OUT",
    "a pipe": "mkfifo $OUT",
    "a directory": "mkdir $OUT",
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_bundle_is_refused_and_leaves_nothing(repos: Repositories, forgery: str, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "source")
    async with forging(repos, source, tmp_path / "w", FORGERIES[forgery]) as (executor, checkout):
        with pytest.raises(ShadowError):
            async with repos.collected(executor, checkout) as work:
                await repos.deliver(work, checkout)
    assert git(source, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert list((tmp_path / "data/quarantine").iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_unsound_trees_do_not_get_out(repos: Repositories, kind: str, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "source")
    async with clone(repos, str(source), tmp_path / "w") as (executor, checkout):
        bad = hostile_commit(tmp_path / "w/files", kind)
        await sh(executor, f"git update-ref refs/heads/{checkout.branch} {bad}")
        with pytest.raises(UnsoundRepository):
            async with repos.collected(executor, checkout) as work:
                await repos.deliver(work, checkout)
    assert git(source, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


async def test_a_bundle_that_is_larger_than_it_says(tmp_path: Path) -> None:
    repos = repositories(tmp_path / "data", delivery_limit_bytes=1 << 20)
    source = make_repository(tmp_path / "source")
    async with forging(repos, source, tmp_path / "w", "head -c 3000000 /dev/zero > $OUT") as (executor, checkout):
        with pytest.raises(LimitExceeded):
            async with repos.collected(executor, checkout):
                pass


async def test_a_tree_bomb_costs_a_bounded_time(repos: Repositories, tmp_path: Path) -> None:
    """Trees that unfold to 10^9 files: nothing of ours may walk them one by one."""
    source = make_repository(tmp_path / "source")
    async with clone(repos, str(source), tmp_path / "w") as (executor, checkout):
        inside = tmp_path / "w/files"
        tree = raw_tree(inside, ("100644", "f", git(inside, "hash-object", "-w", "--stdin", stdin=b"x")))
        for _ in range(9):
            tree = raw_tree(inside, *[("40000", f"d{n}", tree) for n in range(10)])
        bomb = git(inside, "commit-tree", tree, "-p", "HEAD", "-m", "bomb")
        await sh(executor, f"git update-ref refs/heads/{checkout.branch} {bomb}")
        with pytest.raises(LimitExceeded):
            async with repos.collected(executor, checkout):
                pass


async def test_commands_of_ours_show_no_secret(tmp_path: Path) -> None:
    """A token is in no argument and no environment of the programs that use it."""
    source = make_repository(tmp_path / "served/source")
    repos = repositories(tmp_path / "data", tokens="127.0.0.1=me:t0p-s3cret")
    seen: list[bytes] = []
    with http_server(source.parent) as server:
        server.user = ("me", "t0p-s3cret")

        def look(_request: object) -> bool:
            listing = subprocess.run(
                ["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null"],
                capture_output=True,
                check=False,
            )
            seen.append(listing.stdout)
            return False

        server.answer = look
        async with repos.opened(parse_repository(f"{server.url}/source", local_user=True)):
            pass
    assert len(seen) > 2
    assert any(b"git" in listing for listing in seen)
    assert not any(b"t0p-s3cret" in listing for listing in seen)


async def test_the_source_may_grow_by_nothing_but_the_branch(repos: Repositories, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "source")
    other = commit(source, {"b": b"b"}, "second")
    async with clone(repos, str(source), tmp_path / "w") as (executor, checkout):
        await commit_inside(
            executor, "git branch evil; git tag evil-tag; git update-ref refs/replace/x HEAD; echo new > new"
        )
        async with repos.collected(executor, checkout) as work:
            await repos.deliver(work, checkout)
    names = git(source, "for-each-ref", "--format=%(refname)").split()
    assert sorted(names) == sorted(["refs/heads/main", f"refs/heads/{checkout.branch}"])
    assert git(source, "rev-parse", "main") == other


async def test_a_redirect_to_an_address_that_is_not_public_is_refused(repos: Repositories, tmp_path: Path) -> None:
    """Whoever names a host may reach it; where that host leads to must be public."""
    source = make_repository(tmp_path / "served/source")
    with http_server(source.parent) as server, http_server(source.parent) as inner:
        server.redirect = inner.url
        with pytest.raises(Denied):
            async with repos.opened(parse_repository(f"{server.url}/source", local_user=True)):
                pass
        assert inner.requests == []
        allowed = repositories(tmp_path / "data2", egress=parse_rules([inner.url.removeprefix("http://")]))
        async with allowed.opened(parse_repository(f"{server.url}/source", local_user=True)):
            pass
        assert inner.requests != []


async def test_a_submodule_at_an_address_that_is_not_public_is_refused(repos: Repositories, tmp_path: Path) -> None:
    make_repository(tmp_path / "inner/secret")
    with http_server(tmp_path / "inner") as inner:
        modules = f'[submodule "x"]\n\tpath = x\n\turl = {inner.url.replace("http:", "https:")}/secret\n'
        source = make_repository(tmp_path / "served/source", {".gitmodules": modules.encode()})
        git(source, "update-index", "--add", "--cacheinfo", f"160000,{git(source, 'rev-parse', 'HEAD')},x")
        git(source, "commit", "-qm", "a module")
        with http_server(source.parent) as server:
            with pytest.raises(Denied):
                async with repos.opened(parse_repository(f"{server.url}/source", local_user=True), submodules=True):
                    pass
        assert inner.requests == []
