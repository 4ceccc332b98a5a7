"""One repository for the length of one call: found by descriptor, pinned to its own directory, asked by git.

git is told both its directory and its work tree, so that neither ``core.worktree`` nor a search upwards leads it elsewhere, and
it need not care who owns the files.
"""

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from shadow.core.errors import (
    Conflict,
    GitFailed,
    LimitExceeded,
    NotARepository,
    NotFound,
    PathRefused,
    Rejected,
    RevisionNotFound,
    ShadowError,
    UnbornHead,
)
from shadow.core.git import GitHead, GitProgress, is_commit_id, is_revision
from shadow.execution.host.failures import error_from_os
from shadow.execution.host.git_parsing import Prefix, text
from shadow.execution.host.git_process import Deadline, GitOutput, GitRunner
from shadow.execution.host.paths import WorkspacePaths, encode_path, show_path
from shadow.execution.host.threads import in_thread

_IN_PROGRESS = {
    "rebase-merge": GitProgress.REBASE,
    "rebase-apply/applying": GitProgress.APPLY,
    "rebase-apply": GitProgress.REBASE,
    "MERGE_HEAD": GitProgress.MERGE,
    "CHERRY_PICK_HEAD": GitProgress.CHERRY_PICK,
    "REVERT_HEAD": GitProgress.REVERT,
    "BISECT_LOG": GitProgress.BISECT,
}
_LOCKED = re.compile(rb"Unable to create '.*\.lock': File exists", re.DOTALL)
_NOT_A_REPOSITORY = re.compile(
    rb"fatal: (not a git repository|invalid gitfile format|bad config|unknown repository ext)"
)
_DISK_FULL = re.compile(rb"No space left on device|Disk quota exceeded")
_EXACT = {
    "core.fileMode": "true",
    "core.symlinks": "true",
    "core.ignoreCase": "false",
    "core.precomposeUnicode": "false",
    "core.protectNTFS": "false",
    "core.protectHFS": "false",
    "core.trustctime": "true",
    "core.checkStat": "default",
    "core.preloadIndex": "false",  # its threads cost more than they save
}
_HOOK = re.compile(r"hook\.(.+)\.[^.]+", re.DOTALL)


