"""Git in a workspace: what differs, what was committed, and the calls that change something."""

import contextlib
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager

from shadow.core.errors import (
    AlreadyExists,
    Broken,
    Conflict,
    GitInProgress,
    LimitExceeded,
    LocalChanges,
    NothingToCommit,
    Rejected,
    ShadowError,
    UnbornHead,
)
from shadow.core.git import (
    GitBranches,
    GitDiff,
    GitFileChanges,
    GitHead,
    GitLog,
    GitPerson,
    GitStatus,
    check_bounds,
    check_branch_name,
    check_person,
    full_message,
    is_branch_name,
)
from shadow.execution.host.git_parsing import (
    BRANCH_FORMAT,
    LOG_FORMAT,
    GitOutputError,
    StatusReader,
    branches,
    commits,
    fields_of,
    file_changes,
    text,
)
from shadow.execution.host.git_process import MAX_OUTPUT_BYTES, GitOutput, encode_list
from shadow.execution.host.git_repository import Repositories, Repository, copy_index, failure, path_failure
from shadow.execution.host.threads import in_thread

MAX_LOG_BYTES = 16 * 1024 * 1024
_UNTRACKED_TRIES = 3
_FROM_STDIN = ("--pathspec-from-file=-", "--pathspec-file-nul")
_DIFF = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "--ignore-submodules=dirty", "--find-renames")
_PATCH = ("--patch", "--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/", "--submodule=short")


