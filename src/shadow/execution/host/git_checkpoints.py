"""Checkpoints of a work tree: a commit of all of it below a hidden ref, made and brought back beside the user's own index.

What is hashed is kept in an index of our own between checkpoints, so that the next one hashes only what has changed since. It is
only ever used as a copy and replaced as a whole: whoever dies in between leaves no lock.

To bring one back, the work tree comes first, then what git had in progress, the branch, HEAD, and last the user's index. Each
step looks only at the checkpoint, not at what the steps before have done: a repeat from anywhere ends right.
"""

import os
from collections.abc import Sequence

from shadow.core.errors import AlreadyExists, Conflict, RevisionNotFound
from shadow.core.git import (
    GitCheckpoint,
    GitHead,
    check_bounds,
    check_checkpoint,
    check_checkpoint_names,
)
from shadow.execution.host.git import check_whole
from shadow.execution.host.git_index import KeptIndexes, WholeCommit, commit_everything
from shadow.execution.host.git_leftovers import Locks, end_progress, loosen
from shadow.execution.host.git_parsing import fields_of, text
from shadow.execution.host.git_repository import Repositories, Repository, copy_index, failure, files_of_git
from shadow.execution.host.threads import in_thread

REFS = "refs/shadow/checkpoints/"
_WHO = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Shadow"), ("EMAIL", "shadow@localhost"))
}
_REFLOG = "shadow: back to a checkpoint"
_HEADS = "refs/heads/"


class HostCheckpoints:
    """The checkpoints of ``ToolExecutor``, without operations: whoever journals calls it once."""

    def __init__(self, repositories: Repositories, *, state_dir: str) -> None:
        self._repositories = repositories
        self._kept = KeptIndexes(f"{state_dir}/checkpoints")

    async def take(self, name: str, repository: str, *, timeout_s: float) -> GitCheckpoint:
        check_bounds(timeout_s=timeout_s)
        check_checkpoint_names([name])
        repo = await self._repositories.open(repository, timeout_s)
        head = await repo.born_head() or await repo.head()
        with files_of_git():
            async with self._repositories.scratch_directory() as scratch:
                wanted = WholeCommit(ref=f"{REFS}{name}", message=f"checkpoint {name}", parent=head.commit, env=_WHO)
                tree, commit = await commit_everything(repo, self._kept, wanted, copy=f"{scratch}/index")
        return GitCheckpoint(name=name, branch=head.branch, head=head.commit, commit=commit, tree=tree)

    async def restore(self, checkpoint: GitCheckpoint, repository: str, *, timeout_s: float) -> GitHead:
        check_bounds(timeout_s=timeout_s)
        check_checkpoint(checkpoint)
        repo = await self._repositories.open(repository, timeout_s)
        await _check_objects(repo, checkpoint)
        await _check_branch(repo, checkpoint)
        with files_of_git():
            async with (
                self._repositories.scratch_directory() as scratch,
                Locks(repo, branch=checkpoint.branch) as locks,
            ):
                await self._go_back(repo, checkpoint, scratch, locks)
        return await repo.head()

    async def drop(self, names: Sequence[str], repository: str, *, timeout_s: float) -> None:
        check_bounds(timeout_s=timeout_s)
        check_checkpoint_names(names)
        repo = await self._repositories.open(repository, timeout_s)
        if not names:
            return
        there = await repo.git("for-each-ref", "--format=%(refname)", *(f"{REFS}{name}" for name in names))
        if there.stdout:
            lines = "".join(f"delete {ref}\n" for ref in text(there.stdout).splitlines())
            await repo.git("update-ref", "--no-deref", "--stdin", stdin=lines.encode("utf-8", "surrogateescape"))

    # Parts

    async def _go_back(self, repo: Repository, checkpoint: GitCheckpoint, scratch: str, locks: Locks) -> None:
        copy, own = f"{scratch}/index", f"{scratch}/own"
        await self._lay_out(repo.with_index(copy), checkpoint.commit, copy)
        await in_thread(None, copy_index, copy, own)
        users = repo.with_index(own)
        await users.git("read-tree", *(["--empty"] if checkpoint.head is None else ["--reset", checkpoint.head]))
        await in_thread(None, end_progress, repo.git_dir)
        await _move_head(repo, checkpoint)
        await in_thread(None, locks.install_index, own)

    async def _lay_out(self, view: Repository, commit: str, copy: str) -> None:
        """Make the work tree that of ``commit``; only what its own rules ignore stays beside it."""
        mark = await in_thread(None, self._kept.mark, view)
        seeded = await in_thread(None, self._kept.copy, view, mark, copy)
        if not seeded:
            seeded = await in_thread(None, copy_index, f"{view.git_dir}/index", copy)
        # Exactly the tree's entries, each with what is known of its file: what is ignored is in no index, and stays.
        known = await view.exact("read-tree", "--reset", commit, may_fail=seeded)
        if known.code != 0:
            await in_thread(None, copy_index, "", copy)
            await view.exact("read-tree", "--reset", commit)
        for last in (False, True):
            if await _rewrite(view, commit, last=last):
                return
            await in_thread(None, loosen, view.work_tree)


