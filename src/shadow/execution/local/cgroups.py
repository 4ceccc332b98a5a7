"""Control groups around the commands of a workspace: memory, processes and CPU, kept by the kernel.

Holder and sidecar stay outside: whatever commands use up, those two still answer. Nothing of a group can be reached from
inside but by the descriptors that the holder has, which only move processes into it.

As root the groups are ``shadow/ID`` below the root of each hierarchy, so that they outlive whoever made them. An ordinary user
gets a place from the user's systemd, if there is one: the launcher then runs in a scope of its own and makes the group in there.
"""

import errno
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shadow.core.errors import Unavailable
from shadow.core.limits import Limits
from shadow.execution.holder.running import OWN_PROCESSES

CONTROLLERS = ("memory", "pids", "cpu")
PARENT = "shadow"
_PERIOD_US = 100_000
_SYSTEMD_ANSWERS_WITHIN_S = 10.0
_REMOVED_WITHIN_S = 5.0
_POLL_S = 0.01


class Mechanism(StrEnum):
    V2 = "cgroup v2"
    V1 = "cgroup v1"
    SCOPE = "a scope of the user's systemd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """What this host has for us."""

    mechanism: Mechanism
    roots: Mapping[str, Path]
    """By controller: where its hierarchy is mounted. For a scope: where version 2 is."""


def find_cgroups() -> Cgroups | None:
    """``None``: this user may not make any."""
    mounts = hierarchies(_mountinfo())
    unified = mounts.get("")
    usable = () if unified is None else _controllers(unified)
    if unified is not None and "memory" in usable:
        if os.geteuid() != 0:
            return Cgroups(mechanism=Mechanism.SCOPE, roots={"": unified}) if _systemd_gives(unified) else None
        found = {name: unified for name in usable if _enable(unified, name)}
        return Cgroups(mechanism=Mechanism.V2, roots=found) if found else None
    found = {name: mounts[name] for name in CONTROLLERS if name in mounts and os.access(mounts[name], os.W_OK)}
    return Cgroups(mechanism=Mechanism.V1, roots=found) if found and os.geteuid() == 0 else None


def _mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")


def hierarchies(mountinfo: str) -> dict[str, Path]:
    """By controller of version 1; version 2 under the empty name."""
    found: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        place, _, kind = line.partition(" - ")
        name, _, options = kind.split(" ")
        path = Path(place.split(" ")[4])
        if name == "cgroup2":
            found.setdefault("", path)
        elif name == "cgroup":
            for option in options.split(","):
                found.setdefault(option, path)
    return found


def _controllers(unified: Path) -> tuple[str, ...]:
    available = (unified / "cgroup.controllers").read_text(encoding="ascii").split()
    return tuple(name for name in CONTROLLERS if name in available)


def _enable(unified: Path, controller: str) -> bool:
    """In the root and in the parent of our groups. A container's own root, which holds processes, refuses."""
    parent = unified / PARENT
    try:
        parent.mkdir(exist_ok=True)
        for directory in (unified, parent):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
    except OSError:
        return False
    return True


_DIVIDE = """scope="$1$(sed -n 's/^0:://p' /proc/self/cgroup)"
mkdir "$scope/holder" && echo 0 > "$scope/holder/cgroup.procs" && echo +memory > "$scope/cgroup.subtree_control"
"""


