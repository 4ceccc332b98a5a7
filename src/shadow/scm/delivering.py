"""Delivering verified work: as a new branch of a repository on this host, by a push, or as a patch. Never over other work.

In a repository of this host git runs with the rights of its owner, told its directory outright, with hooks off, no protocol and
no transport: it indexes a pack and moves one ref. Work tree, index and checked-out branches stay as they are.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from shadow.core.concurrency import task_group
from shadow.core.errors import Conflict, LimitExceeded, Rejected
from shadow.scm.access import Access
from shadow.scm.collecting import Work
from shadow.scm.failures import failure
from shadow.scm.git import SLOW_S, Call, Runner, git
from shadow.scm.local_source import LocalSource
from shadow.scm.mirrors import HEADS

MAX_PATCH_BYTES = 512 * 1024 * 1024


async def check_branch(name: str) -> None:
    """Raises: Rejected: no branch can be called so."""
    call = Call(arguments=["check-ref-format", f"{HEADS}{name}"])
    if name.startswith("-") or "\0" in name or (await git(call, check=False)).code != 0:
        raise Rejected(f"{name!r} cannot be the name of a branch.", mend="Use letters, digits, '-', '_', '.' and '/'.")


async def deliver_locally(work: Work, target: LocalSource, *, branch: str, ours: Collection[str] = ()) -> None:
    """``ours``: commits that the branch may be at, since they were delivered to it before.

    Raises: Conflict: the branch is there with other work on it, or is checked out. Denied, LimitExceeded.
    """
    ref = f"{HEADS}{branch}"
    _check_place(target, branch)
    about = f"Delivering into {target.path}"
    runner = Runner.as_owner_of(target.common_dir)

    def call(*arguments: str) -> Call:
        return Call(arguments=arguments, directory=target.common_dir, runner=runner, timeout_s=SLOW_S, about=about)

    now = (await git(call("rev-parse", "--verify", "--quiet", ref), check=False)).stdout.decode().strip()
    if now == work.tip:
        return
    if now and now not in ours:
        await _check_forward(work, now, where=f"{target.path} has a branch {branch}")
    checked_out = _checked_out(target)
    if ref in checked_out:
        raise Conflict(
            f"The branch {branch} is checked out in {checked_out[ref]}.",
            mend="Check out another branch there, or deliver under another name (--branch).",
        )
    await _transfer(work, call("index-pack", "--stdin", "--fix-thin"))
    # Told what it was, so that whoever moved it meanwhile wins.
    await git(call("update-ref", "-m", "shadow: delivered", ref, work.tip, now or "0" * len(work.tip)))


async def _transfer(work: Work, receive: Call) -> None:
    """The new objects, from our repository into the other one, through a pipe."""
    read, write = os.pipe2(os.O_CLOEXEC)
    arguments = ["pack-objects", "--revs", "--thin", "--stdout", "-q", "--delta-base-offset"]
    send = Call(arguments=arguments, directory=work.repository, timeout_s=SLOW_S, about=receive.about)

    async def sending() -> None:
        try:
            await git(send, stdin=f"{work.tip}\n^{work.base}\n".encode(), stdout=write)
        finally:
            os.close(write)

    async def receiving() -> None:
        try:
            await git(receive, stdin=read)
        finally:
            os.close(read)

    async with task_group() as tasks:
        tasks.create_task(sending())
        tasks.create_task(receiving())


def _check_place(target: LocalSource, branch: str) -> None:
    """The owner's git follows symbolic links below ``refs``: somebody could have laid one to lead out of the repository."""
    place = target.common_dir / "refs/heads"
    for part in branch.split("/")[:-1]:
        place /= part
        if place.is_symlink():
            raise Rejected(f"{place} is a symbolic link.", mend="Make it a directory of its own.")


def _checked_out(target: LocalSource) -> dict[str, Path]:
    """Branches that a work tree stands on, and where."""
    found: dict[str, Path] = {}
    for git_dir in (target.common_dir, *sorted((target.common_dir / "worktrees").glob("*"))):
        head = git_dir / "HEAD"
        if head.is_file() and head.stat().st_size < 4096:
            text = head.read_text(errors="surrogateescape").strip()
            if text.startswith("ref: "):
                found[text[5:].strip()] = git_dir
    return found


async def _check_forward(work: Work, now: str, *, where: str) -> None:
    """What is there must be an earlier state of this very work."""
    call = Call(arguments=["merge-base", "--is-ancestor", now, work.tip], directory=work.repository)
    if now == work.base or (await git(call, check=False)).code != 0:
        raise Conflict(f"{where} with other work on it.", mend="Deliver under another name (--branch).")


async def push(work: Work, access: Access, *, branch: str, ours: Collection[str] = ()) -> None:
    """What would overwrite anything but ``ours``, commits that were delivered to this branch before, is refused.

    Raises: Conflict, Denied, CredentialsWanted, TlsFailed, RemoteUnreachable: it did not answer, and a repeat is safe.
    """
    ref = f"{HEADS}{branch}"
    now = await _remote_tip(work, access, ref)
    if now == work.tip:
        return
    if now is not None and now not in ours:
        await _check_forward(work, now, where=f"{access.address} has a branch {branch}")
    lease = f"--force-with-lease={ref}:{now or ''}"  # the branch must be what was just seen, and judged
    arguments = [
        "push",
        "--porcelain",
        "--no-verify",
        "--no-follow-tags",
        lease,
        "--",
        access.address,
        f"{work.tip}:{ref}",
    ]
    call = replace(access.call, arguments=arguments, directory=work.repository, timeout_s=SLOW_S)
    done = await git(call, check=False)
    if done.code != 0:
        raise failure(call.about, f"{done.stderr}\n{done.stdout.decode(errors='replace')}")


async def _remote_tip(work: Work, access: Access, ref: str) -> str | None:
    call = replace(
        access.call, arguments=["ls-remote", *access.upload_pack, "--", access.address, ref], directory=work.repository
    )
    for line in (await git(call)).stdout.decode(errors="replace").splitlines():
        value, _, name = line.partition("\t")
        if name == ref:
            return value
    return None


async def difference(work: Work, *, limit_bytes: int) -> bytes | None:
    """What the work changes, for reading; ``None`` where that is more than ``limit_bytes``."""
    plain = ["--no-ext-diff", "--no-textconv", "--no-color", "--no-renames"]
    call = Call(arguments=["diff", *plain, work.base, work.tip], directory=work.repository, timeout_s=SLOW_S)
    try:
        return (await git(call, limit_bytes=limit_bytes)).stdout
    except LimitExceeded:
        return None


async def patch(work: Work) -> bytes:
    """The commits for ``git am``; one difference for ``git apply`` where they hold merges, which no patch can."""
    span = f"{work.base}..{work.tip}"

    async def ask(*arguments: str) -> bytes:
        call = Call(arguments=arguments, directory=work.repository, timeout_s=SLOW_S, about="Writing the patch")
        return (await git(call, limit_bytes=MAX_PATCH_BYTES)).stdout

    plain: Sequence[str] = ("--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color")
    if int((await ask("rev-list", "--count", "--merges", span)).strip()):
        return await ask("diff", *plain, work.base, work.tip)
    return await ask("format-patch", "--stdout", "--no-signature", *plain, span)