class Repository:
    """``root``: its work tree relative to the workspace's root, every link on the way resolved."""

    def __init__(
        self, runner: GitRunner, *, root: str, work_tree: str, deadline: Deadline, index: str | None = None
    ) -> None:
        self._runner = runner
        self._deadline = deadline
        self.root = root
        self.prefix = Prefix(root)
        self.git_dir = f"{work_tree}/.git"
        self.work_tree = work_tree
        self._settings: Mapping[str, str] = {}
        self._env = {"GIT_DIR": self.git_dir, "GIT_WORK_TREE": work_tree}
        if index is not None:
            self._env["GIT_INDEX_FILE"] = index

    @property
    def left_s(self) -> float:
        return self._deadline.left_s

    def with_index(self, path: str) -> "Repository":
        """The same, on another index."""
        other = Repository(self._runner, root=self.root, work_tree=self.work_tree, deadline=self._deadline, index=path)
        other.git_dir, other._settings = self.git_dir, self._settings
        return other

    async def git(
        self,
        *arguments: str,
        stdin: bytes = b"",
        limit_bytes: int | None = None,
        env: Mapping[str, str] | None = None,
        may_fail: bool = False,
        script: Sequence[str] = (),
    ) -> GitOutput:
        """Raises: GitFailed (or what it amounts to), unless ``may_fail``; LimitExceeded where there is too much output."""
        more = {} if limit_bytes is None else {"limit_bytes": limit_bytes}
        output = await self._runner.run(
            arguments,
            cwd=self.root,
            env={**self._env, **self._settings, **(env or {})},
            deadline=self._deadline,
            stdin=stdin,
            script=script,
            **more,
        )
        if output.code != 0 and not may_fail and not output.truncated:
            raise failure(output)
        return output

    async def exact(
        self,
        *arguments: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        may_fail: bool = False,
        script: Sequence[str] = (),
    ) -> GitOutput:
        """As ``git``, for a tree that is what lies on this file system, whatever the repository's settings leave out."""
        settings = [part for name, value in _EXACT.items() for part in ("-c", f"{name}={value}")]
        return await self.git(*settings, *arguments, stdin=stdin, env=env, may_fail=may_fail, script=script)

    async def line(self, *arguments: str, may_fail: bool = False) -> str | None:
        """The one line that git prints; ``None`` where it fails and may."""
        output = await self.git(*arguments, may_fail=may_fail)
        if output.code != 0:
            if _NOT_A_REPOSITORY.search(output.stderr):
                raise failure(output)
            return None
        return text(output.stdout.removesuffix(b"\n"))

    async def settle(self, paths: WorkspacePaths) -> None:
        """Find the git directory, see that it lies in the workspace, and switch off what hooks its settings name."""
        if not _is_plain(self.git_dir):
            git_dir = await self.line("rev-parse", "--path-format=absolute", "--git-dir")
            common = await self.line("rev-parse", "--path-format=absolute", "--git-common-dir")
            assert git_dir is not None
            assert common is not None
            for directory in (git_dir, common):
                if paths.below_root(os.fsencode(os.path.realpath(directory))) is None:
                    raise PathRefused(f"The git directory of {show_path(self.root)} lies outside the workspace.")
            self.git_dir = git_dir
        # git 2.54 and newer take hooks from the configuration too.
        names = await self.git("config", "--name-only", "-z", "--get-regexp", r"^hook\.", may_fail=True)
        if names.code not in (0, 1):
            raise failure(names)
        self._settings = without_hooks(text(names.stdout))

    async def head(self) -> GitHead:
        """Raises: NotARepository."""
        branch = await self.line("symbolic-ref", "-q", "HEAD", may_fail=True)
        commit = await self.line("rev-parse", "--verify", "-q", "HEAD^{commit}", may_fail=True)
        if branch is None and commit is None:
            raise NotARepository(f"HEAD of the repository {show_path(self.root)} cannot be read.")
        if commit is not None and not is_commit_id(commit):
            raise GitFailed("git names a commit that is none.")
        return GitHead(branch=branch.removeprefix("refs/heads/") if branch is not None else None, commit=commit)

    async def born_head(self) -> GitHead | None:
        """``head`` by a single call; ``None`` where that does not tell it."""
        said = await self.git("rev-parse", "HEAD^{commit}", "--symbolic-full-name", "HEAD", may_fail=True)
        commit, _, ref = text(said.stdout.removesuffix(b"\n")).partition("\n")
        if said.code != 0 or not is_commit_id(commit) or "\n" in ref or not ref.startswith(("HEAD", "refs/heads/")):
            return None
        return GitHead(branch=None if ref == "HEAD" else ref.removeprefix("refs/heads/"), commit=commit)

    async def commit_of(self, revision: str) -> str:
        """Raises: RevisionNotFound, UnbornHead."""
        found = None
        if is_revision(revision):
            found = await self.line("rev-parse", "--verify", "-q", f"{revision}^{{commit}}", may_fail=True)
        if found is None or not is_commit_id(found):
            if revision == "HEAD" and (await self.head()).commit is None:
                raise UnbornHead("There is no commit yet.", mend="Commit something first.")
            raise RevisionNotFound(f"There is no commit {revision[:200]!a}.", details={"revision": revision[:200]})
        return found

    async def branch_commit(self, name: str) -> str | None:
        """The commit of a local branch."""
        return await self.line("rev-parse", "--verify", "-q", f"refs/heads/{name}^{{commit}}", may_fail=True)

    async def work_trees(self) -> Sequence[tuple[str, str]]:
        """Of each work tree that a branch is checked out in and that is still there: where, and the branch's ref."""
        found: list[tuple[str, str]] = []
        for block in (await self.git("worktree", "list", "--porcelain")).stdout.split(b"\n\n"):
            lines = (line.partition(b" ") for line in block.split(b"\n"))
            facts = {name: value for name, _, value in lines}
            if b"branch" in facts and b"prunable" not in facts:
                found.append((text(facts[b"worktree"]), text(facts[b"branch"])))
        return found

    async def empty_tree(self) -> str:
        tree = await self.line("hash-object", "-t", "tree", "--stdin")
        assert tree is not None
        return tree

    def in_progress(self) -> GitProgress | None:
        return next(
            (what for name, what in _IN_PROGRESS.items() if os.path.lexists(f"{self.git_dir}/{name}")),
            None,
        )

    def own_paths(self, paths: Sequence[str]) -> list[str]:
        """Paths of the workspace as git's, relative to the work tree. Nothing need be there. Raises: PathRefused."""
        root = () if self.root == "." else tuple(encode_path(self.root).split(b"/"))
        own: list[str] = []
        for path in paths:
            names = tuple(name for name in encode_path(path).split(b"/") if name not in (b"", b"."))
            if path.startswith("/") or b".." in names:
                raise PathRefused(f"{show_path(path)} is not a plain path below the workspace's root.")
            if names[: len(root)] != root:
                raise PathRefused(f"{show_path(path)} is not in the repository {show_path(self.root)}.")
            own.append(text(b"/".join(names[len(root) :])) or ".")
        return own


