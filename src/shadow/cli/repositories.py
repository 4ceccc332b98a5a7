"""``shadow workspace create --repo`` and ``shadow workspace deliver``: repositories in, work out."""

import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from shadow.bootstrap import make_repositories
from shadow.cli.opening import find_to_use
from shadow.cli.outcome import DONE, WrongUsage, print_json, say
from shadow.core.errors import AlreadyExists, Denied, NothingToCommit, Rejected
from shadow.core.repositories import parse_repository
from shadow.core.workspaces import WorkspaceSpec, WorkspaceStatus
from shadow.execution.interface import WorkspaceManager
from shadow.scm.collecting import Work
from shadow.scm.delivering import patch
from shadow.settings import load_settings

SHOWN_CHANGES = 20


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    repo: str
    branch: str | None = None
    depth: int | None = None
    submodules: bool = False
    lfs: bool = False


class Progress:
    """git's own progress, on one line of stderr where that is a terminal."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown_at = 0.0

    def __call__(self, line: str) -> None:
        if self._live and time.monotonic() - self._shown_at > 0.1:
            self._shown_at = time.monotonic()
            print(f"\r\x1b[K{line[:100]}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


async def create_with_repository(
    manager: WorkspaceManager, spec: WorkspaceSpec, options: RepositoryOptions, *, about: str = ""
) -> WorkspaceStatus:
    """A workspace that holds a clone, or nothing at all."""
    repository = parse_repository(options.repo, local_user=True)
    repositories = make_repositories(load_settings())
    progress = Progress()
    try:
        async with repositories.opened(
            repository,
            branch=options.branch,
            depth=options.depth,
            submodules=options.submodules,
            lfs=options.lfs,
            about=about or spec.name or "",
            progress=progress,
        ) as source:
            status = await manager.create(replace(spec, checkout=source.checkout))
            try:
                async with await manager.attach(status.id) as executor:
                    await repositories.fill(executor, source)
            except BaseException:
                await manager.destroy(status.id)  # nobody was told of it yet
                raise
    finally:
        progress.clear()
    return status


async def deliver(
    reference: str, *, to: str, branch: str | None, output: str | None, commit: str | None, as_json: bool
) -> int:
    if to not in ("branch", "patch"):
        raise WrongUsage(f"--to cannot be {to!r}.", mend="Write branch or patch.")
    if output is not None and to != "patch":
        raise WrongUsage("--output goes with --to patch.")
    if as_json and to == "patch" and output is None:
        raise WrongUsage("--json and a patch cannot share stdout.", mend="Give --output FILE.")
    manager, workspace = await find_to_use(reference, here_for="`workspace deliver`")
    if workspace.checkout is None:
        raise Rejected(
            f"The workspace {workspace.id} was not made from a repository.",
            mend="`shadow workspace cp` takes files out; `create --repo REPO` makes one with a repository.",
        )
    repositories = make_repositories(load_settings())
    async with await manager.attach(workspace.id) as executor:
        if commit is not None:
            with suppress(NothingToCommit):  # there may be commits all the same
                await executor.git_commit(commit)
        async with repositories.collected(executor, workspace.checkout) as work:
            if to == "branch":
                await repositories.deliver(work, workspace.checkout, branch=branch)
                where = f"branch {branch or work.branch} of {workspace.checkout.repository}"
            else:
                where = _write(await patch(work), output)
    if as_json:
        print_json(
            {
                "delivered": where,
                "commit": work.tip,
                "commits": work.commits,
                "changes": [asdict(c) for c in work.changes],
            }
        )
    else:
        tell(work, where)
    return DONE


def _write(content: bytes, output: str | None) -> str:
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return "stdout"
    try:
        with Path(output).open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise AlreadyExists(f"{output} is there already.", mend="Remove it or name another file.") from error
    except OSError as error:
        raise Denied(f"{output} cannot be written: {error.strerror}.", mend="Name another file.") from error
    return os.path.abspath(output)


def tell(work: Work, where: str) -> None:
    """What was delivered, for people, on stderr: a patch may be on stdout."""
    for change in work.changes[:SHOWN_CHANGES]:
        lines = "binary" if change.added is None else f"+{change.added} -{change.removed}"
        say(f"  {change.path}  {lines}")
    if len(work.changes) > SHOWN_CHANGES:
        say(f"  … and {len(work.changes) - SHOWN_CHANGES} more")
    files = len(work.changes)
    say(
        f"{work.commits} commit{'s' if work.commits != 1 else ''} in {files} file{'s' if files != 1 else ''}, "
        f"{work.tip[:12]}: delivered to {where}.",
        style="green",
    )