def _systemd_gives(unified: Path) -> bool:
    """Whether the user's systemd lets us do what the launcher will do."""
    environment = systemd_environment()
    if environment is None:
        return False
    try:
        asked = subprocess.run(
            [*scope_argv(), "sh", "-c", _DIVIDE, "sh", str(unified)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SYSTEMD_ANSWERS_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def systemd_environment() -> dict[str, str] | None:
    """How to reach the user's systemd; ``None``: there is none."""
    runtime = f"/run/user/{os.geteuid()}"
    if not os.path.exists(f"{runtime}/systemd/private") and not os.path.exists(f"{runtime}/bus"):
        return None
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "XDG_RUNTIME_DIR": runtime,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }


def scope_argv() -> tuple[str, ...]:
    """What to put in front of a command: it then runs in a scope whose groups it may divide."""
    return ("systemd-run", "--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--")


def settings(limits: Limits, *, version: int) -> dict[str, dict[str, str]]:
    """What to write for ``limits``: by controller, file and content. Files that a kernel lacks may be left out.

    Swap is no way around the limit of memory. The number of processes leaves room for the subreapers, which are in the group.
    """
    wanted: dict[str, dict[str, str]] = {name: {} for name in CONTROLLERS}
    if limits.memory_bytes is not None:
        wanted["memory"] = (
            {"memory.max": str(limits.memory_bytes), "memory.swap.max": "0"}
            if version == 2
            else {
                "memory.limit_in_bytes": str(limits.memory_bytes),
                "memory.memsw.limit_in_bytes": str(limits.memory_bytes),
            }
        )
    if limits.processes is not None:
        wanted["pids"] = {"pids.max": str(limits.processes + OWN_PROCESSES)}
    if limits.cpus is not None:
        quota = str(max(1000, round(limits.cpus * _PERIOD_US)))
        wanted["cpu"] = (
            {"cpu.max": f"{quota} {_PERIOD_US}"}
            if version == 2
            else {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota}
        )
    return wanted


def controllers(cgroups: Cgroups) -> tuple[str, ...]:
    """What the groups will have."""
    if cgroups.mechanism is not Mechanism.SCOPE:
        return tuple(cgroups.roots)
    manager = cgroups.roots[""] / f"user.slice/user-{os.geteuid()}.slice/user@{os.geteuid()}.service"
    try:
        return _controllers(manager)
    except OSError:
        return ()


def groups(cgroups: Cgroups, workspace_id: str) -> dict[str, Path]:
    """By controller, where a workspace's group is to be. Nothing for a scope: systemd chooses, and takes it down."""
    if cgroups.mechanism is Mechanism.SCOPE:
        return {}
    return {name: root / PARENT / workspace_id for name, root in cgroups.roots.items()}


def make_groups(places: Mapping[str, Path], limits: Limits, *, version: int) -> None:
    """Also where they are there already. Raises: OSError."""
    wanted = settings(limits, version=version)
    for controller, group in places.items():
        group.mkdir(parents=True, exist_ok=True)
        write_settings(group, wanted[controller])


def write_settings(group: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        if (group / name).exists():
            _write(group / name, content, again=files)


def _write(path: Path, content: str, *, again: Mapping[str, str]) -> None:
    try:
        path.write_text(content, encoding="ascii")
    except OSError as error:
        # Version 1 wants memory alone to be never above memory with swap: lift that one first where it is lower.
        swap = path.with_name("memory.memsw.limit_in_bytes")
        if error.errno not in (errno.EINVAL, errno.EBUSY) or swap.name not in again or path == swap:
            raise
        swap.write_text(again[swap.name], encoding="ascii")
        path.write_text(content, encoding="ascii")


def remove_groups(workspace_id: str) -> None:
    """Those that root made. What is gone is fine. Raises: Unavailable: processes in there cannot be ended."""
    until = time.monotonic() + _REMOVED_WITHIN_S
    mounts = hierarchies(_mountinfo()) if os.geteuid() == 0 else {}
    for path in {root / PARENT / workspace_id for root in mounts.values()}:
        while True:
            try:
                path.rmdir()
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                if time.monotonic() > until:
                    raise Unavailable(
                        f"Processes are left in the control group {path}.", mend="Try again, or end them."
                    ) from error
                _kill(path)
                time.sleep(_POLL_S)
            else:
                break


def _kill(group: Path) -> None:
    """Whoever is in there still: all of it was this workspace's."""
    with suppress(OSError):
        for line in (group / "cgroup.procs").read_text(encoding="ascii").split():
            with suppress(ProcessLookupError):
                os.kill(int(line), 9)
