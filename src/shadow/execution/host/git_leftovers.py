"""What stands in a rollback's way: git's locks, dead or alive, operations in progress, directories that nobody may write to.

Everything here may raise ``OSError``.
"""

import asyncio
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from shadow.core.errors import Conflict
from shadow.execution.host.git_repository import Repository
from shadow.execution.host.threads import in_thread

WAIT_S = 10.0
"""How long another git may take to come to its end."""
_POLL_S = 0.05
_PROGRESS = (
    *(
        "MERGE_HEAD",
        "MERGE_MODE",
        "MERGE_MSG",
        "MERGE_RR",
        "AUTO_MERGE",
        "SQUASH_MSG",
        "CHERRY_PICK_HEAD",
        "REVERT_HEAD",
    ),
    *("REBASE_HEAD", "rebase-merge", "rebase-apply", "sequencer"),
    *("BISECT_LOG", "BISECT_START", "BISECT_TERMS", "BISECT_NAMES", "BISECT_EXPECTED_REV", "BISECT_ANCESTORS_OK"),
    *("BISECT_FIRST_PARENT", "BISECT_RUN", "BISECT_HEAD", "refs/bisect"),
)


def end_progress(git_dir: str) -> None:
    """End a merge, rebase, cherry-pick, revert, ``am`` or bisect as it stands."""
    for name in _PROGRESS:
        _remove(f"{git_dir}/{name}")


def _remove(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return


class Locks:
    """Holds the lock of a repository's index, so that no other git changes it, its HEAD or the branch meanwhile.

    A lock that is there already is waited for, and taken away where no git is at work in the repository: one that was killed
    leaves it, empty or not, and nobody else would ever remove it. Raises: Conflict.
    """

    def __init__(self, repo: Repository, *, branch: str | None) -> None:
        self._repo = repo
        self._branch = branch
        self._index = f"{repo.git_dir}/index"
        self._held = False

    async def __aenter__(self) -> Self:
        common = await self._repo.line("rev-parse", "--path-format=absolute", "--git-common-dir")
        assert common is not None
        others = [f"{self._repo.git_dir}/HEAD.lock"]
        if self._branch is not None:
            others.append(f"{common}/refs/heads/{self._branch}.lock")
        try:
            async with asyncio.timeout(min(WAIT_S, self._repo.left_s)):
                while not self._take():
                    await self._clear(f"{self._index}.lock")
                for path in others:
                    while os.path.lexists(path):
                        await self._clear(path)
        except TimeoutError as error:
            self._let_go()
            raise Conflict(
                "Another git works in this repository.",
                mend="Try again when it has ended, or end it.",
            ) from error
        except BaseException:
            self._let_go()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go()

    def install_index(self, index: str) -> None:
        """Make ``index`` the repository's, and let go of its lock."""
        with suppress(FileNotFoundError):  # an empty one need not be there
            shutil.copy2(index, f"{self._index}.lock")
        os.rename(f"{self._index}.lock", self._index)
        self._held = False

    def _take(self) -> bool:
        try:
            os.close(os.open(f"{self._index}.lock", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        except FileExistsError:
            return False
        self._held = True
        return True

    def _let_go(self) -> None:
        if self._held:
            self._held = False
            with suppress(FileNotFoundError):
                os.unlink(f"{self._index}.lock")

    async def _clear(self, lock: str) -> None:
        if await in_thread(None, _git_is_at_work, self._repo):
            await asyncio.sleep(_POLL_S)
        else:
            _remove(lock)


def _git_is_at_work(repo: Repository) -> bool:
    """Whether any process named after git is in the work tree or its git directory, where git goes first of all."""
    places = [os.path.realpath(path) for path in (repo.work_tree, repo.git_dir)]
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it ended, or is somebody else's
                if (process / "comm").read_bytes().startswith(b"git"):
                    where = os.readlink(process / "cwd")
                    if any(where == place or where.startswith(f"{place}/") for place in places):
                        return True
    return False


def loosen(root: str) -> None:
    """Make the directories below ``root`` that are ours writable to us. Links are not followed, repositories not entered."""
    waiting = [os.fsencode(root)]
    while waiting:
        path = waiting.pop()
        with suppress(OSError):  # what cannot be changed is met again by whoever needs it
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                mode = stat.S_IMODE(os.fstat(fd).st_mode)
                if mode & stat.S_IRWXU != stat.S_IRWXU:
                    os.chmod(f"/proc/self/fd/{fd}", mode | stat.S_IRWXU)
                with os.scandir(f"/proc/self/fd/{fd}") as entries:
                    names = [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
            finally:
                os.close(fd)
            waiting += (b"%b/%b" % (path, name) for name in names if name != b".git")
