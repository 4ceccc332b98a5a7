"""Bare mirrors of repositories, one for each remote and owner of credentials: fetched under a lock, read by everybody else.

A mirror holds the remote's heads and tags and nothing besides. Its objects lie in packs, checked by git when they came in;
packs are what workspaces are filled with (see ``filling``), so they are kept few.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from shadow.core.errors import LimitExceeded, NotFound
from shadow.core.repositories import is_commit
from shadow.scm.access import Access
from shadow.scm.failures import EmptyRepository, UnsoundRepository
from shadow.scm.git import SLOW_S, Call, Progress, git
from shadow.storage.locks import held

HEADS, TAGS = "refs/heads/", "refs/tags/"
MAX_PACKS = 16
MAX_REFS_BYTES = 64 * 1024 * 1024
LOCK_TIMEOUT_S = 3600.0

TOLERATED = (
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badFilemode",
    "badName",
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "missingTaggerEntry",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
)
"""Faults of fsck that real repositories have and that lead nowhere: oddities in dates, names and modes. Everything about
trees, paths, ``.git``, ``.gitmodules`` and links stays an error."""
REFUSED = ("fullPathname", "hasDot", "hasDotdot", "hasDotgit")
"""Only warnings to git; no repository needs them, and file systems have been attacked with them."""


def fsck_settings(section: str) -> list[str]:
    """Settings for ``fetch.fsck`` and the like."""
    return [f"{section}.{name}=ignore" for name in TOLERATED] + [f"{section}.{name}=error" for name in REFUSED]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRefs:
    """What a remote said it has."""

    head: str | None
    """The branch that its HEAD names, as ``refs/heads/…``; it may have no commit yet."""
    head_commit: str | None
    refs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Heads and tags; a tag may name an annotated tag."""

    def names(self, prefix: str) -> tuple[str, ...]:
        """Of the refs below ``prefix``, sorted, without it."""
        return tuple(sorted(ref.removeprefix(prefix) for ref in self.refs if ref.startswith(prefix)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A mirror as it stood when it was fetched."""

    path: Path
    remote: RemoteRefs
    object_format: str

    def find(self, branch: str | None) -> tuple[str | None, str]:
        """The branch (``None`` for a tag or a detached HEAD) and the object to start from. Raises: NotFound, EmptyRepository."""
        refs = self.remote.refs
        if branch is None:
            head = self.remote.head
            if head is not None and head in refs:
                return head.removeprefix(HEADS), refs[head]
            if head is None and self.remote.head_commit is not None:
                return None, self.remote.head_commit
            unborn = f"HEAD names the branch {head.removeprefix(HEADS)!r}" if head else "HEAD names nothing"
            raise EmptyRepository(f"{unborn}, which has no commit.", mend=f"Name a branch: {_shown(refs)}.")
        name = branch.removeprefix(HEADS)
        if f"{HEADS}{name}" in refs:
            return name, refs[f"{HEADS}{name}"]
        tag = branch.removeprefix(TAGS)
        if f"{TAGS}{tag}" in refs:
            return None, refs[f"{TAGS}{tag}"]
        raise NotFound(f"The repository has no branch {branch!r}.", mend=f"It has: {_shown(refs)}.")


def _shown(refs: Mapping[str, str]) -> str:
    names = [ref.removeprefix(HEADS) for ref in refs if ref.startswith(HEADS)]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def parse_remote_refs(listing: bytes) -> RemoteRefs:
    """What ``git ls-remote --symref`` printed. Names are taken as bytes; what is neither head nor tag is left out."""
    head: str | None = None
    head_commit: str | None = None
    refs: dict[str, str] = {}
    for line in listing.split(b"\n"):
        value, tab, raw = line.partition(b"\t")
        name = os.fsdecode(raw)
        if not tab or name.endswith("^{}"):
            continue
        if value.startswith(b"ref: "):
            target = os.fsdecode(value[5:])
            if name == "HEAD" and target.startswith(HEADS):
                head = target
            continue
        text = value.decode("ascii", "replace")
        if not is_commit(text):
            continue
        if name == "HEAD":
            head_commit = text
        elif name.startswith((HEADS, TAGS)):
            refs[name] = text
    return RemoteRefs(head=head, head_commit=head_commit, refs=refs)


class MirrorStore:
    def __init__(self, directory: Path, *, limit_bytes: int) -> None:
        """``limit_bytes``: how large one mirror may be."""
        self._directory = directory
        self._limit_bytes = limit_bytes

    def path_of(self, identity: str, owner: str, depth: int | None) -> Path:
        """Where that mirror is, if it is there."""
        text = "\0".join((identity, owner, str(depth or "")))
        return self._directory / hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    @asynccontextmanager
    async def kept(self, identity: str, owner: str, depth: int | None) -> AsyncGenerator[Path]:
        """Where that mirror is, left alone by others for the length of the block."""
        path = self.path_of(identity, owner, depth)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with held(path.with_suffix(".lock"), timeout_s=LOCK_TIMEOUT_S):
            yield path

    @asynccontextmanager
    async def fetched(
        self,
        access: Access,
        *,
        identity: str,
        owner: str,
        depth: int | None = None,
        commit: str | None = None,
        progress: Progress | None = None,
    ) -> AsyncGenerator[Mirror]:
        """The mirror, up to date, and left alone by others for the length of the block.

        ``identity``: what names the remote, the same for each way of writing it. ``owner``: whose credentials fetch it; a
        mirror is never shared between owners. ``depth``: so many commits of each branch; a mirror of its own. ``commit``: one
        that must be there; what no branch or tag reaches is asked for by its name. Raises: NotFound: the remote does not have it.
        """
        path = self.path_of(identity, owner, depth)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        remote = await ask(access)
        if not remote.refs and remote.head_commit is None:
            raise EmptyRepository(f"{identity} has no commit yet.", mend="Commit something there first.")
        async with held(path.with_suffix(".lock"), timeout_s=LOCK_TIMEOUT_S):
            try:
                mirror = await self._update(path, access, remote, depth, progress)
                if commit is not None and not await has_commit(path, commit):
                    await self._fetch_commit(path, access, commit, depth, progress)
                yield mirror
            except UnsoundRepository:
                if not await _is_damaged(path):
                    raise
                shutil.rmtree(path)
                raise

    async def _update(
        self, path: Path, access: Access, remote: RemoteRefs, depth: int | None, progress: Progress | None
    ) -> Mirror:
        object_format = "sha256" if len(next(iter([*remote.refs.values(), remote.head_commit or ""]))) == 64 else "sha1"
        if not (path / "HEAD").exists():
            await _make(path, object_format)
        mirror = Mirror(path=path, remote=remote, object_format=object_format)
        before = await own_refs(path)
        if before != _wanted(remote):
            _sweep(path)
            await self._fetch(path, access, _specs(remote), depth, progress)
            await _tidy(path, before, await own_refs(path))
        return replace(mirror, remote=replace(remote, refs=_heads_and_tags(await own_refs(path))))

    async def _fetch_commit(
        self, path: Path, access: Access, commit: str, depth: int | None, progress: Progress | None
    ) -> None:
        """No ref keeps it: it goes with the next repacking, unless the remote has put it on a branch."""
        _sweep(path)
        await _tidy(path, {}, {})
        await self._fetch(path, access, [commit], depth, progress)
        if not await has_commit(path, commit):
            raise NotFound(f"{commit} is not a commit there.", mend="Push the commit that is meant.")

    async def _fetch(
        self, path: Path, access: Access, specs: Sequence[str], depth: int | None, progress: Progress | None
    ) -> None:
        arguments = [
            "fetch",
            "--prune",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--update-shallow",
        ]
        arguments += ["--no-recurse-submodules", "--progress", *access.upload_pack]
        arguments += ["--depth", str(depth)] if depth is not None else []
        config = ["fetch.fsckObjects=true", "fetch.unpackLimit=1", *fsck_settings("fetch.fsck"), *access.call.config]
        call = replace(
            access.call,
            arguments=[*arguments, "--", access.address, *specs],
            directory=path,
            config=config,
            timeout_s=SLOW_S,
        )
        await git(call, progress=progress)
        size = sum(file.stat().st_size for file in (path / "objects").rglob("*") if file.is_file())
        if size > self._limit_bytes:
            shutil.rmtree(path)
            raise LimitExceeded(
                f"The repository takes {size} bytes; at most {self._limit_bytes} are allowed.",
                mend="Ask for its newest commits only (--depth 1), or raise SHADOW_REPOSITORY_LIMIT_BYTES.",
            )


DETACHED = "refs/shadow/detached"
"""Where the commit of a source with a detached HEAD is kept: no branch may lead to it."""


def _specs(remote: RemoteRefs) -> list[str]:
    detached = [f"+HEAD:{DETACHED}"] if remote.head is None and remote.head_commit is not None else []
    return [f"+{HEADS}*:{HEADS}*", f"+{TAGS}*:{TAGS}*", *detached]


async def find_base(mirror: Mirror, branch: str | None) -> tuple[str | None, str]:
    """The branch and the commit to start from. Raises: as ``Mirror.find``."""
    base_branch, found = mirror.find(branch)
    call = Call(arguments=["rev-parse", "--verify", "--quiet", f"{found}^{{commit}}"], directory=mirror.path)
    return base_branch, (await git(call)).stdout.decode().strip()


async def has_commit(path: Path, commit: str) -> bool:
    call = Call(arguments=["cat-file", "-e", f"{commit}^{{commit}}"], directory=path)
    return path.is_dir() and (await git(call, check=False)).code == 0


async def ask(access: Access) -> RemoteRefs:
    """What the remote has. Raises: what ``failure`` makes of git's words; LimitExceeded: it says too much."""
    arguments = ["ls-remote", "--symref", *access.upload_pack, "--", access.address, "HEAD", f"{HEADS}*", f"{TAGS}*"]
    done = await git(replace(access.call, arguments=arguments), limit_bytes=MAX_REFS_BYTES)
    return await asyncio.to_thread(parse_remote_refs, done.stdout)  # a remote may name a million


async def _make(path: Path, object_format: str) -> None:
    new = path.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    init = ["init", "--quiet", "--bare", "--template=", f"--object-format={object_format}", str(new)]
    await git(Call(arguments=init, about="Making a mirror"))
    new.rename(path)


async def own_refs(path: Path) -> dict[str, str]:
    """Every ref of a repository of ours."""
    call = Call(
        arguments=["for-each-ref", "--format=%(objectname) %(refname)"], directory=path, about="Reading a mirror"
    )
    lines = (await git(call, limit_bytes=MAX_REFS_BYTES)).stdout.splitlines()
    return {os.fsdecode(name): value.decode() for value, _, name in (line.partition(b" ") for line in lines)}


def _wanted(remote: RemoteRefs) -> dict[str, str]:
    detached = {DETACHED: remote.head_commit} if remote.head is None and remote.head_commit else {}
    return {**remote.refs, **detached}


def _heads_and_tags(refs: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in refs.items() if name.startswith((HEADS, TAGS))}


def _sweep(path: Path) -> None:
    """What a killed fetch left."""
    for left in (path / "objects/pack").glob("tmp_*"):
        left.unlink(missing_ok=True)
    for left in path.rglob("*.lock"):
        left.unlink(missing_ok=True)


async def _tidy(path: Path, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Few packs; and nothing that the remote has taken back: what was rewritten or deleted there must not live on here."""
    packs = len(list((path / "objects/pack").glob("*.pack")))
    gone = [value for name, value in before.items() if after.get(name) != value]
    if packs > MAX_PACKS or (gone and not await _all_reachable(path, gone)):
        repack = ["repack", "-a", "-d", "-q", "--no-write-bitmap-index"]
        await git(Call(arguments=repack, directory=path, timeout_s=SLOW_S, about="Repacking a mirror"))


async def _all_reachable(path: Path, objects: Sequence[str]) -> bool:
    call = Call(arguments=["rev-list", "--max-count=1", "--stdin"], directory=path, about="Reading a mirror")
    done = await git(call, stdin="\n".join([*objects, "--not", "--all", ""]).encode(), check=False)
    return done.code == 0 and not done.stdout.strip()


async def _is_damaged(path: Path) -> bool:
    check = ["fsck", "--connectivity-only", "--no-dangling", "--no-progress"]
    return (await git(Call(arguments=check, directory=path, timeout_s=SLOW_S), check=False)).code != 0
