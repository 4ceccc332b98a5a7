"""What leaves a workspace: a bundle of its branch, taken into a quarantine of ours and checked before anything reads it."""

import os
import shutil
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from shadow.core.errors import LimitExceeded, NotFound, Rejected, ShadowError
from shadow.core.repositories import Checkout, is_commit
from shadow.execution.interface import ToolExecutor
from shadow.execution.streams import closing
from shadow.scm.bundles import MAX_HEADER_BYTES, BundleHeader, parse_header
from shadow.scm.failures import UnsoundRepository
from shadow.scm.filling import run_git
from shadow.scm.git import SLOW_S, Call, git
from shadow.scm.mirrors import HEADS, REFUSED, TOLERATED, has_commit

OUT = ".git/shadow-out.bundle"
ABANDONED_S = 24 * 3600.0
COUNTING_BYTES = 1024**3


class NothingToDeliver(Rejected):
    """The branch of the workspace stands where it began."""

    code = "nothing_to_deliver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One file between the base and the tip; ``None`` lines for a binary file."""

    path: str
    added: int | None
    removed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Verified commits, in a bare repository of ours that nobody else writes to."""

    repository: Path
    branch: str
    base: str
    tip: str
    commits: int
    changes: tuple[Change, ...]
    borrows: bool
    """Whether the repository has what the base holds by its mirror alone."""


@asynccontextmanager
async def collected(
    executor: ToolExecutor, checkout: Checkout, *, mirror: Path | None, directory: Path, limit_bytes: int
) -> AsyncGenerator[Work]:
    """The work of a workspace for the length of a block.

    ``mirror``: where the base lies, if it still does. ``directory``: for the quarantine. ``limit_bytes``: of the bundle.
    Raises: NothingToDeliver, UnsoundRepository, LimitExceeded, Broken.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(directory)
    quarantine = Path(mkdtemp(dir=directory, prefix="work-"))
    try:
        known = mirror if mirror is not None and await has_commit(mirror, checkout.base_commit) else None
        bundle = quarantine / "bundle"
        await _take(executor, checkout, bundle, whole=known is None, limit_bytes=limit_bytes)
        with bundle.open("rb") as file:
            header = parse_header(file.read(MAX_HEADER_BYTES + 4))
        tip = _check_header(header, checkout, whole=known is None)
        repository = quarantine / "repository.git"
        await _unpack(repository, bundle, header, known, limit_bytes)
        yield await _verified(repository, checkout, tip, header.bases)
    finally:
        shutil.rmtree(quarantine, ignore_errors=True)


