"""Filling a workspace from a mirror: its packs with their indexes and its refs are laid down as they are, then checked out.

What travels is what a bundle holds, a pack and the refs in it, with the pack's index beside it, so that nobody has to make the
one or the other again for each workspace. See docs/adr/0007. The checkout runs inside, where the repository's attributes and
filters may do what they like.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from shadow.core.commands import CommandSpec, Exited
from shadow.core.errors import Broken, ShadowError
from shadow.core.repositories import Checkout
from shadow.execution.interface import ToolExecutor
from shadow.scm.failures import failure
from shadow.scm.git import Call, git
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
    """What a mirror held at one moment: its files are open, so that a later fetch cannot take them away. Close it."""

    def __init__(self, mirror: Mirror, base_branch: str | None, base_commit: str) -> None:
        self.object_format = mirror.object_format
        self.base_branch = base_branch
        self.base_commit = base_commit
        self.refs = dict(mirror.remote.refs)
        self.files: list[OpenFile] = []
        self._closing = ExitStack()
        shallow = mirror.path / "shallow"
        self.shallow = shallow.read_bytes() if shallow.exists() else None
        try:
            for file in sorted((mirror.path / "objects/pack").iterdir()):
                if file.suffix in (".pack", ".idx"):
                    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                    self._closing.callback(os.close, fd)
                    self.files.append(OpenFile(file.name, fd, os.fstat(fd).st_size))
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def open_filling(mirror: Mirror, *, branch: str | None) -> Filling:
    """Raises: NotFound: no such branch. EmptyRepository."""
    base_branch, found = mirror.find(branch)
    call = Call(arguments=["rev-parse", "--verify", "--quiet", f"{found}^{{commit}}"], directory=mirror.path)
    commit = (await git(call)).stdout.decode().strip()
    return Filling(mirror, base_branch, commit)


async def fill(executor: ToolExecutor, filling: Filling, checkout: Checkout, *, identity: Identity) -> None:
    """Make the empty workspace of ``executor`` a clone that stands on its own new branch.

    Raises: Broken: git inside failed; LimitExceeded: it does not fit.
    """
    limit = asyncio.Semaphore(AT_ONCE)

    async def upload(file: OpenFile) -> None:
        async with limit:
            await executor.write_file(f".git/objects/pack/{file.name}", _pieces(file), mode=0o444)

    await executor.make_directory(".git/refs")
    async with asyncio.TaskGroup() as uploads:
        for file in filling.files:
            uploads.create_task(upload(file))
    if filling.shallow is not None:
        await executor.write_file(".git/shallow", filling.shallow)
    await executor.write_file(".git/packed-refs", packed_refs(filling, checkout))
    await executor.write_file(".git/config", config(filling, checkout, identity))
    await executor.write_file(".git/HEAD", f"ref: {HEADS}{checkout.branch}\n".encode())
    if checkout.base_branch is not None:
        head = f"ref: refs/remotes/origin/{checkout.base_branch}\n"
        await executor.write_file(".git/refs/remotes/origin/HEAD", head.encode("utf-8", "surrogateescape"))
    await run_git(executor, ["reset", "--hard", "--quiet"], about="Checking out", timeout_s=CHECKOUT_TIMEOUT_S)


async def _pieces(file: OpenFile) -> AsyncIterator[bytes]:
    offset = 0
    while piece := os.pread(file.fd, PIECE_BYTES, offset):
        offset += len(piece)
        yield piece


def packed_refs(filling: Filling, checkout: Checkout) -> bytes:
    """The remote's branches as remote-tracking ones, its tags, its branch that was started from, and the workspace's own."""
    lines = [f"{value} {_tracking(name)}" for name, value in filling.refs.items()]
    if checkout.base_branch is not None:
        lines.append(f"{filling.base_commit} {HEADS}{checkout.base_branch}")
    lines.append(f"{filling.base_commit} {HEADS}{checkout.branch}")
    return "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.partition(" ")[2])).encode(
        "utf-8", "surrogateescape"
    )


def _tracking(name: str) -> str:
    return f"refs/remotes/origin/{name.removeprefix(HEADS)}" if name.startswith(HEADS) else name


def config(filling: Filling, checkout: Checkout, identity: Identity) -> bytes:
    lines = [
        "[core]",
        f"\trepositoryformatversion = {0 if filling.object_format == 'sha1' else 1}",
        "\tfilemode = true",
        "\tbare = false",
        "\tlogallrefupdates = true",
        *(["[extensions]", f"\tobjectFormat = {filling.object_format}"] if filling.object_format != "sha1" else []),
        '[remote "origin"]',
        f"\turl = {_quoted(checkout.repository)}",
        "\tfetch = +refs/heads/*:refs/remotes/origin/*",
        "[user]",
        f"\tname = {_quoted(identity.name)}",
        f"\temail = {_quoted(identity.email)}",
    ]
    if checkout.base_branch is not None:
        section = f'[branch "{_escaped(checkout.base_branch)}"]'
        lines += [section, "\tremote = origin", f"\tmerge = {_quoted(HEADS + checkout.base_branch)}"]
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


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
    timeout_s: float = 300.0,
    limit_bytes: int = 1024 * 1024,
) -> bytes:
    """git inside the workspace; what it prints is the workspace's word. Raises: as ``failure``."""
    settings = [word for setting in INSIDE for word in ("-c", setting)]
    result = await executor.run(
        CommandSpec(
            argv=("git", *settings, *arguments), timeout_s=timeout_s, env={"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        ),
        output_limit_bytes=limit_bytes,
    )
    if result.ending != Exited(code=0):
        said = result.stderr.decode(errors="replace").strip()
        error = failure(about, said or f"git in the workspace ended as {result.ending}")
        raise _of_the_workspace(error) from None
    return result.stdout


def _of_the_workspace(error: ShadowError) -> ShadowError:
    """A workspace cannot make us believe that a remote was out of reach or wants a credential."""
    return Broken(error.message, mend="Look at the workspace's repository.", details=error.details)
