"""Filling a workspace from a mirror: its packs with their indexes and its refs are laid down as they are, then checked out.

What travels is what a bundle holds, a pack and the refs in it, with the pack's index beside it, so that nobody has to make the
one or the other again for each workspace. See docs/adr/0007. The checkout runs inside, where the repository's attributes and
filters may do what they like.
"""

import asyncio
import errno
import os
import posixpath
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shadow.core.commands import CommandSpec, Exited, LimitReached
from shadow.core.concurrency import task_group
from shadow.core.errors import Broken, LimitExceeded, ShadowError, Unavailable, Unsupported
from shadow.execution.interface import ToolExecutor
from shadow.scm.failures import failure
from shadow.scm.lfs import StoredObject
from shadow.scm.mirrors import HEADS, Mirror

PIECE_BYTES = 1024 * 1024
AT_ONCE = 4
CHECKOUT_TIMEOUT_S = 1800.0
INSIDE: Sequence[str] = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "advice.detachedHead=false",
)
"""For our own calls of git inside a workspace, where nothing that the repository configures is wanted."""

EXCLUDED = b"""# What tools leave behind and nobody means to commit. The repository's own .gitignore files come first.
__pycache__/
*.py[cod]
.venv/
node_modules/
.DS_Store
"""
"""``.git/info/exclude`` of a workspace, in place of the ignore file that people keep for themselves."""

LFS_FILTER: Sequence[str] = (
    '[filter "lfs"]',
    "\tclean = git-lfs clean -- %f",
    "\tsmudge = git-lfs smudge -- %f",
    "\tprocess = git-lfs filter-process",
    "\trequired = true",
    "[lfs]",
    "\trepositoryformatversion = 0",
    "\tfetchinclude =",
    "\tfetchexclude =",
)
"""What ``git lfs install --local`` writes, without its hooks; and that all files are wanted, whatever ``.lfsconfig`` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who commits in a workspace."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class OpenFile:
    name: str
    fd: int
    size_bytes: int


class Filling:
    """What a mirror held at one moment: its packs are open, so that a later fetch cannot take them away. Close it."""

    def __init__(
        self, mirror: Mirror, base_branch: str | None, base_commit: str, lfs: Sequence[StoredObject] | None
    ) -> None:
        self.object_format = mirror.object_format
        self.base_branch = base_branch
        self.base_commit = base_commit
        self.refs = dict(mirror.remote.refs)
        self.lfs = lfs
        """Large files that come along; ``None``: their pointers are enough."""
        self.files: list[OpenFile] = []
        self._closing = ExitStack()
        shallow = mirror.path / "shallow"
        self.shallow = shallow.read_bytes() if shallow.exists() else None
        try:
            self.add_packs(mirror.path)
        except BaseException:
            self.close()
            raise

    def add_packs(self, repository: Path) -> None:
        """Those of one more repository. Raises: LimitExceeded, Unavailable."""
        for file in sorted((repository / "objects/pack").iterdir()):
            if file.suffix in (".pack", ".idx"):
                fd = _open(file)
                self._closing.callback(os.close, fd)
                self.files.append(OpenFile(file.name, fd, os.fstat(fd).st_size))

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files) + sum(stored.size_bytes for stored in self.lfs or ())

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(file: Path) -> int:
    """Raises: LimitExceeded, Unavailable."""
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unavailable("A mirror changed while a workspace was filled from it.", mend="Try again.") from error
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise LimitExceeded(
            "There are more files to open than this process may.", mend="Raise the limit of open files (ulimit -n)."
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone:
    """One repository of a workspace: what it is filled with, where it lies, and its submodules."""

    filling: Filling
    origin: str
    """URL without credentials, or absolute path."""
    branch: str | None
    """The workspace's own; ``None``: a detached HEAD, as submodules have."""
    name: str = ""
    """As a submodule of the one that it lies in."""
    path: str = "."
    """Of the work tree, beneath the workspace's root."""
    git_dir: str = ".git"
    modules: "Sequence[Clone]" = ()


async def fill(executor: ToolExecutor, clone: Clone, *, identity: Identity) -> None:
    """Make the empty workspace of ``executor`` a clone that stands on its own new branch, and fill its submodules.

    Raises: Broken: git inside failed; Unsupported: git-lfs is wanted inside and not there; LimitExceeded: it does not fit.
    """
    if clone.filling.lfs is not None:
        await _check_lfs(executor)
    await _lay(executor, clone, identity)
    await run_git(
        executor,
        ["reset", "--hard", "--quiet"],
        about="Checking out",
        cwd=clone.path,
        timeout_s=CHECKOUT_TIMEOUT_S,
        # git-lfs may be set up for the whole system there, and would go looking for what was not asked for.
        env={"GIT_LFS_SKIP_SMUDGE": "1"} if clone.filling.lfs is None else {},
    )
    for module in clone.modules:
        pointer = f"gitdir: {posixpath.relpath(module.git_dir, module.path)}\n"
        await executor.write_file(f"{module.path}/.git", _bytes(pointer))
        await fill(executor, module, identity=identity)


async def _check_lfs(executor: ToolExecutor) -> None:
    try:
        await run_git(executor, ["lfs", "version"], about="Looking for git-lfs")
    except Broken as error:
        raise Unsupported(
            "git-lfs is not there in the workspace, so large files cannot be checked out.",
            mend="Install git-lfs where workspaces run, or leave --lfs away.",
        ) from error


