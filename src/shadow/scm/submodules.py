"""Submodules: which a commit names, and where each may be fetched from. What ``.gitmodules`` says was written by anybody.

A repository from elsewhere leads to remote repositories only, never to a path of this host. One of this host leads to what its
user has fetched into its own ``.git/modules``, or to a remote. Names and paths are held to git's own rules and tighter ones.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

from shadow.core.errors import LimitExceeded, NotFound, Rejected
from shadow.core.repositories import LocalRepository, RemoteRepository, Repository, Scheme, parse_repository
from shadow.scm.failures import UnsoundRepository
from shadow.scm.git import Call, git
from shadow.scm.local_source import find_local
from shadow.scm.trees import LINK, MODULE, Entry

MAX_DEPTH = 8
MAX_MODULES = 200
"""In one workspace, nested ones too."""
_WITHOUT = "or leave --submodules away."


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    name: str
    path: str
    """Beneath the work tree that it lies in."""
    url: str
    """As written: may be relative, or no address at all."""
    commit: str


@dataclass(slots=True)
class Budget:
    """What one workspace may still be filled with."""

    bytes_left: int
    modules_left: int = MAX_MODULES

    def spend(self, size_bytes: int) -> None:
        self.bytes_left -= size_bytes
        if self.bytes_left < 0:
            raise LimitExceeded(
                "The repository, its submodules and its large files take more bytes together than are allowed.",
                mend="Leave --submodules or --lfs away, or raise SHADOW_REPOSITORY_LIMIT_BYTES.",
            )

    def add_modules(self, count: int, *, depth: int) -> None:
        self.modules_left -= count
        if self.modules_left < 0:
            raise LimitExceeded(
                f"There are more than {MAX_MODULES} submodules.", mend=f"Name another branch, {_WITHOUT}"
            )
        if count and depth >= MAX_DEPTH:
            raise LimitExceeded(
                f"Submodules are nested more than {MAX_DEPTH} deep.", mend=f"Name another branch, {_WITHOUT}"
            )


async def read_modules(repository: Path, entries: Sequence[Entry]) -> Sequence[Module]:
    """What the tree with these ``entries`` names. Raises: UnsoundRepository, Rejected."""
    if not any(entry.mode == MODULE for entry in entries):
        return ()
    described: Mapping[str, Mapping[str, str]] = {}
    for entry in entries:
        if entry.path == ".gitmodules" and entry.mode != LINK:
            arguments = ["config", "--blob", entry.object, "--no-includes", "--null", "--list"]
            done = await git(Call(arguments=arguments, directory=repository), limit_bytes=1024 * 1024, check=False)
            if done.code != 0:
                raise UnsoundRepository(".gitmodules cannot be read.", mend=f"Mend it and commit, {_WITHOUT}")
            described = parse_settings(done.stdout)
    return find_modules(entries, described)


def parse_settings(listing: bytes) -> Mapping[str, Mapping[str, str]]:
    """Variables by submodule, from what ``git config --null --list`` printed. Raises: UnsoundRepository."""
    found: dict[str, dict[str, str]] = {}
    for record in listing.split(b"\0"):
        key, _, value = os.fsdecode(record).partition("\n")
        section, _, rest = key.partition(".")
        name, dot, variable = rest.rpartition(".")
        if section != "submodule" or not dot:
            continue
        # git's parts disagree on which of two counts.
        if found.setdefault(name, {}).setdefault(variable, value) != value:
            raise _unsound(f"says twice what the {variable} of {name!r} is")
    return found


def find_modules(entries: Sequence[Entry], described: Mapping[str, Mapping[str, str]]) -> Sequence[Module]:
    """Each commit of a submodule in the tree with the section that describes it; one with ``update = none`` stays out.

    Raises: UnsoundRepository: names or paths that could lead elsewhere or meet. Rejected: nothing describes it.
    """
    places = Counter(settings["path"].rstrip("/") for settings in described.values() if "path" in settings)
    names = {settings["path"].rstrip("/"): name for name, settings in described.items() if "path" in settings}
    links = {PurePosixPath(entry.path) for entry in entries if entry.mode == LINK}
    modules: list[Module] = []
    for entry in entries:
        if entry.mode != MODULE:
            continue
        name = names.get(entry.path)
        if name is None or "url" not in described[name]:
            raise Rejected(
                f"There is a submodule at {entry.path!r}, and .gitmodules does not say from where.",
                mend=f"Add it to .gitmodules or remove it with `git rm --cached`, {_WITHOUT}",
            )
        _check_place(name)
        _check_place(entry.path)
        if places[entry.path] > 1:
            raise _unsound(f"has two names for the path {entry.path!r}")
        if not links.isdisjoint(PurePosixPath(entry.path).parents):
            raise _unsound(f"puts {entry.path!r} below a symbolic link")
        if described[name].get("update") != "none":
            modules.append(Module(name=name, path=entry.path, url=described[name]["url"], commit=entry.object))
    _check_apart([module.name for module in modules])
    return modules


def _check_place(text: str) -> None:
    parts = text.split("/")
    if text.startswith("-") or any(part in ("", ".", "..") or part.casefold() == ".git" for part in parts):
        raise _unsound(f"has {text!r} as a name or a path, which could lead elsewhere")


def _check_apart(names: Sequence[str]) -> None:
    """Each has a directory of its name in ``.git/modules``: none may lie in another's, whatever the file system folds."""
    folded = sorted(tuple(name.casefold().split("/")) for name in names)
    for one, other in pairwise(folded):
        if other[: len(one)] == one:
            raise _unsound(f"has the names {'/'.join(one)!r} and {'/'.join(other)!r}, which meet in one directory")


