"""What git's words mean, as Shadow's errors, with what the reader can do about it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shadow.core.errors import (
    Broken,
    Conflict,
    Denied,
    LimitExceeded,
    NotARepository,
    NotFound,
    Rejected,
    ShadowError,
    Unavailable,
)

MAX_SHOWN = 2000
HOST_UNKNOWN_MEND = "Check the host's name and the network, then try again."


class CredentialsWanted(Denied):
    """The remote lets nobody in without a credential, or not with this one."""

    code = "credentials_wanted"


class RemoteUnreachable(Unavailable):
    code = "remote_unreachable"


class HostUnknown(RemoteUnreachable):
    """There is no host of that name: mistyped, or the network has no names for us."""

    code = "host_unknown"


class TlsFailed(Denied):
    """The remote could not prove who it is."""

    code = "tls_failed"


class EmptyRepository(Rejected):
    """There is no commit to start from."""

    code = "empty_repository"


class UnsoundRepository(Rejected):
    """git's own checks refuse what the repository holds."""

    code = "unsound_repository"


@dataclass(frozen=True, slots=True)
class _Sign:
    kind: type[ShadowError]
    mend: str | None
    patterns: tuple[str, ...]


_SIGNS: Sequence[_Sign] = (
    _Sign(
        NotFound,
        "Push the commit that is named to a branch or a tag there; not every server hands out others.",
        ("not our ref [0-9a-f]", "unadvertised object [0-9a-f]", "couldn't find remote ref [0-9a-f]{40}"),
    ),
    _Sign(
        LimitExceeded,
        "Make room on the disk, or raise the limit of a repository's size.",
        (
            "[Oo]ut of memory",
            "No space left on device",
            "Disk quota exceeded",
            "File too large",
            "exceeds maximum allowed size",
        ),
    ),
    _Sign(
        Denied,
        "The address is not a public one. Whoever runs Shadow can allow the host in the settings.",
        ("CONNECT tunnel failed, response 403", "HTTP code 403 from proxy", "address guard"),
    ),
    _Sign(
        TlsFailed,
        "Mend the server's certificate, or name your authority's file in GIT_SSL_CAINFO.",
        (
            "SSL certificate problem",
            "certificate verif",
            "SSL: ",
            "SSL_connect",
            "TLS connect error",
            "gnutls_handshake",
        ),
    ),
    _Sign(
        TlsFailed,
        "Connect once by hand (ssh HOST) and check its key, or add it with ssh-keyscan.",
        ("Host key verification failed",),
    ),
    _Sign(
        CredentialsWanted,
        "For https set SHADOW_GIT_TOKENS=HOST=TOKEN, or have a ~/.netrc entry or a git credential helper; for ssh load a key "
        "into your agent.",
        (
            "Authentication failed",
            "could not read (Username|Password)",
            "terminal prompts disabled",
            r"Permission denied \(",
            "requested URL returned error: 40[13]",
            "Access denied",
        ),
    ),
    _Sign(HostUnknown, HOST_UNKNOWN_MEND, ("Name or service not known",)),
    _Sign(
        RemoteUnreachable,
        "Check the address and the network, then try again.",
        (
            "Could not resolve host",
            r"CONNECT tunnel failed, response 5\d\d",
            "Failed to connect",
            "Connection (refused|timed out|reset|closed)",
            "Network is unreachable",
            "No route to host",
            "Couldn't connect",
            "Operation too slow",
            "unexpected disconnect",
            "early EOF",
            "RPC failed",
            "no end after",
            r"requested URL returned error: 5\d\d",
        ),
    ),
    _Sign(
        Denied,
        "It belongs to somebody else: run Shadow as its owner, or run 'git config --global --add safe.directory PATH'.",
        ("dubious ownership", "unsafe repository"),
    ),
    _Sign(
        UnsoundRepository,
        "`git fsck` in it says more; what Shadow tolerates is listed in docs/repositories.md.",
        ("fsck error", r"error in (tree|commit|tag|blob) [0-9a-f]+: ", r"error: object [0-9a-f]+: "),
    ),
    _Sign(
        NotFound,
        "The server hands out no large files by ssh: give its https:// address, or leave --lfs away.",
        ("git-lfs-authenticate",),
    ),
    _Sign(
        NotFound,
        "Check the address; some servers answer so to who may not see it.",
        (
            "requested URL returned error: 404",
            "[Rr]epository not found",
            "repository '.*' not found",
            "does not exist",
        ),
    ),
    _Sign(
        NotARepository,
        "Give the path or the address of a git repository.",
        ("does not appear to be a git repository", "not a git repository"),
    ),
    _Sign(
        Conflict,
        "Deliver under another branch name.",
        ("non-fast-forward", "fetch first", "stale info", "reference already exists", "cannot lock ref"),
    ),
    _Sign(
        Denied,
        "The remote does not let this credential do that.",
        ("remote rejected", "hook declined", "protected branch", "Permission to .* denied"),
    ),
    _Sign(RemoteUnreachable, "Check the address, then try again.", ("remote end hung up",)),
    _Sign(Denied, "Look at the permissions.", ("Permission denied",)),
    _Sign(
        UnsoundRepository,
        "`git fsck` in it says more.",
        ("bad object", "missing (blob|tree|commit)", "is corrupt", "unresolved delta", "Could not read [0-9a-f]{40}"),
    ),
)


def failure(about: str, said: str) -> ShadowError:
    """The error for what git said on stderr while it did ``about``."""
    shown = _without_secrets(said.strip())[-MAX_SHOWN:]
    message = f"{about} failed: {shown or 'git said nothing'}"
    for sign in _SIGNS:
        if any(re.search(pattern, said) for pattern in sign.patterns):
            return sign.kind(message, mend=sign.mend)
    return Broken(message)


def _without_secrets(text: str) -> str:
    """git takes care not to print passwords; addresses that a server or a helper repeats may still hold them."""
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)
