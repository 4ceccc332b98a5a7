"""Repositories for workspaces: in from where their user named them, out to where the work is wanted. What bootstrap wires."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from shadow.core.egress import EgressRule
from shadow.core.errors import Rejected
from shadow.core.outward import check_host
from shadow.core.repositories import (
    Branches,
    Checkout,
    Credential,
    LocalRepository,
    Repository,
    branch_name,
    parse_repository,
)
from shadow.execution.interface import ToolExecutor
from shadow.scm import access as reach
from shadow.scm import delivering
from shadow.scm import lfs as large_files
from shadow.scm.access import Access, Tokens
from shadow.scm.collecting import Work, collected
from shadow.scm.failures import RemoteUnreachable
from shadow.scm.filling import Clone, Filling, Identity, fill
from shadow.scm.git import Progress
from shadow.scm.local_source import find_local
from shadow.scm.mirrors import HEADS, TAGS, Mirror, MirrorStore, RemoteRefs, ask, find_base
from shadow.scm.owners import HOST_USER, Owner, check_reach, explained, may_use_means
from shadow.scm.submodules import Budget, Module, locate, read_modules
from shadow.scm.trees import list_tree

LOOK_S = 30.0
MAX_TOLD_REFS = 5000
TRAFFIC = 2
"""How many times the limit of a repository's size may be carried for one fetch of it: a try and a repetition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checked-out-to-be: what a workspace is to hold, and the files to fill it with."""

    checkout: Checkout
    clone: Clone


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What goes for a repository and for each of its submodules."""

    owner: Owner
    depth: int | None
    submodules: bool
    lfs: bool
    progress: Progress | None
    trusted: frozenset[tuple[str, int]]


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
        egress: Sequence[EgressRule] = (),
        proxy: str | None = None,
        shared_hosts: Collection[str] = (),
    ) -> None:
        """``identity``: who commits in workspaces. ``egress``: what may be reached besides public hosts and those that the
        host's user names. ``shared_hosts``: where everybody is served with the host's credentials. ``proxy``: of the host's own
        network, which then judges addresses in our place."""
        self._mirrors = MirrorStore(data_dir / "mirrors", limit_bytes=repository_limit_bytes)
        self._repository_limit_bytes = repository_limit_bytes
        self._quarantine = data_dir / "quarantine"
        self._tokens = tokens
        self._identity = identity
        self._delivery_limit_bytes = delivery_limit_bytes
        self._entropy = entropy
        self._egress = tuple(egress)
        self._proxy = proxy
        self._shared_hosts = frozenset(shared_hosts)

    @asynccontextmanager
    async def opened(
        self,
        repository: Repository,
        *,
        owner: Owner = HOST_USER,
        branch: str | None = None,
        depth: int | None = None,
        submodules: bool = False,
        lfs: bool = False,
        about: str = "",
        progress: Progress | None = None,
    ) -> AsyncGenerator[Source]:
        """Bring the mirror up to date and open what a workspace is filled with.

        ``owner``: for whom; others than this host's user reach public hosts, and what the settings name. ``branch``: a branch
        or a tag; ``None``: what HEAD names. ``about``: words for the name of the workspace's branch. ``submodules``: they come
        along, nested ones too. ``lfs``: so do large files that git-lfs keeps.

        Raises: NotFound, NotARepository, EmptyRepository, CredentialsWanted, RemoteUnreachable, TlsFailed,
        UnsoundRepository, LimitExceeded, Denied, Rejected, Unsupported.
        """
        if depth is not None and depth < 1:
            raise Rejected(f"The depth must be at least 1, not {depth}.")
        # The user of this host may reach whatever they name, wherever it is; what others or a repository name must be public.
        trusted = frozenset({host} if owner.is_host_user and (host := _host_of(repository)) else ())
        asked = _Asked(owner=owner, depth=depth, submodules=submodules, lfs=lfs, progress=progress, trusted=trusted)
        name = branch_name(about, entropy=self._entropy(8))
        budget = Budget(self._repository_limit_bytes)
        with ExitStack() as closing:
            clone = await self._open(repository, asked, budget, closing, base=branch, branch=name)
            checkout = Checkout(
                repository=clone.origin,
                base_branch=clone.filling.base_branch,
                base_commit=clone.filling.base_commit,
                branch=name,
                depth=depth,
            )
            yield Source(checkout=checkout, clone=clone)

    async def _open(
        self,
        repository: Repository,
        asked: "_Asked",
        budget: Budget,
        closing: ExitStack,
        *,
        base: str | None = None,
        branch: str | None = None,
        module: Module | None = None,
        within: Sequence[Module] = (),
    ) -> Clone:
        """``module``: what it is, ``within``: in which others, outermost first; then ``base`` and ``branch`` mean nothing."""
        about = "Fetching" if module is None else f"Fetching the submodule {module.name!r} from"
        commit = None if module is None else module.commit
        async with (
            self._access(repository, about=about, owner=asked.owner, trusted=_host_of(repository) in asked.trusted) as (
                access,
                identity,
            ),
            self._mirrors.fetched(
                access,
                identity=identity,
                owner=asked.owner.id,
                depth=asked.depth,
                commit=commit,
                progress=asked.progress,
            ) as mirror,
        ):
            base_branch, base_commit = await find_base(mirror, base) if commit is None else (None, commit)
            entries = await list_tree(mirror.path, base_commit) if asked.submodules or asked.lfs else ()
            inner = await read_modules(mirror.path, entries) if asked.submodules else ()
            large = None
            if asked.lfs:
                large = await large_files.bring(
                    mirror.path,
                    entries,
                    access,
                    limit_bytes=budget.bytes_left,
                    progress=asked.progress,
                )
            filling = closing.enter_context(Filling(mirror, base_branch, base_commit, large))
        budget.spend(filling.size_bytes)
        chain = (*within, module) if module is not None else ()
        budget.add_modules(len(inner), depth=len(chain))
        return Clone(
            filling=filling,
            origin=identity,
            branch=branch,
            name=module.name if module is not None else "",
            path="/".join(each.path for each in chain) or ".",
            git_dir="/modules/".join([".git", *(each.name for each in chain)]),
            modules=[
                await self._open(locate(each, repository), asked, budget, closing, module=each, within=chain)
                for each in inner
            ],
        )

    async def branches(self, repository: Repository, *, owner: Owner) -> Branches:
        """What a task can start from; nothing is fetched. ``owner``: for whom. Takes at most ``LOOK_S``.

        Raises: as ``opened``.
        """
        about = "Looking at"
        try:
            trusted = owner.is_host_user
            async with (
                asyncio.timeout(LOOK_S),
                self._access(repository, about=about, owner=owner, trusted=trusted) as (access, _),
            ):
                remote = await ask(access)
        except TimeoutError as error:
            raise RemoteUnreachable(
                f"{about} {self.shown(repository)} took longer than {LOOK_S:.0f} s.", mend="Try again."
            ) from error
        heads, tags = await asyncio.to_thread(lambda: (remote.names(HEADS), remote.names(TAGS)))
        default = remote.head.removeprefix(HEADS) if remote.head is not None and remote.head in remote.refs else None
        return Branches(
            default=default,
            branches=heads[:MAX_TOLD_REFS],
            tags=tags[:MAX_TOLD_REFS],
            truncated=max(len(heads), len(tags)) > MAX_TOLD_REFS,
        )

    def check_reach(self, repository: Repository, owner: Owner) -> None:
        """That it can be reached for them at all, as far as that is known without asking. Raises: Denied."""
        check_reach(owner, repository, self._shared_hosts)

    def shown(self, repository: Repository) -> str:
        """What names it in records: without credentials, absolute. Raises: as ``find_local``."""
        return (
            os.fspath(find_local(repository.path).path) if isinstance(repository, LocalRepository) else repository.url
        )

    async def fill(self, executor: ToolExecutor, source: Source) -> None:
        """Make an empty workspace a clone that stands on its own branch."""
        await fill(executor, source.clone, identity=self._identity)

    @asynccontextmanager
    async def collected(
        self, executor: ToolExecutor, checkout: Checkout, *, owner: Owner = HOST_USER
    ) -> AsyncGenerator[Work]:
        """What was committed on the workspace's branch, verified. See ``collecting.collected``."""
        mirror = self._mirrors.path_of(checkout.repository, owner.id, checkout.depth)
        async with collected(
            executor, checkout, mirror=mirror, directory=self._quarantine, limit_bytes=self._delivery_limit_bytes
        ) as work:
            yield work

    @asynccontextmanager
    async def opened_work(self, work: Work, checkout: Checkout, *, owner: Owner = HOST_USER) -> AsyncGenerator[Source]:
        """What a fresh workspace is filled with to hold the verified work, on the branch of that name."""
        remote = RemoteRefs(head=None, head_commit=None)
        object_format = "sha256" if len(work.tip) == 64 else "sha1"
        mirror = Mirror(path=work.repository, remote=remote, object_format=object_format)
        async with self._mirrors.kept(checkout.repository, owner.id, checkout.depth) as base:
            filling = Filling(mirror, None, work.tip, None)
            if work.borrows:
                filling.add_packs(base)
        with filling:
            clone = Clone(filling=filling, origin=checkout.repository, branch=work.branch)
            yield Source(checkout=replace(checkout, base_branch=None, base_commit=work.tip), clone=clone)

    async def deliver(
        self,
        work: Work,
        checkout: Checkout,
        *,
        owner: Owner = HOST_USER,
        branch: str | None = None,
        ours: Collection[str] = (),
        credential: Credential | None = None,
    ) -> None:
        """Put the work on a branch of the repository that it came from: a new one, or one that only it was delivered to.

        ``ours``: commits that were delivered there before, which it may replace. ``credential``: what its user had put into
        the repository's address.
        """
        repository = parse_repository(
            checkout.repository, local_user=True
        )  # as it was recorded; who may reach it is looked at below
        name = checkout.branch if branch is None else branch
        await delivering.check_branch(name)
        if isinstance(repository, LocalRepository):
            self.check_reach(repository, owner)
            await delivering.deliver_locally(work, find_local(repository.path), branch=name, ours=ours)
            return
        repository = replace(repository, credential=credential)
        async with self._access(repository, about="Pushing", owner=owner, trusted=owner.is_host_user) as (access, _):
            await delivering.push(work, access, branch=name, ours=ours)

    @asynccontextmanager
    async def _access(
        self, repository: Repository, *, about: str, owner: Owner, trusted: bool
    ) -> AsyncGenerator[tuple[Access, str]]:
        """And what names the repository, the same for each way of writing it. ``trusted``: its host may be any."""
        self.check_reach(repository, owner)
        if isinstance(repository, LocalRepository):
            source = find_local(repository.path)
            identity = os.fspath(source.path)
            yield reach.to_local(source, about=f"{about} {identity}"), identity
            return
        means = may_use_means(owner, repository, self._shared_hosts)
        policy = reach.guard_policy(
            repository, trusted=trusted, rules=self._egress, limit_bytes=TRAFFIC * self._repository_limit_bytes
        )
        if not trusted:
            check_host(policy, repository.host, repository.port, setting="SHADOW_GIT_EGRESS")
        with explained(owner, repository, self._shared_hosts):
            async with reach.to_remote(
                repository,
                credential=reach.credential_for(repository, self._tokens.by_host if means else {}),
                users_means=means,
                policy=policy,
                proxy=self._proxy,
                about=f"{about} {repository.url}",
            ) as access:
                yield access, repository.url


def _host_of(repository: Repository) -> tuple[str, int] | None:
    return None if isinstance(repository, LocalRepository) else (repository.host, repository.port)
