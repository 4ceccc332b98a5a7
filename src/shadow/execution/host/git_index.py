"""An index of our own for each repository: all of its work tree, with what git knows of each file. Never the user's."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from shadow.core.errors import GitFailed
from shadow.core.git import is_commit_id
from shadow.execution.host.git import check_whole
from shadow.execution.host.git_parsing import fields_of, text
from shadow.execution.host.git_process import GitOutput
from shadow.execution.host.git_repository import Repository, copy_index, failure
from shadow.execution.host.threads import in_thread

MAX_KEPT = 16
_COMMIT = """
ref=$1 message=$2 parent=$3; shift 3
tree=$("$@" write-tree) || exit
commit=$("$@" commit-tree --no-gpg-sign ${parent:+-p "$parent"} -m "$message" "$tree") || exit
"$@" -c core.logAllRefUpdates=false update-ref --no-deref "$ref" "$commit" && echo "$tree" && echo "$commit"
"""
_ADD_AND_COMMIT = _COMMIT.replace("tree=", '"$@" add --all --verbose || exit\ntree=', 1)
_NO_COMMIT = b"does not have a commit checked out"


class KeptIndexes:
    """One for each repository, the newest few; each serves as long as the user's index, which it began as, and the ignore
    rules stay as they were, since ``git add`` follows what an index has whatever rules say. Methods may raise ``OSError``."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def mark(self, repo: Repository) -> str:
        """Which state the user's index and the repository's own ignore rules are in; those of the tree are told by git."""
        marks: list[object] = []
        for name in ("index", "info/exclude"):
            with suppress(FileNotFoundError, NotADirectoryError):
                found = os.stat(f"{repo.git_dir}/{name}")
                marks += (name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return _digest(marks)

    def copy(self, repo: Repository, mark: str, copy: str) -> bool:
        """Lay the one that is kept down as ``copy``; ``False`` where there is none of this state."""
        return copy_index(f"{self._directory}/{_of(repo)}-{mark}", copy)

    def keep(self, repo: Repository, mark: str, index: str) -> None:
        """Take ``index`` away: the next one may begin with it."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        if os.path.isfile(index):  # there is none where nothing was ever added
            os.replace(index, f"{self._directory}/{_of(repo)}-{mark}")
        self.forget(repo, but=mark)

    def forget(self, repo: Repository, *, but: str | None = None) -> None:
        of = _of(repo)
        with suppress(FileNotFoundError):
            names = os.listdir(self._directory)
            own = [name for name in names if name.startswith(f"{of}-") and name != f"{of}-{but}"]
            others = sorted(set(names) - set(own), key=lambda name: os.stat(f"{self._directory}/{name}").st_mtime_ns)
            for name in (*own, *others[:-MAX_KEPT]):
                os.unlink(f"{self._directory}/{name}")


def _of(repo: Repository) -> str:
    """Another repository in the same place is another one."""
    found = os.stat(repo.git_dir)
    return _digest((repo.git_dir, found.st_dev, found.st_ino))


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeCommit:
    """A commit of the whole work tree that is to be made."""

    ref: str
    """What is to name it."""
    message: str
    parent: str | None
    env: Mapping[str, str]
    """Who makes it."""

    async def make(self, view: Repository, script: str, *, may_fail: bool) -> GitOutput:
        """Of the index of ``view``. Tree and commit are the last lines of stdout."""
        arguments = (script, self.ref, self.message, self.parent or "")
        return await view.exact(env=self.env, may_fail=may_fail, script=arguments)


async def commit_everything(repo: Repository, kept: KeptIndexes, wanted: WholeCommit, *, copy: str) -> tuple[str, str]:
    """Tree and commit of all that is tracked, or neither tracked nor ignored. ``copy``: where an index may lie meanwhile.

    Raises: GitFailed, LimitExceeded.
    """
    mark = await in_thread(None, kept.mark, repo)
    view = repo.with_index(copy)
    if await in_thread(None, kept.copy, repo, mark, copy):
        made = await wanted.make(view, _ADD_AND_COMMIT, may_fail=True)
        # It serves no more where ignore rules have changed, or where it speaks of objects that are gone.
        if made.code == 0 and b".gitignore'\n" not in made.stdout:
            await in_thread(None, kept.keep, repo, mark, copy)
            return _last_lines(made)
    await in_thread(None, kept.forget, repo)
    await in_thread(None, copy_index, f"{repo.git_dir}/index", copy)
    # What is tracked though it is ignored is added by nobody once it was away: then each time begins anew.
    odd = await view.git("ls-files", "-z", "--cached", "--ignored", "--exclude-standard")
    await _add_everything(view)
    made = await wanted.make(view, _COMMIT, may_fail=False)
    if not odd.stdout:
        await in_thread(None, kept.keep, repo, mark, copy)
    return _last_lines(made)


def _last_lines(output: GitOutput) -> tuple[str, str]:
    tree, commit = ("", "", *text(output.stdout).splitlines())[-2:]
    if not (is_commit_id(tree) and is_commit_id(commit)):
        raise GitFailed("git names a commit that is none.")
    return tree, commit


async def _add_everything(view: Repository) -> None:
    """``git add --all``, where a repository without a commit, which git cannot add, is left out. Raises: GitFailed."""
    added = await view.exact("add", "--all", may_fail=True)
    if added.code != 0 and _NO_COMMIT in added.stderr:
        changed = await view.exact("ls-files", "-z", "--modified", "--deleted")
        check_whole(changed)
        await view.exact("update-index", "-z", "--remove", "--stdin", stdin=changed.stdout)
        others = await view.exact("ls-files", "-z", "--others", "--exclude-standard")
        check_whole(others)
        names = b"".join(name + b"\0" for name in fields_of(others.stdout) if not name.endswith(b"/"))
        added = await view.exact("update-index", "-z", "--add", "--replace", "--stdin", stdin=names, may_fail=True)
    if added.code != 0:
        raise failure(added)
