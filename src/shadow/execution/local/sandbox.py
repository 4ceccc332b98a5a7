"""What a sandbox looks like from inside, as arguments for bubblewrap. Pure: facts of the host come in, an argv comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from shadow.core.errors import SettingsRefused
from shadow.execution.local.launcher import DATA_FD, STATUS_FD

WORKSPACE = "/workspace"
STATE = "/run/shadow"
EGRESS = "/run/egress"
EGRESS_SOCKET = "proxy.sock"
EGRESS_PORT = 3128
"""On the sandbox's own loopback, where the relay to the egress proxy is found."""
HOME = "/home/agent"
HOSTNAME = "shadow"
USER_ID = 1000
FILES_IN_MEMORY: Mapping[str, int] = {HOME: 4, "/tmp": 2, "/var/tmp": 1, "/dev/shm": 1}
"""File systems in memory, and how many sixteenths of the limit of memory each may take: together half, whatever stays there."""
FILES_IN_MEMORY_BYTES = 4 * 1024**3
"""For each of them at most."""

SYSTEM_DIRECTORIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""The host's programs and libraries; symlinks where the host has symlinks."""

ETC_ENTRIES = (
    "alternatives",  # else awk, cc, vi, java lead nowhere on Debian
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d",  # where the dynamic linker finds libraries
    "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "ca-certificates", "ca-certificates.conf",  # not ssl/private
    "pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf", "pki/ca-trust/extracted", "crypto-policies",
    "localtime", "timezone", "os-release", "lsb-release", "debian_version",
    "mime.types", "magic", "services", "protocols", "rpc", "ethertypes", "networks", "host.conf", "gai.conf",
    "bash.bashrc", "inputrc", "terminfo", "login.defs", "shells", "nanorc", "vim", "manpath.config",
    "fonts", "perl", "python3", "python3.*", "java-*", "maven/m2.conf", "maven/logging", "dpkg/origins", "ImageMagick-*",
)  # fmt: skip
"""What programs need of /etc and what holds no secret. Not among them on purpose: package managers' settings (their
addresses can carry passwords), gitconfig, profile, ssh, sudoers, machine-id and the host's users."""

HIDDEN = ("/proc/keys", "/proc/key-users")
"""They name the keys of everybody with this uid: an ordinary user's sandbox has the user's."""

