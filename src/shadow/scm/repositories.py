"""Repositories for workspaces: in from where their user named them, out to where the work is wanted. What bootstrap wires."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shadow.core.errors import Rejected
from shadow.core.repositories import Checkout, LocalRepository, Repository, branch_name, parse_repository
from shadow.execution.interface import ToolExecutor
from shadow.scm import access as reach
from shadow.scm import delivering
from shadow.scm.access import Access, Tokens
from shadow.scm.collecting import Work, collected
from shadow.scm.filling import Filling, Identity, fill, open_filling
from shadow.scm.git import Progress
from shadow.scm.local_source import find_local
from shadow.scm.mirrors import MirrorStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checked-out-to-be: what a workspace is to hold, and the files to fill it with."""

    checkout: Checkout
    filling: Filling


class Repositories:
    def __init__(
        self,
        *,
        data_dir: Path,
        tokens: Tokens,
        identity: Identity,
        repository_limit_bytes: int,
        delivery_limit_bytes: int,
        entropy: Callable[[int], bytes],
    ) -> None:
        """``identity``: who commits in workspaces."""
        self._mirrors = MirrorStore(data_dir / "mirrors", limit_bytes=repository_limit_bytes)
        self._quarantine = data_dir / "quarantine"
        self._tokens = tokens
        self._identity = identity
        self._delivery_limit_bytes = delivery_limit_bytes
        self._entropy = entropy

    @asynccontextmanager
    async def opened(
        self,
        repository: Repository,
        *,
        owner: str = "local",
        branch: str | None = None,
        depth: int | None = None,
        about: str = "",
        progress: Progress | None = None,
    ) -> AsyncGenerator[Source]:
        """Bring the mirror up to date and open what a workspace is filled with.

        ``owner``: whose credentials reach it. ``branch``: a branch or a tag; ``None``: what HEAD names. ``about``: words for the
        name of the workspace's branch. Raises: NotFound, NotARepository, EmptyRepository, CredentialsWanted,
        RemoteUnreachable, TlsFailed, UnsoundRepository, LimitExceeded, Denied, Rejected.
        """
        if depth is not None and depth < 1:
            raise Rejected(f"The depth must be at least 1, not {depth}.")
        async with (
            self._access(repository, about="Fetching") as (access, identity),
            self._mirrors.fetched(access, identity=identity, owner=owner, depth=depth, progress=progress) as mirror,
        ):
            filling = await open_filling(mirror, branch=branch)
        with filling:
            checkout = Checkout(
                repository=identity,
                base_branch=filling.base_branch,
                base_commit=filling.base_commit,
                branch=branch_name(about, entropy=self._entropy(8)),
                depth=depth,
            )
            yield Source(checkout=checkout, filling=filling)

    async def fill(self, executor: ToolExecutor, source: Source) -> None:
        """Make an empty workspace a clone that stands on its own branch."""
        await fill(executor, source.filling, source.checkout, identity=self._identity)

    @asynccontextmanager
    async def collected(
        self, executor: ToolExecutor, checkout: Checkout, *, owner: str = "local"
    ) -> AsyncGenerator[Work]:
        """What was committed on the workspace's branch, verified. See ``collecting.collected``."""
        mirror = self._mirrors.path_of(checkout.repository, owner, checkout.depth)
        async with collected(
            executor, checkout, mirror=mirror, directory=self._quarantine, limit_bytes=self._delivery_limit_bytes
        ) as work:
            yield work

    async def deliver(self, work: Work, checkout: Checkout, *, branch: str | None = None) -> None:
        """Put the work on a branch of the repository that it came from: a new one, or one that only it was delivered to."""
        repository = parse_repository(checkout.repository, local_user=True)
        name = checkout.branch if branch is None else branch
        await delivering.check_branch(name)
        if isinstance(repository, LocalRepository):
            await delivering.deliver_locally(work, find_local(repository.path), branch=name)
            return
        async with self._access(repository, about="Pushing") as (access, _):
            await delivering.push(work, access, branch=name)

    @asynccontextmanager
    async def _access(self, repository: Repository, *, about: str) -> AsyncGenerator[tuple[Access, str]]:
        """And what names the repository, the same for each way of writing it."""
        if isinstance(repository, LocalRepository):
            source = find_local(repository.path)
            identity = os.fspath(source.path)
            yield reach.to_local(source, about=f"{about} {identity}"), identity
            return
        credential = reach.credential_for(repository, self._tokens.by_host)
        async with reach.to_remote(repository, credential=credential, about=f"{about} {repository.url}") as access:
            yield access, repository.url
