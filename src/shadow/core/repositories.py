"""Repositories as values: what a user may name, which checkout a workspace holds, what its branch is called. No I/O, no clock."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from shadow.core.errors import Rejected

BRANCH_PREFIX = "shadow/"
MAX_REPOSITORY_LENGTH = 4096
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ADJECTIVES = (
    "amber", "brave", "calm", "clear", "crisp", "deft", "eager", "early", "fair", "fleet", "fresh", "gentle", "glad", "golden",
    "keen", "kind", "light", "lively", "lucid", "mellow", "mild", "neat", "noble", "patient", "plain", "quick", "quiet", "ready",
    "silver", "steady", "swift", "warm",
)  # fmt: skip
_NOUNS = (
    "anchor", "aspen", "beacon", "birch", "bridge", "brook", "cedar", "cliff", "comet", "delta", "dune", "ember", "falcon",
    "fjord", "garnet", "grove", "harbor", "heron", "island", "lantern", "maple", "meadow", "orchard", "otter", "pebble",
    "pine", "prairie", "ridge", "river", "sparrow", "summit", "willow",
)  # fmt: skip


class Scheme(StrEnum):
    HTTPS = "https"
    HTTP = "http"
    """Without encryption: for the user of this host alone, and credentials go to loopback only."""
    SSH = "ssh"


DEFAULT_PORTS = {Scheme.HTTPS: 443, Scheme.HTTP: 80, Scheme.SSH: 22}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRepository:
    """A repository on this host, named by its user."""

    path: str
    """As given; may be relative."""

    @property
    def name(self) -> str:
        return _name(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRepository:
    scheme: Scheme
    host: str
    """Lower-case name, or an address without brackets."""
    port: int
    url: str
    """For git; without credentials (the user name of ssh is none)."""
    credential: Credential | None = None
    """What the user had put into the address."""

    @property
    def name(self) -> str:
        return _name(self.url)

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or (is_address(self.host) and ip_address(self.host).is_loopback)


Repository = LocalRepository | RemoteRepository


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """What a workspace was filled with."""

    repository: str
    """URL without credentials, or absolute path."""
    base_branch: str | None
    """``None``: a commit that no branch was named for (a detached source, a tag)."""
    base_commit: str
    branch: str
    """The workspace's own branch."""
    depth: int | None = None
    """How many commits of history came along; ``None``: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedRepository:
    """A repository that there are tasks for."""

    repository: str
    """As tasks have it: without credentials."""
    tasks: int
    used_at: float
    """When anything last happened with one of them, seconds since 1970."""

    @property
    def name(self) -> str:
        return _name(self.repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """What a task can start from."""

    default: str | None
    """The branch that HEAD names; ``None`` where it names none, or one without a commit."""
    branches: tuple[str, ...]
    tags: tuple[str, ...]
    truncated: bool
    """Whether there are more than are told."""


def parse_repository(text: str, *, local_user: bool) -> Repository:
    """What ``text`` names. ``local_user``: whoever asks may read this host's files anyway.

    Raises: Rejected: with what would be accepted instead.
    """
    if not text or len(text) > MAX_REPOSITORY_LENGTH or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Rejected("The repository's address is empty, too long, or holds control characters.", mend=_FORMS)
    if text.startswith("-"):
        raise Rejected(f"{text!r} looks like an option, not like a repository.", mend=f"Write ./{text} for a path.")
    if re.match(r"[A-Za-z0-9+.-]*::", text):
        raise Rejected("Remote helpers (`helper::address`) are not accepted: they run programs.", mend=_FORMS)
    scheme, separator, _ = text.partition("://")
    if separator:
        return _parse_url(text, scheme.lower(), local_user=local_user)
    scp = re.fullmatch(r"(?:([^/:@]+)@)?(\[[^\]/]*\]|[^/:@]+):(?!//)(.+)", text)
    if scp is not None:
        user, host, path = scp[1], _host(scp[2]), scp[3]
        _check_ssh(user, path)
        shown = f"[{host}]" if ":" in host else host
        return RemoteRepository(
            scheme=Scheme.SSH, host=host, port=22, url=f"{user}@{shown}:{path}" if user else f"{shown}:{path}"
        )
    return _local(text, local_user=local_user)


_FORMS = "Give a path, https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH."


def _parse_url(text: str, scheme: str, *, local_user: bool) -> Repository:
    if scheme == "file":
        if not text.lower().startswith("file:///"):
            raise Rejected("A file:// address has three slashes: file:///PATH.")
        return _local(unquote(text[7:], errors="surrogateescape"), local_user=local_user)
    if scheme not in tuple(Scheme):
        raise Rejected(f"Repositories are not fetched by {scheme!r}.", mend=_FORMS)
    if scheme == Scheme.HTTP and not local_user:
        raise Rejected("http:// is not encrypted.", mend="Use https://.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise Rejected(f"The repository's address is not a URL: {error}.", mend=_FORMS) from error
    if parts.fragment or "#" in text:
        raise Rejected("The repository's address has a fragment (#…), which means nothing to git.")
    host = _host(parts.netloc.rpartition("@")[2].rpartition(":")[0] if port else parts.netloc.rpartition("@")[2])
    if not parts.path.strip("/"):
        raise Rejected("The repository's address names a host but no repository on it.", mend=_FORMS)
    kind = Scheme(scheme)
    credential: Credential | None = None
    user = parts.username
    if kind is Scheme.SSH:
        if parts.password is not None:
            raise Rejected("ssh takes no password in the address.", mend="Use a key or an agent.")
        _check_ssh(user, parts.path.lstrip("/"))
    elif user is not None:
        credential = Credential(username=unquote(user), password=unquote(parts.password or ""))
        if not f"{credential.username}{credential.password}".isprintable():
            raise Rejected("The credential in the address holds control characters.")
        user = None
    shown = f"[{host}]" if ":" in host else host
    netloc = f"{user}@{shown}" if user else shown
    netloc += f":{port}" if port and port != DEFAULT_PORTS[kind] else ""
    query = f"?{parts.query}" if parts.query else ""
    return RemoteRepository(
        scheme=kind,
        host=host,
        port=port or DEFAULT_PORTS[kind],
        url=f"{kind}://{netloc}{parts.path}{query}",
        credential=credential,
    )


def _local(path: str, *, local_user: bool) -> LocalRepository:
    if not local_user:
        raise Rejected("Paths of the server are not accepted.", mend="Give an https:// or ssh address.")
    if not path or "\0" in path:
        raise Rejected("The path is empty or holds a NUL character.")
    return LocalRepository(path=path)


def _host(text: str) -> str:
    """Raises: Rejected: for what no resolver should be asked, and no command line should get."""
    host = text.removeprefix("[").removesuffix("]").lower() if text.startswith("[") else text.lower()
    if text.startswith("[") != (":" in host) or (":" in host and not is_address(host)):
        raise Rejected(f"{text!r} is not an address.")
    if ":" not in host and not re.fullmatch(r"(?!-)[a-z0-9_-]+(?:\.(?!-)[a-z0-9_-]+)*\.?", host):
        raise Rejected(f"{text!r} is not the name of a host.", mend="Write international names in punycode (xn--…).")
    return host


def is_address(host: str) -> bool:
    """Whether it is a literal IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_ssh(user: str | None, path: str) -> None:
    if user is not None and not re.fullmatch(r"(?!-)[A-Za-z0-9._+~-]+", user):
        raise Rejected(f"{user!r} is not a user name for ssh.")
    if path.startswith("-"):
        raise Rejected("The path on the server begins with a dash, which git and ssh would take for an option.")


def _name(address: str) -> str:
    return re.sub(r"\.git$", "", re.split(r"[/:]", address.rstrip("/"))[-1]) or "repository"


def branch_name(about: str, *, entropy: bytes) -> str:
    """``shadow/<words>-<id>``: words of ``about``, or two made up where it has none; ``entropy``: at least 8 bytes."""
    words = re.findall(r"[a-z0-9]+", about.lower())
    slug = ""
    for word in words:
        if len(slug) + 1 + len(word) > 40:
            break
        slug = f"{slug}-{word}" if slug else word
    if not slug:
        slug = f"{_ADJECTIVES[entropy[0] % len(_ADJECTIVES)]}-{_NOUNS[entropy[1] % len(_NOUNS)]}"
    return f"{BRANCH_PREFIX}{slug}-{''.join(_ALPHABET[byte & 31] for byte in entropy[2:8])}"


def is_commit(text: str) -> bool:
    """Whether it is a whole object name, of SHA-1 or SHA-256."""
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) is not None
