"""What the operating system refuses, as Shadow's errors, with what the reader can do about it."""

import errno
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shadow.core.errors import Broken, Denied, LimitExceeded, ShadowError, Unsupported

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_WITHOUT = "Or ask for isolation 'none' by name, which is no wall at all."


@contextmanager
def typed_failures(doing: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise typed_failure(doing, error) from error


def typed_failure(doing: str, error: OSError) -> ShadowError:
    where = f" ({os.fspath(error.filename)!r})" if isinstance(error.filename, (str, bytes)) else ""
    message = f"{doing} failed: {error.strerror or error}{where}."
    if error.errno in _FULL:
        return LimitExceeded(message, mend="Free some space or raise the limit, then try again.")
    if error.errno in _REFUSED:
        return Denied(message, mend="Choose a directory that this user may write to (the data directory is a setting).")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        return Denied(message, mend="The data directory must be a directory; choose another one.")
    return Broken(message)


_NAMESPACE_SIGNS = (
    "creating new namespace",
    "creating new user namespace",
    "no permissions to create",
    "setting up uid map",
    "setting up gid map",
    "loopback:",
    "cannot make a mount namespace",
    "can't mount proc",
    "cannot detach the mounts",
    "prctl(pr_set_seccomp)",
    "max_user_namespaces",
)


def launch_failure(text: str, facts: Mapping[str, str]) -> ShadowError:
    """What a start that failed means. ``facts``: see ``host_limits``."""
    message = f"The workspace did not start: {text.strip() or 'its first process ended without a word'}"
    lowered = text.lower()
    if not any(sign in lowered for sign in _NAMESPACE_SIGNS):
        return Broken(message, details={"stderr": text})
    return Unsupported(message, mend=f"{namespace_mend(facts)} {_WITHOUT}", details={"capability": "sandbox"})


def namespace_mend(facts: Mapping[str, str]) -> str:
    """How this host can be brought to allow namespaces."""
    if facts.get("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor keeps ordinary programs from making user namespaces here: install the distribution's package "
            "'bubblewrap', or run 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0' as root."
        )
    if facts.get("kernel.unprivileged_userns_clone") == "0":
        return (
            "Ordinary users may not make namespaces here: run 'sysctl -w kernel.unprivileged_userns_clone=1' as root."
        )
    if facts.get("user.max_user_namespaces") == "0":
        return "User namespaces are switched off here: run 'sysctl -w user.max_user_namespaces=15000' as root."
    if "container" in facts:
        return (
            "A container's own restrictions forbid namespaces: start it with '--security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined' (Docker; as root in it also "
            "'--cap-add SYS_ADMIN'), or run Shadow on the host."
        )
    return "Allow this user to make user, mount and network namespaces."


def host_limits() -> Mapping[str, str]:
    """Settings of this host that keep sandboxes from being made."""
    facts: dict[str, str] = {}
    for name in (
        "kernel.apparmor_restrict_unprivileged_userns",
        "kernel.unprivileged_userns_clone",
        "user.max_user_namespaces",
    ):
        path = Path("/proc/sys", *name.split("."))
        if path.exists():
            facts[name] = path.read_text(encoding="ascii", errors="replace").strip()
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        facts["container"] = "yes"
    return facts
