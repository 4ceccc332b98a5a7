"""Who a worker is: enough for another process of the same host to see that it is gone."""

import os
from pathlib import Path


def own_name(host: str) -> str:
    """``host``, and this process as the kernel knows it: its PID namespace, its number, when it began."""
    pid = os.getpid()
    return f"{host}:{_namespace()}:{pid}:{_began(pid)}"


def is_gone(name: str, *, host: str) -> bool:
    """Whether the process that ``name`` names surely runs no more. ``False`` where that cannot be seen from here."""
    parts = name.rsplit(":", 3)
    if len(parts) != 4 or parts[0] != host or parts[1] != _namespace() or not parts[2].isdecimal():
        return False
    return _began(int(parts[2])) != parts[3]


def _namespace() -> str:
    return str(os.stat("/proc/self/ns/pid").st_ino)


def _began(pid: int) -> str | None:
    """In clock ticks since the host began; ``None``: there is no such process, or only what is left of it."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