def _sweep(directory: Path) -> None:
    """Quarantines of processes that were killed."""
    for left in directory.glob("work-*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)


async def _take(executor: ToolExecutor, checkout: Checkout, bundle: Path, *, whole: bool, limit_bytes: int) -> None:
    ref = f"{HEADS}{checkout.branch}"
    said = await run_git(
        executor, ["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"], about=f"Reading {checkout.branch}"
    )
    if said.strip() == checkout.base_commit.encode():
        raise NothingToDeliver(
            f"The branch {checkout.branch} has no commit of its own.",
            mend="Commit in the workspace first (--commit MESSAGE).",
        )
    arguments = ["bundle", "create", "--quiet", OUT, ref, *([] if whole else ["--not", checkout.base_commit])]
    try:
        await run_git(executor, arguments, about="Making a bundle of the work", timeout_s=SLOW_S)
        size = (await executor.stat(OUT, follow=False)).size_bytes
        if size > limit_bytes:
            raise _too_large(size, limit_bytes)
        with bundle.open("xb") as file:
            async with closing(executor.stream_file(OUT, limit_bytes=limit_bytes + 1)) as pieces:
                async for piece in pieces:
                    file.write(piece)
                    if file.tell() > limit_bytes:  # it lied about its size
                        raise _too_large(file.tell(), limit_bytes)
    finally:
        with suppress(NotFound, ShadowError):
            await executor.delete(OUT)


def _too_large(size: int, limit_bytes: int) -> LimitExceeded:
    return LimitExceeded(
        f"The work takes {size} bytes; at most {limit_bytes} are delivered.",
        mend="Take large files out of the commits, or raise SHADOW_DELIVERY_LIMIT_BYTES.",
    )


def _check_header(header: BundleHeader, checkout: Checkout, *, whole: bool) -> str:
    """The tip. Raises: UnsoundRepository: it is not the one branch on the one base that was asked for."""
    wanted = f"{HEADS}{checkout.branch}"
    if [name for name, _ in header.refs] != [wanted]:
        raise UnsoundRepository("The bundle does not hold the workspace's branch and nothing else.")
    if whole and header.bases:
        raise UnsoundRepository("The bundle builds on commits that were not to be left out.")
    expected = "sha256" if len(checkout.base_commit) == 64 else "sha1"
    if header.object_format != expected:
        raise UnsoundRepository(f"The bundle is of objects by {header.object_format!r}, not {expected}.")
    return header.refs[0][1]


async def _unpack(repository: Path, bundle: Path, header: BundleHeader, mirror: Path | None, limit_bytes: int) -> None:
    init = ["init", "--quiet", "--bare", "--template=", f"--object-format={header.object_format}", str(repository)]
    await git(Call(arguments=init, about="Making a quarantine"))
    if mirror is not None:
        (repository / "objects/info").mkdir(exist_ok=True)
        (repository / "objects/info/alternates").write_text(f"{mirror}/objects\n")
        if (mirror / "shallow").exists():
            shutil.copyfile(mirror / "shallow", repository / "shallow")
    severities = ",".join([*(f"{name}=ignore" for name in TOLERATED), *(f"{name}=error" for name in REFUSED)])
    index = ["index-pack", "--stdin", "--fix-thin", f"--strict={severities}", f"--max-input-size={limit_bytes}"]
    fd = os.open(bundle, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.lseek(fd, header.pack_offset, os.SEEK_SET)
        await git(Call(arguments=index, directory=repository, timeout_s=SLOW_S, about="Checking the work"), stdin=fd)
    finally:
        os.close(fd)


async def _verified(repository: Path, checkout: Checkout, tip: str, bases: Sequence[str]) -> Work:
    async def is_ancestor(older: str, newer: str) -> bool:
        call = Call(arguments=["merge-base", "--is-ancestor", older, newer], directory=repository, timeout_s=SLOW_S)
        return (await git(call, check=False)).code == 0

    async def ask(*arguments: str, limit_bytes: int = 64 * 1024 * 1024) -> bytes:
        call = Call(arguments=arguments, directory=repository, timeout_s=SLOW_S, about="Checking the work")
        return (await git(call, limit_bytes=limit_bytes)).stdout

    base = checkout.base_commit
    if not is_commit(base) or (await ask("cat-file", "-t", tip)).strip() != b"commit":
        raise UnsoundRepository("The workspace's branch does not name a commit.")
    if not await is_ancestor(base, tip):
        raise UnsoundRepository(
            f"The workspace's branch does not build on {base[:12]}, where it began.",
            mend="In the workspace, rebase it onto that commit.",
        )
    for other in bases:
        if other != base and not await is_ancestor(other, base):
            raise UnsoundRepository("The bundle builds on commits that the workspace was not given.")
    await ask("rev-list", "--objects", "--quiet", tip, f"^{base}")  # that all of it is there
    commits = int((await ask("rev-list", "--count", f"{base}..{tip}")).strip())
    await ask("update-ref", f"{HEADS}{checkout.branch}", tip)
    # A few trees can unfold to a billion files, and git holds a change of each in memory.
    difference = ["diff-tree", "-r", "-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv", base, tip]
    about = "Counting the changes of the work"
    counting = Call(arguments=difference, directory=repository, memory_bytes=COUNTING_BYTES, about=about)
    numbers = (await git(counting, limit_bytes=COUNTING_BYTES // 16)).stdout
    return Work(
        repository=repository,
        branch=checkout.branch,
        base=base,
        tip=tip,
        commits=commits,
        changes=tuple(_change(record) for record in numbers.split(b"\0") if record),
        borrows=(repository / "objects/info/alternates").exists(),
    )


def _change(record: bytes) -> Change:
    added, removed, path = record.split(b"\t", 2)
    return Change(
        path=os.fsdecode(path),
        added=None if added == b"-" else int(added),
        removed=None if removed == b"-" else int(removed),
    )
