"""Repositories that are cheap to make and costly to take: bounded, or taken, or refused with the mend; and names that collide."""

import asyncio
from pathlib import Path

import pytest

from shadow.core.errors import LimitExceeded
from shadow.core.limits import Limits
from shadow.core.repositories import parse_repository
from shadow.core.workspaces import WorkspaceSpec
from tests.support.git_servers import git, make_repository
from tests.support.local_workspaces import leftovers, local_manager, skip_without_sandbox
from tests.support.scm import clone, repositories, sh

pytestmark = pytest.mark.anyio

MIB = 1024**2


def repeated(source: Path, *, content: bytes, each: int, levels: int) -> None:
    """Commit ``each ** levels`` files of one content: as few objects as there are levels."""
    mode, kind = "100644", "blob"
    thing = git(source, "hash-object", "-w", "--stdin", stdin=content)
    for _ in range(levels):
        listing = "".join(f"{mode} {kind} {thing}\tn{number}\n" for number in range(each))
        thing, mode, kind = git(source, "mktree", stdin=listing.encode()), "040000", "tree"
    git(source, "update-ref", "refs/heads/main", git(source, "commit-tree", thing, "-m", "many"))


async def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "source")
    repeated(source, content=b"x", each=317, levels=2)
    repos = repositories(tmp_path / "data")
    async with asyncio.timeout(60), clone(repos, str(source), tmp_path / "w") as (executor, _):
        assert (await executor.git_status()).entries == ()
        listing = await executor.list_directory(recursive=True)
        assert len(listing.entries) == 10_000
        assert listing.next_after is not None
        await executor.write_file("n7/n7", b"y")
        assert [change.path for change in (await executor.git_file_changes()).changes] == ["n7/n7"]
        assert (await sh(executor, "find n* -type f | wc -l")).strip() == str(317**2)


@pytest.mark.parametrize(
    ("each", "size", "limits"),
    [
        pytest.param(32, 2 * MIB, Limits(workspace_bytes=64 * MIB), id="two gigabytes"),
        pytest.param(100, 1, Limits(workspace_files=2000), id="ten thousand files"),
    ],
)
async def test_what_is_above_the_limits_of_the_workspace(each: int, size: int, limits: Limits, tmp_path: Path) -> None:
    """The mirror is small; the checkout would be large. The limit ends it, and nothing is left."""
    await skip_without_sandbox(tmp_path / "data")
    source = make_repository(tmp_path / "source")
    repeated(source, content=b"z" * size, each=each, levels=2)
    repos = repositories(tmp_path / "data")
    manager = local_manager(tmp_path / "data")

    async def take() -> None:
        async with (
            repos.opened(parse_repository(str(source), local_user=True)) as found,
            manager.open(WorkspaceSpec(limits=limits)) as executor,
        ):
            await repos.fill(executor, found)  # files can be made faster than they are counted …
            await executor.write_file("more", b"x")  # … but not for long

    async with asyncio.timeout(60):
        with pytest.raises(LimitExceeded) as caught:
            await take()
    assert caught.value.mend
    assert leftovers(tmp_path / "data") == []


async def test_names_that_collide_elsewhere_are_names_of_their_own(tmp_path: Path) -> None:
    """By case, by composition, by compatibility, by what is not seen."""
    names = [
        "README", "Readme", "readme", "stra\u00dfe", "STRASSE", "\u00e9", "e\u0301", "\u212b", "\u00c5", "A\u030a", "\ufb01le",
        "file", "a\u200bb", "a\u200db", "ab", "\u0130", "i\u0307", "con", "aux.txt", "trailing.", "trailing ", "\u202etxt.exe",
        "DIR/x", "dir/x",
    ]  # fmt: skip
    source = make_repository(tmp_path / "source", {name: name.encode() for name in names})
    async with clone(repositories(tmp_path / "data"), str(source), tmp_path / "w") as (executor, _):
        assert (await sh(executor, "git status --porcelain")) == ""
        for name in names:
            assert (await executor.read_file(name)).content == name.encode()
            assert (tmp_path / "w/files" / name).read_bytes() == name.encode()