class HostGit:
    """The git methods of ``ToolExecutor``, without operations: whoever journals calls them once."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories

    # What is there

    async def status(self, repository: str, *, limit: int, timeout_s: float) -> GitStatus:
        check_bounds(limit=limit, timeout_s=timeout_s)
        with _understood():
            repo = await self._repositories.open(repository, timeout_s)
            head = await repo.head()
            output = await repo.git(
                *("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--ignored=no"),
                *("--ignore-submodules=dirty", "--find-renames", "--ahead-behind"),
            )
            read = StatusReader(output.stdout, repo.prefix, limit=limit)
        return GitStatus(
            root=repo.root,
            head=head,
            upstream=read.upstream,
            ahead=read.ahead,
            behind=read.behind,
            in_progress=repo.in_progress(),
            entries=tuple(read.entries),
            truncated=read.more or output.truncated,
        )

    async def diff(
        self,
        repository: str,
        *,
        base: str | None,
        merge_base: bool,
        paths: Sequence[str],
        context_lines: int,
        limit_bytes: int,
        timeout_s: float,
    ) -> GitDiff:
        check_bounds(limit_bytes=limit_bytes, context_lines=context_lines, timeout_s=timeout_s)
        repo = await self._repositories.open(repository, timeout_s)
        own = repo.own_paths(paths)
        commit, tree = (None, None) if base is None else await _base(repo, base, merge_base=merge_base)
        async with self._with_untracked(repo) as view:
            output = await view.git(
                *("diff", *_DIFF, *_PATCH, f"--unified={context_lines}"),
                *([] if tree is None else [tree]),
                *("--", *own),
                limit_bytes=limit_bytes,
            )
        return GitDiff(content=output.stdout, base=commit, truncated=output.truncated)

    async def file_changes(
        self, repository: str, *, base: str, merge_base: bool, limit: int, timeout_s: float
    ) -> GitFileChanges:
        check_bounds(limit=limit, timeout_s=timeout_s)
        with _understood():
            repo = await self._repositories.open(repository, timeout_s)
            commit, tree = await _base(repo, base, merge_base=merge_base)
            async with self._with_untracked(repo) as view:
                output = await view.git("diff", *_DIFF, "--raw", "--numstat", "--no-abbrev", "-z", tree, "--")
            check_whole(output)
            changes = file_changes(output.stdout, repo.prefix)
        return GitFileChanges(changes=tuple(changes[:limit]), base=commit, truncated=len(changes) > limit)

    async def log(
        self, repository: str, *, revision: str, exclude: str | None, skip: int, limit: int, timeout_s: float
    ) -> GitLog:
        check_bounds(limit=limit, skip=skip, timeout_s=timeout_s)
        with _understood():
            repo = await self._repositories.open(repository, timeout_s)
            start = await repo.commit_of(revision)
            without = [] if exclude is None else [f"^{await repo.commit_of(exclude)}"]
            output = await repo.git(
                *("log", "-z", f"--format={LOG_FORMAT}", f"--skip={skip}", f"--max-count={limit + 1}"),
                *("--no-show-signature", "--no-notes", "--no-color", "--no-patch", "--encoding=UTF-8"),
                *(start, *without, "--"),
                limit_bytes=MAX_LOG_BYTES,
            )
            found = commits(output.stdout)
        if output.truncated and not found:
            raise LimitExceeded(f"The next commit's message is longer than {MAX_LOG_BYTES} bytes.")
        return GitLog(commits=tuple(found[:limit]), truncated=len(found) > limit or output.truncated)

    async def branches(self, repository: str, *, limit: int, timeout_s: float) -> GitBranches:
        check_bounds(limit=limit, timeout_s=timeout_s)
        with _understood():
            repo = await self._repositories.open(repository, timeout_s)
            head = await repo.head()
            output = await repo.git(
                "for-each-ref", f"--format={BRANCH_FORMAT}", "--sort=refname", "refs/heads", "refs/remotes"
            )
            found = branches(output.stdout)
        return GitBranches(head=head, branches=tuple(found[:limit]), truncated=len(found) > limit or output.truncated)

    # What changes something

    async def create_branch(
        self, name: str, repository: str, *, start: str, checkout: bool, timeout_s: float
    ) -> GitHead:
        check_bounds(timeout_s=timeout_s)
        check_branch_name(name)
        repo = await self._repositories.open(repository, timeout_s)
        head = await repo.head()
        if await repo.branch_commit(name) is not None or head == GitHead(branch=name, commit=None):
            raise AlreadyExists(f"There is a branch {name!a} already.", details={"branch": name})
        if head.commit is None and start == "HEAD":
            if not checkout:
                raise UnbornHead("There is no commit yet that a branch could be at.", mend="Commit something first.")
            await repo.git("symbolic-ref", "HEAD", f"refs/heads/{name}")
            return GitHead(branch=name, commit=None)
        commit = await repo.commit_of(start)
        if checkout:
            await _switch(repo, "-b", name, commit)
        else:
            output = await repo.git(
                "update-ref", "-m", f"branch: Created from {commit}", f"refs/heads/{name}", commit, "0" * len(commit),
                may_fail=True,
            )  # fmt: skip
            if output.code != 0:
                raise _branch_failure(output, name)
        return GitHead(branch=name, commit=commit)

    async def checkout(self, revision: str, repository: str, *, timeout_s: float) -> GitHead:
        check_bounds(timeout_s=timeout_s)
        repo = await self._repositories.open(repository, timeout_s)
        if is_branch_name(revision):
            if await repo.branch_commit(revision) is not None:
                await _switch(repo, revision)
                return await repo.head()
            if await repo.head() == GitHead(branch=revision, commit=None):
                return GitHead(branch=revision, commit=None)
        commit = await repo.commit_of(revision)
        await _switch(repo, "--detach", commit)
        return GitHead(branch=None, commit=commit)

    async def commit(
        self,
        message: str,
        repository: str,
        *,
        author: GitPerson | None,
        co_authors: Sequence[GitPerson],
        paths: Sequence[str] | None,
        timeout_s: float,
    ) -> GitHead:
        check_bounds(timeout_s=timeout_s)
        body = full_message(message, co_authors)
        if author is not None:
            check_person(author)
        if paths is not None and not paths:
            raise Rejected("No path was chosen.", mend="Leave 'paths' out to commit everything.")
        repo = await self._repositories.open(repository, timeout_s)
        _check_free(repo)
        head = await repo.head()
        unmerged = list(fields_of((await repo.git("diff", "--name-only", "--diff-filter=U", "-z", "--")).stdout))
        if unmerged:
            names = [repo.prefix.path(name) for name in unmerged[:100]]
            raise Conflict(
                "Some files are in conflict.", mend="Resolve them and 'git add' them.", details={"paths": names}
            )
        if paths is None:
            tree = await _add_all(repo)
        else:
            tree = await self._add_chosen(repo, repo.own_paths(paths), head)
        before = (
            await repo.empty_tree() if head.commit is None else await repo.line("rev-parse", f"{head.commit}^{{tree}}")
        )
        if tree == before:
            raise NothingToCommit("There is nothing to commit.")
        commit = await _write_commit(repo, tree, body, head, author)
        subject = message.strip().splitlines()[0][:200]
        await repo.git("update-ref", "-m", f"commit: {subject}", "HEAD", commit, head.commit or "0" * len(commit))
        return GitHead(branch=head.branch, commit=commit)

    # Parts

    @asynccontextmanager
    async def _with_untracked(self, repo: Repository) -> AsyncGenerator[Repository]:
        """The repository on a copy of its index in which untracked files are announced, so that diffs show them."""
        async with self._repositories.scratch_directory() as scratch:
            copy = os.path.join(scratch, "index")
            os.mkdir(objects := os.path.join(scratch, "objects"))  # git writes down the empty file that it announces
            view = repo.with_index(copy)
            index = await repo.line("rev-parse", "--path-format=absolute", "--git-path", "index")
            assert index is not None
            for last in (False,) * (_UNTRACKED_TRIES - 1) + (True,):
                await in_thread(None, copy_index, index, copy)
                listed = await view.git("ls-files", "-z", "--others", "--exclude-standard")
                check_whole(listed)
                names = [name for name in fields_of(listed.stdout) if not name.endswith(b"/")]
                if not names:
                    break
                added = await view.git(
                    *("add", "--intent-to-add", *_FROM_STDIN),
                    stdin=b"".join(name + b"\0" for name in names),
                    env={"GIT_OBJECT_DIRECTORY": objects},
                    may_fail=True,
                )
                if added.code == 0:
                    break
                if last or b"did not match any file" not in added.stderr:
                    raise failure(added)
            yield view

    async def _add_chosen(self, repo: Repository, paths: Sequence[str], head: GitHead) -> str:
        """The tree of HEAD with ``paths`` as they are in the work tree; the index takes them too."""
        chosen = encode_list(paths)
        async with self._repositories.scratch_directory() as scratch:
            only = repo.with_index(os.path.join(scratch, "index"))
            if head.commit is not None:
                await only.git("read-tree", head.commit)
            added = await only.git("add", "--all", *_FROM_STDIN, stdin=chosen, may_fail=True)
            if added.code != 0:
                raise path_failure(added)
            tree = await only.line("write-tree")
        assert tree is not None
        added = await repo.git("add", "--all", *_FROM_STDIN, stdin=chosen, may_fail=True)
        if added.code != 0 and b"did not match any file" not in added.stderr:  # its removal may be staged already
            raise path_failure(added)
        return tree


async def _add_all(repo: Repository) -> str:
    await repo.git("add", "--all")
    tree = await repo.line("write-tree")
    assert tree is not None
    return tree


async def _write_commit(repo: Repository, tree: str, body: bytes, head: GitHead, author: GitPerson | None) -> str:
    """A commit that nothing points to yet."""
    parents = [] if head.commit is None else ["-p", head.commit]
    person: dict[str, str] = {}
    if author is not None:
        for role in ("AUTHOR", "COMMITTER"):
            person |= {f"GIT_{role}_NAME": author.name, f"GIT_{role}_EMAIL": author.email}
    output = await repo.git(
        "commit-tree", "--no-gpg-sign", *parents, "-F", "-", tree, stdin=body, env=person, may_fail=True
    )
    if output.code != 0:
        if b"auto-detection is disabled" in output.stderr or b"empty ident name" in output.stderr:
            raise Rejected(
                "Nobody is known to be the author.",
                mend="Name an author, or set user.name and user.email in the repository.",
            )
        raise failure(output)
    return text(output.stdout.removesuffix(b"\n"))


async def _base(repo: Repository, base: str, *, merge_base: bool) -> tuple[str | None, str]:
    """The commit to compare with, and its tree, or the empty one on an unborn branch."""
    try:
        commit = await repo.commit_of(base)
    except UnbornHead:
        return None, await repo.empty_tree()
    if merge_base:
        fork = await repo.line("merge-base", commit, "HEAD", may_fail=True)
        if fork is None:
            raise Conflict(f"HEAD and {base[:200]!a} have no commit in common.", mend="Compare without merge_base.")
        commit = fork
    return commit, commit


async def _switch(repo: Repository, *what: str) -> None:
    """``git checkout``. Raises: GitInProgress, LocalChanges, AlreadyExists."""
    _check_free(repo)
    output = await repo.git(
        *("checkout", "--quiet", "--no-guess", "--no-track", "--no-recurse-submodules")
        if "-b" in what
        else ("checkout", "--quiet", "--no-guess", "--no-recurse-submodules"),
        *(*what, "--"),
        may_fail=True,
    )
    if output.code == 0:
        return
    said = output.stderr.decode("utf-8", "surrogateescape")
    if (
        "would be overwritten by checkout" in said
        or "would lose untracked files" in said
        or "be removed by checkout" in said
    ):
        paths = [line[1:] for line in said.splitlines() if line.startswith("\t")][:100]
        raise LocalChanges(
            "Local changes would be overwritten.", mend="Commit or undo them first.", details={"paths": paths}
        )
    raise _branch_failure(output, what[1]) if what[0] == "-b" else failure(output)


def _branch_failure(output: GitOutput, name: str) -> ShadowError:
    if b"already exists" in output.stderr or b"exists; cannot create" in output.stderr:
        said = output.stderr.decode("utf-8", "replace").strip()
        return AlreadyExists(f"The branch {name!a} cannot be made: {said[:500]}", details={"branch": name})
    return failure(output)


def _check_free(repo: Repository) -> None:
    """Raises: GitInProgress."""
    what = repo.in_progress()
    if what is not None and what != "bisect":
        raise GitInProgress(
            f"The repository is in the middle of a {what.replace('_', '-')}.",
            mend=f"End it first: 'git {what.replace('_', '-')} --continue' or '--abort'.",
            details={"in_progress": what.value},
        )


def check_whole(output: GitOutput) -> None:
    """Raises: LimitExceeded."""
    if output.truncated:
        raise LimitExceeded(f"git has more than {MAX_OUTPUT_BYTES} bytes to say.", details={"limit": "bytes"})


@contextlib.contextmanager
def _understood() -> Generator[None]:
    """Raises: Broken: git printed what it never does."""
    try:
        yield
    except GitOutputError as error:
        raise Broken(f"git's answer cannot be understood: {error}.") from error