def _unsound(what: str) -> UnsoundRepository:
    return UnsoundRepository(f".gitmodules {what}.", mend=f"Mend it and commit, {_WITHOUT}")


def locate(module: Module, parent: Repository) -> Repository:
    """Where to fetch it from. Raises: Rejected, NotFound, and what ``find_local`` raises."""
    if isinstance(parent, RemoteRepository):
        url = resolve(module.url, parent) if _is_relative(module.url) else module.url
        return _remote(module, url, parent)
    source = find_local(parent.path)
    for git_dir in dict.fromkeys((source.git_dir, source.common_dir)):
        place = git_dir.resolve() / "modules" / module.name
        if os.path.lexists(place):
            if place.resolve() != place:
                raise Rejected(f"{place} lies behind a symbolic link.", mend=f"Make it a directory, {_WITHOUT}")
            return LocalRepository(path=str(place))
    if _is_relative(module.url):
        raise NotFound(
            f"The submodule {module.name!r} is not there in {source.git_dir}.",
            mend=f"Run `git submodule update --init --recursive` in {source.path}, {_WITHOUT}",
        )
    return _remote(module, module.url, None)


def _is_relative(url: str) -> bool:
    return url.startswith(("./", "../"))


def resolve(url: str, parent: RemoteRepository) -> str:
    """A relative ``url`` as an address on the parent's host. Raises: Rejected: it leads above."""
    head = re.match(r"[a-z]+://[^/]+|(?:[^/:@]+@)?(?:\[[^\]/]*\]|[^/:@]+):", parent.url)
    assert head is not None
    parts = parent.url[head.end() :].rstrip("/").split("/")
    rest = url
    while _is_relative(rest):
        step, _, rest = rest.partition("/")
        if step == "..":
            if parts in ([], [""]):
                raise Rejected(f"The submodule's address {url!r} leads above its host.", mend=f"Mend it, {_WITHOUT}")
            parts.pop()
    return head[0] + "/".join([*parts, rest])


def _remote(module: Module, url: str, parent: RemoteRepository | None) -> RemoteRepository:
    """The parent's credential goes along to its own host, scheme and port, and nowhere else.

    Unencrypted addresses and those of this host itself: only from a parent that was named so.
    """
    unencrypted = parent is not None and parent.scheme is Scheme.HTTP
    mend = f"Run `git submodule update --init` in a clone of your own and name that, {_WITHOUT}"
    try:
        found = parse_repository(url, local_user=unencrypted)
    except Rejected as error:
        raise Rejected(f"The submodule {module.name!r} cannot be fetched: {error.message}", mend=mend) from error
    if isinstance(found, LocalRepository):
        raise Rejected(f"The submodule {module.name!r} names a path of this host.", mend=mend)
    if parent is None:
        return found
    if (found.scheme is Scheme.HTTP and found.host != parent.host) or (found.is_loopback and not parent.is_loopback):
        raise Rejected(
            f"The submodule {module.name!r} leads to {found.host}, where {parent.host} must not lead.", mend=mend
        )
    same = (found.scheme, found.host, found.port) == (parent.scheme, parent.host, parent.port)
    return replace(found, credential=parent.credential) if same and found.credential is None else found