async def _lay(executor: ToolExecutor, clone: Clone, identity: Identity) -> None:
    """The git directory of one repository."""
    filling, git_dir = clone.filling, clone.git_dir
    limit = asyncio.Semaphore(AT_ONCE)

    async def upload(file: OpenFile) -> None:
        async with limit:
            await executor.write_file(f"{git_dir}/objects/pack/{file.name}", _pieces(file.fd), mode=0o444)

    async def upload_large(stored: StoredObject) -> None:
        async with limit:
            fd = _open(stored.file)
            try:
                await executor.write_file(f"{git_dir}/{stored.name}", _pieces(fd), mode=0o444)
            finally:
                os.close(fd)

    await executor.make_directory(f"{git_dir}/refs")
    async with task_group() as uploads:
        for file in filling.files:
            uploads.create_task(upload(file))
        for stored in filling.lfs or ():
            uploads.create_task(upload_large(stored))
    if filling.shallow is not None:
        await executor.write_file(f"{git_dir}/shallow", filling.shallow)
    await executor.write_file(f"{git_dir}/info/exclude", EXCLUDED)
    await executor.write_file(f"{git_dir}/packed-refs", packed_refs(clone))
    await executor.write_file(f"{git_dir}/config", config(clone, identity))
    head = filling.base_commit if clone.branch is None else f"ref: {HEADS}{clone.branch}"
    await executor.write_file(f"{git_dir}/HEAD", f"{head}\n".encode())
    if filling.base_branch is not None:
        origin_head = f"ref: refs/remotes/origin/{filling.base_branch}\n"
        await executor.write_file(f"{git_dir}/refs/remotes/origin/HEAD", _bytes(origin_head))


async def _pieces(fd: int) -> AsyncIterator[bytes]:
    offset = 0
    while piece := os.pread(fd, PIECE_BYTES, offset):
        offset += len(piece)
        yield piece


def packed_refs(clone: Clone) -> bytes:
    """The remote's branches as remote-tracking ones, its tags, its branch that was started from, and the workspace's own."""
    filling = clone.filling
    lines = [f"{value} {_tracking(name)}" for name, value in filling.refs.items()]
    if filling.base_branch is not None:
        lines.append(f"{filling.base_commit} {HEADS}{filling.base_branch}")
    if clone.branch is not None:
        lines.append(f"{filling.base_commit} {HEADS}{clone.branch}")
    return _bytes("".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.partition(" ")[2])))


def _tracking(name: str) -> str:
    return f"refs/remotes/origin/{name.removeprefix(HEADS)}" if name.startswith(HEADS) else name


def config(clone: Clone, identity: Identity) -> bytes:
    filling = clone.filling
    lines = [
        "[core]",
        f"\trepositoryformatversion = {0 if filling.object_format == 'sha1' else 1}",
        "\tfilemode = true",
        "\tbare = false",
        "\tlogallrefupdates = true",
    ]
    if clone.path != ".":
        lines.append(f"\tworktree = {_quoted(posixpath.relpath(clone.path, clone.git_dir))}")
    if filling.object_format != "sha1":
        lines += ["[extensions]", f"\tobjectFormat = {filling.object_format}"]
    lines += [
        '[remote "origin"]',
        f"\turl = {_quoted(clone.origin)}",
        "\tfetch = +refs/heads/*:refs/remotes/origin/*",
        "[user]",
        f"\tname = {_quoted(identity.name)}",
        f"\temail = {_quoted(identity.email)}",
    ]
    if filling.base_branch is not None:
        section = f'[branch "{_escaped(filling.base_branch)}"]'
        lines += [section, "\tremote = origin", f"\tmerge = {_quoted(HEADS + filling.base_branch)}"]
    for module in clone.modules:
        lines += [f'[submodule "{_escaped(module.name)}"]', "\tactive = true", f"\turl = {_quoted(module.origin)}"]
    if filling.lfs is not None:
        lines += LFS_FILTER
    return _bytes("\n".join([*lines, ""]))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    escaped = _escaped(text).replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


async def run_git(
    executor: ToolExecutor,
    arguments: Sequence[str],
    *,
    about: str,
    cwd: str = ".",
    env: Mapping[str, str] | None = None,
    timeout_s: float = 300.0,
    limit_bytes: int = 1024 * 1024,
) -> bytes:
    """git inside the workspace; what it prints is the workspace's word. Raises: Broken, LimitExceeded."""
    settings = [word for setting in INSIDE for word in ("-c", setting)]
    result = await executor.run(
        CommandSpec(
            argv=("git", *settings, *arguments),
            cwd=cwd,
            timeout_s=timeout_s,
            env={"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(env or {})},
        ),
        output_limit_bytes=limit_bytes,
    )
    if isinstance(result.ending, LimitReached):
        limit = result.ending.limit
        raise LimitExceeded(
            f"{about} failed: git in the workspace reached the limit {limit}.",
            mend="Raise the workspace's limits, or leave away what is large.",
            details={"limit": limit},
        )
    if result.ending != Exited(code=0):
        said = result.stderr.decode(errors="replace").strip()
        error = failure(about, said or f"git in the workspace ended as {result.ending}")
        raise _of_the_workspace(error) from None
    return result.stdout


def _of_the_workspace(error: ShadowError) -> ShadowError:
    """A workspace cannot make us believe that a remote was out of reach or wants a credential."""
    return Broken(error.message, mend="Look at the workspace's repository.", details=error.details)