SYNTHETIC_FILES: Mapping[str, str] = {
    "/etc/passwd": (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"agent:x:{USER_ID}:{USER_ID}:agent:{HOME}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "/etc/group": f"root:x:0:\ntty:x:5:\nagent:x:{USER_ID}:\nnogroup:x:65534:\n",
    "/etc/hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n",
    "/etc/hostname": f"{HOSTNAME}\n",
    "/etc/nsswitch.conf": (
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
        "protocols: files\nservices: files\nethers: files\nrpc: files\n"
    ),
    "/etc/resolv.conf": "# No names are resolved in here: the egress proxy does it, for hosts that the policy allows.\n",
}

_PRIVATE = ("/tmp", "/var/tmp", "/dev", "/proc", "/run", "/etc", HOME, WORKSPACE, STATE, EGRESS)
_NOTHING_BELOW = ("/dev", "/proc", WORKSPACE, STATE, EGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a sandbox takes from its host."""

    system: Mapping[str, str | None]
    """Which of ``SYSTEM_DIRECTORIES`` there are: where a symlink points to, ``None`` for a directory."""
    etc: Sequence[str] = ()
    """Which entries of /etc there are, patterns resolved."""
    read_only: Sequence[str] = ()
    """Paths that are shown read-only at their own place: the interpreter, Shadow itself, more tools."""
    hidden: Sequence[str] = ()
    """Which of ``HIDDEN`` there are."""
    links: Mapping[str, str] = field(default_factory=dict[str, str])
    """Symlinks to make outside of those paths: steps on the way to the interpreter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bwrap:
    """A bubblewrap: a program, and the directory above it that also holds the libraries it brings along."""

    directory: str
    program: str
    """Relative to ``directory``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    bwrap: Bwrap
    host: Host
    files: str
    """The checkout on the host: ``/workspace`` inside, writable."""
    state: str
    """Journal and byte logs on the host: ``/run/shadow`` inside, writable."""
    egress: str
    """The directory on the host where the egress proxy has its socket: ``/run/egress`` inside, read-only. The directory, since
    a socket that is bound on its own refuses once another took its place."""
    command: Sequence[str]
    """The first process, pid 1 inside."""
    memory_bytes: int | None = None
    """The limit of memory; files in memory can take half of it."""


def is_beneath(path: str, directory: str) -> bool:
    """Also true for ``directory`` itself."""
    return PurePosixPath(path).is_relative_to(directory)


def check_read_only_path(path: str) -> None:
    """Raises: SettingsRefused: for a path that would cover, or lie in, what is private to each workspace."""
    for private in _PRIVATE:
        if is_beneath(private, path):
            raise SettingsRefused(
                f"{path} cannot be shown inside workspaces: there, {private} is private to each of them.",
                mend=f"Choose directories that do not hold {private}.",
            )
    for private in _NOTHING_BELOW:
        if is_beneath(path, private):
            raise SettingsRefused(
                f"{path} cannot be shown inside workspaces: there, {private} is something else.",
                mend="Move it (and, if it is Shadow's own place, install Shadow) elsewhere.",
            )


def outermost(paths: Sequence[str], *, system: Mapping[str, str | None]) -> tuple[str, ...]:
    """``paths`` without those that lie in another one or in a system directory."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda p: (len(PurePosixPath(p).parts), p)):
        if not any(is_beneath(path, outer) for outer in (*system, *kept)):
            kept.append(path)
    return tuple(kept)


def staged_sources(sandbox: Sandbox) -> tuple[str, ...]:
    """Paths that a dropped uid may be unable to reach: the launcher mounts them where it can."""
    return (sandbox.bwrap.directory, sandbox.files, sandbox.state, sandbox.egress, *sandbox.host.read_only)


def sandbox_data(seccomp: bytes) -> tuple[bytes, ...]:
    """The files in memory that ``bwrap_argv`` refers to, in the order of their descriptors."""
    return (seccomp, *(text.encode() for text in SYNTHETIC_FILES.values()))


def _in_memory(place: str, mode: str, memory_bytes: int | None) -> tuple[str, ...]:
    share = FILES_IN_MEMORY_BYTES if memory_bytes is None else memory_bytes * FILES_IN_MEMORY[place] // 16
    return ("--perms", mode, "--size", str(min(FILES_IN_MEMORY_BYTES, share)), "--tmpfs", place)


def bwrap_argv(sandbox: Sandbox, *, stage_dir: str | None) -> tuple[str, ...]:
    """``stage_dir``: where the launcher mounts ``staged_sources``, by number; ``None``: they are used at their own place.

    The order matters: private places first, then what is shown at its own path (which may lie in one: a clone below /tmp), then
    the workspace; the root is closed last.
    """
    places = {
        source: source if stage_dir is None else f"{stage_dir}/{index}"
        for index, source in enumerate(staged_sources(sandbox))
    }
    host = sandbox.host
    memory_bytes = sandbox.memory_bytes
    argv = [
        f"{places[sandbox.bwrap.directory]}/{sandbox.bwrap.program}",
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--disable-userns", "--cap-drop", "ALL", "--new-session", "--as-pid-1", "--clearenv"),
        *("--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", HOSTNAME),
        *("--json-status-fd", str(STATUS_FD), "--seccomp", str(DATA_FD)),
    ]
    for directory, target in host.system.items():
        argv += ("--ro-bind", directory, directory) if target is None else ("--symlink", target, directory)
    for directory in ("/etc", "/run", "/var", "/home"):
        argv += ("--perms", "0755", "--dir", directory)
    for entry in host.etc:
        argv += ("--ro-bind", f"/etc/{entry}", f"/etc/{entry}")
    for index, path in enumerate(SYNTHETIC_FILES):
        argv += ("--perms", "0644", "--file", str(DATA_FD + 1 + index), path)
    argv += ("--symlink", "/proc/self/mounts", "/etc/mtab", "--symlink", "/run", "/var/run")
    argv += ("--proc", "/proc")
    for path in host.hidden:
        argv += ("--ro-bind", "/dev/null", path)
    argv += ("--dev", "/dev", *_in_memory("/dev/shm", "1777", memory_bytes), "--remount-ro", "/dev")
    argv += (*_in_memory("/tmp", "1777", memory_bytes), *_in_memory("/var/tmp", "1777", memory_bytes))
    argv += _in_memory(HOME, "0755", memory_bytes)
    for path in host.read_only:
        argv += ("--ro-bind", places[path], path)
    for path, target in host.links.items():
        argv += ("--symlink", target, path)
    argv += ("--bind", places[sandbox.state], STATE, "--bind", places[sandbox.files], WORKSPACE)
    argv += ("--ro-bind", places[sandbox.egress], EGRESS)
    argv += ("--remount-ro", "/", "--chdir", "/", "--", *sandbox.command)
    return tuple(argv)


def base_env(*, home: str, temporary: str, tool_directories: Sequence[str], last: str) -> dict[str, str]:
    """The whole environment of a workspace's commands, before their own additions.

    ``last``: a directory for the end of PATH: that of Shadow's interpreter, for hosts whose system has none.
    """
    system = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    return {
        "HOME": home,
        "LANG": "C.UTF-8",
        "LOGNAME": "agent",
        "PATH": ":".join(dict.fromkeys((*tool_directories, *system, last))),
        "SHELL": "/bin/bash",
        "TMPDIR": temporary,
        "USER": "agent",
    }


def proxy_env() -> dict[str, str]:
    """What programs need to find the egress proxy, or else a clear refusal. Names of both cases: each has its readers."""
    proxy = f"http://127.0.0.1:{EGRESS_PORT}"
    local = "localhost,127.0.0.1,::1"
    env: dict[str, str] = {}
    for name, value in {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": local}.items():
        env |= {name: value, name.lower(): value}
    return env | {
        "NODE_USE_ENV_PROXY": "1",
        # They ask hosts of their own beside those that they were asked to use.
        "NPM_CONFIG_UPDATE_NOTIFIER": "false",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
