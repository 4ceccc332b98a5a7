"""What CPU time a workspace's processes have taken, by the kernel's own accounts of them, which nothing inside can change.

The kernel adds a process's time, with that of its own children, to its parent's when that waits for it; in a workspace somebody
waits for everybody, at the latest the holder. So the sum over the living is that of all there were, with two exceptions: where a
parent has told the kernel that it waits for none (``SIGCHLD`` ignored), the time of its children is forgotten at their end; and
what ends while we look is met by the next look.
"""

import os
from contextlib import suppress

from shadow.core.workspaces import CpuTime
from shadow.execution.holder.kernel import children
from shadow.execution.local.manifest import HOLDER, read_holder
from shadow.execution.local.process import is_alive, stat_fields

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def read_cpu_time(directory_fd: int) -> CpuTime | None:
    """Of the workspace in that directory; ``None``: nothing runs there."""
    holder = read_holder(directory_fd)
    if holder is None or not is_alive(holder):
        return None
    used_s = _of_tree(holder.pid)
    try:
        since = os.stat(HOLDER, dir_fd=directory_fd).st_mtime
    except FileNotFoundError:
        return None
    if not is_alive(holder) or read_holder(directory_fd) != holder:  # what was read may be of another one by now
        return None
    return CpuTime(since=since, used_s=used_s)


def _of_tree(root: int) -> float:
    """Parents are read before their children: who dies in between is counted with neither, and never with both."""
    ticks = 0
    seen = {root}
    pending = [root]
    while pending:
        pid = pending.pop()
        fields = stat_fields(pid)
        if fields is None:
            continue
        ticks += sum(int(field) for field in fields[11:15])
        below = _children(pid) - seen
        seen |= below
        pending += below
    return ticks / _TICKS_PER_S


def _children(pid: int) -> set[int]:
    """Of all its threads."""
    found = set(children(pid))
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return found
    for thread in threads:
        with (
            suppress(FileNotFoundError, ProcessLookupError, PermissionError),
            open(f"/proc/{pid}/task/{thread}/children", "rb") as file,
        ):
            found.update(map(int, file.read().split()))
    return found