def _is_plain(git_dir: str) -> bool:
    """Whether a ``.git`` is a directory that leads nowhere else."""
    try:
        return stat.S_ISDIR(os.lstat(git_dir).st_mode) and not os.path.lexists(f"{git_dir}/commondir")
    except OSError:
        return False


def without_hooks(names: str) -> Mapping[str, str]:
    """Variables that disable each hook that has a setting; on the command line a name with ``=`` could not be given."""
    hooks = dict.fromkeys(match[1] for name in names.split("\0") if (match := _HOOK.fullmatch(name)) is not None)
    settings: dict[str, str] = {"GIT_CONFIG_COUNT": str(len(hooks))} if hooks else {}
    for index, hook in enumerate(hooks):
        settings[f"GIT_CONFIG_KEY_{index}"] = f"hook.{hook}.enabled"
        settings[f"GIT_CONFIG_VALUE_{index}"] = "false"
    return settings


class Repositories:
    """The repositories of one workspace."""

    def __init__(self, runner: GitRunner, *, root: Path, state_dir: str) -> None:
        self._runner = runner
        self._root = root.absolute()
        self._paths = WorkspacePaths(root)
        self._scratch = os.path.join(state_dir, "git")

    async def open(self, directory: str, timeout_s: float) -> Repository:
        """Raises: NotARepository, PathRefused, and as ``WorkspacePaths.open_directory``."""
        deadline = Deadline(timeout_s)
        repo = await in_thread(
            None, find_repository, self._paths, directory, runner=self._runner, base=self._root, deadline=deadline
        )
        await repo.settle(self._paths)
        return repo

    @asynccontextmanager
    async def scratch_directory(self) -> AsyncGenerator[str]:
        os.makedirs(self._scratch, mode=0o700, exist_ok=True)
        path = tempfile.mkdtemp(dir=self._scratch)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def files_of_git() -> Generator[None]:
    """What the operating system says of git's files, and of ours beside them, as errors of Shadow's."""
    try:
        yield
    except OSError as error:
        raise error_from_os(error, str(error.filename or ".git")) from error


def copy_index(index: str, copy: str) -> bool:
    """With its times: by them git knows which files may have changed since. ``False`` where there is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(copy)
    with contextlib.suppress(FileNotFoundError):  # nothing was ever added
        if os.path.isfile(index):
            shutil.copy2(index, copy)
            return True
    return False


def find_repository(
    paths: WorkspacePaths, directory: str, *, runner: GitRunner, base: Path, deadline: Deadline
) -> Repository:
    """The nearest ``.git`` at or above ``directory``. Raises: NotARepository, and as ``WorkspacePaths.open_directory``."""
    fd, where = paths.open_directory(directory)
    os.close(fd)
    root = where
    while True:
        with paths.resolve(".git" if root == "." else f"{root}/.git", follow=False) as place:
            if place.found is not None:
                work_tree = str(base) if root == "." else f"{base}/{root}"
                return Repository(runner, root=root, work_tree=work_tree, deadline=deadline)
        if root == ".":
            raise NotARepository(
                f"{show_path(directory)} does not lie in a git repository.",
                mend="Name a directory of one, or make one with 'git init'.",
            )
        root = root.rpartition("/")[0] or "."


def failure(output: GitOutput) -> ShadowError:
    """What it means that git failed."""
    said = output.stderr.decode("utf-8", "replace").strip()
    details: dict[str, object] = {"stderr": said[:4096], "code": output.code}
    if _NOT_A_REPOSITORY.search(output.stderr):
        return NotARepository(f"git cannot use this repository: {said[:1000]}", details=details)
    if _LOCKED.search(output.stderr):
        return Conflict(
            "Another git works in this repository, or one died there.",
            mend="Try again; if nothing else runs, delete the '.lock' file that git names.",
            details=details,
        )
    if _DISK_FULL.search(output.stderr):
        return LimitExceeded(
            "The disk is full.", mend="Delete what is not needed.", details={**details, "limit": "disk"}
        )
    return GitFailed(f"git failed: {said[:1000] or f'it ended with code {output.code}'}", details=details)


def path_failure(output: GitOutput) -> ShadowError:
    """What it means that git would not add chosen paths."""
    said = output.stderr.decode("utf-8", "replace")
    if "did not match any file" in said:
        return NotFound(f"A path is neither there nor tracked: {said.strip()[:1000]}")
    if "are ignored by one of your .gitignore files" in said:
        return Rejected(
            f"A path is ignored: {said.partition('hint:')[0].strip()[:1000]}",
            mend="Change .gitignore, or leave it out.",
        )
    if "is beyond a symbolic link" in said or "is outside repository" in said:
        return PathRefused(f"A path does not lie in the work tree: {said.strip()[:1000]}")
    return failure(output)
