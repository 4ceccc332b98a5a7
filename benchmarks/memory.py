"""Memory of a workspace's own processes, as the kernel counts it."""

import os
from pathlib import Path

from shadow.execution.local.manifest import read_holder


def workspace_pids(directory: Path) -> list[int]:
    """The holder and its sidecar (not the subreapers, which are forked from the holder and share its memory)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        holder = read_holder(fd)
    finally:
        os.close(fd)
    if holder is None:
        raise RuntimeError(f"no holder runs in {directory}")
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    sidecars = [int(pid) for pid in children if b"shadow.sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return [holder.pid, *sidecars]


def kib_of(pids: list[int]) -> tuple[int, str]:
    """KiB of all together: PSS where we may read it (as root: these processes hide from their neighbours), else RSS."""
    try:
        return sum(_field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in pids), "PSS"
    except PermissionError:
        return sum(_field(Path(f"/proc/{pid}/status"), "VmRSS:") for pid in pids), "RSS"


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise RuntimeError(f"{path} has no {name}")
