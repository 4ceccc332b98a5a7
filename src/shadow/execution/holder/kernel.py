"""The few calls to the kernel that the standard library lacks, and what /proc says of processes."""

import ctypes
import os
import signal
from contextlib import suppress

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Raises: OSError."""
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def hide_from_neighbours() -> None:
    """Close /proc/PID/{environ,fd,mem} and ptrace to processes of the same user: tokens and descriptors are in there."""
    prctl(PR_SET_DUMPABLE, 0)


def children(pid: int) -> list[int]:
    """Direct children of a process; none where it is gone."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        if not os.path.exists(f"/proc/{pid}"):
            return []
    except (ProcessLookupError, PermissionError):
        return []
    # A kernel without CONFIG_PROC_CHILDREN: ask every process for its parent.
    return [child for child in _all_pids() if _stat_field(child, 1) == str(pid)]


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``, parents first, without zombies. A process forking meanwhile may be missed."""
    found: list[int] = []
    pending = children(pid)
    while pending:
        child = pending.pop()
        if _stat_field(child, 0) not in {None, "Z", "X"}:
            found.append(child)
        pending.extend(children(child))
    return found


def send_signal(pid: int, number: int) -> None:
    """To one process, or with a negative pid to a group; nothing happens where it is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_descendants(pid: int, *, passes: int) -> list[int]:
    """SIGKILL everything below ``pid``, again and again until nothing shows; returns who is there still.

    Each is killed as soon as its children are known: the less time passes between, the fewer it can fork meanwhile.
    """
    for _ in range(passes):
        pending = children(pid)
        if not pending:
            return []
        while pending:
            child = pending.pop()
            pending.extend(children(child))
            send_signal(child, signal.SIGKILL)
    return descendants(pid)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat_field(pid: int, index: int) -> str | None:
    """A field of /proc/PID/stat counted after the name, which may hold blanks and brackets: 0 state, 1 parent."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(") ")[2].split()[index]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