async def _rewrite(view: Repository, commit: str, *, last: bool) -> bool:
    """``False`` where something could not be written or removed."""
    for command in (
        ("read-tree", "--reset", "-u", commit),
        ("clean", "-d", "-f", "-q"),
        # What was seen through a symlink that the cleaning has removed.
        ("read-tree", "--reset", "-u", commit),
    ):
        output = await view.exact(*command, may_fail=True)
        if output.code != 0:
            if last:
                raise failure(output)
            return False
    return True


async def _check_objects(repo: Repository, checkpoint: GitCheckpoint) -> None:
    """Raises: RevisionNotFound: a commit, or something that belongs to it, is gone."""
    wanted = [commit for commit in (checkpoint.commit, checkpoint.head) if commit is not None]
    for commit in wanted:
        if await repo.commit_of(commit) != commit:
            raise RevisionNotFound(f"{commit} is no commit.", details={"revision": commit})
    whole = await repo.git("rev-list", "--objects", "--no-walk", "--quiet", *wanted, "--", may_fail=True)
    if whole.code != 0:
        said = whole.stderr.decode("utf-8", "replace").strip()
        raise RevisionNotFound(
            f"The checkpoint {checkpoint.name!r} is no longer whole: {said[:500]}",
            mend="Take an earlier checkpoint.",
            details={"revision": checkpoint.commit},
        )


async def _check_branch(repo: Repository, checkpoint: GitCheckpoint) -> None:
    """Raises: Conflict: another work tree is on that branch; AlreadyExists: one has a name that excludes it."""
    branch = checkpoint.branch
    if branch is None:
        return
    for place, on in await repo.work_trees():
        if on == f"{_HEADS}{branch}" and not _same(place, repo.work_tree):
            raise Conflict(
                f"The branch {branch!a} is checked out in another work tree.",
                mend="Remove that work tree, or let it go to another branch.",
                details={"branch": branch},
            )
    if await repo.branch_commit(branch) is None:
        first = branch.partition("/")[0]
        listed = await repo.git("for-each-ref", "--format=%(refname)%00", f"{_HEADS}{first}")
        check_whole(listed)
        own = f"{_HEADS}{branch}"
        for name in (text(field.removeprefix(b"\n")) for field in fields_of(listed.stdout)):
            if name.startswith(f"{own}/") or own.startswith(f"{name}/"):
                raise AlreadyExists(
                    f"The branch {branch!a} cannot be made beside {name!a}.", details={"branch": branch}
                )


def _same(place: str, other: str) -> bool:
    try:
        return os.path.samefile(place, other)
    except OSError:
        return False


async def _move_head(repo: Repository, checkpoint: GitCheckpoint) -> None:
    ref = "HEAD" if checkpoint.branch is None else f"{_HEADS}{checkpoint.branch}"
    if checkpoint.head is None:
        await repo.git("update-ref", "--no-deref", "-d", ref)
    else:
        await repo.git("update-ref", "--no-deref", "-m", _REFLOG, ref, checkpoint.head)
    if checkpoint.branch is not None:
        await repo.git("symbolic-ref", "-m", _REFLOG, "HEAD", ref)
