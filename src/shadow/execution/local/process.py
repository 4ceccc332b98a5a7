"""Which process it is: a pid alone names another one tomorrow; with its start time and the boot it is unique."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shadow.execution.local.readiness import wait_readable


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    boot_id: str
    pid: int
    start_ticks: int
    """Clock ticks from boot to the process's start."""


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def stat_fields(pid: int) -> list[bytes] | None:
    """Fields of /proc/PID/stat from the third (state) on; ``None`` where there is no such process."""
    try:
        data = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return data[data.rindex(b")") + 2 :].split()  # the name before may hold spaces and parentheses


def identify(pid: int) -> ProcessIdentity | None:
    """``None`` where no such process exists."""
    fields = stat_fields(pid)
    return None if fields is None else ProcessIdentity(boot_id=boot_id(), pid=pid, start_ticks=int(fields[19]))


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process exists and has not ended; a zombie has."""
    fields = stat_fields(identity.pid)
    return (
        fields is not None
        and int(fields[19]) == identity.start_ticks
        and fields[0] not in (b"Z", b"X")
        and boot_id() == identity.boot_id
    )


def is_first_of_namespace(pid: int) -> bool:
    """Whether it is pid 1 of a pid namespace below ours: then its end is the end of everything in there."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    for line in status.splitlines():
        if line.startswith(b"NSpid:"):
            return len(line.split()) > 2 and line.split()[-1] == b"1"
    return False


def first_processes_with(fd: int, *, device: int, inode: int) -> list[ProcessIdentity]:
    """First processes of pid namespaces that have this file open as descriptor ``fd``, as far as we may look."""
    found: list[ProcessIdentity] = []
    for entry in os.listdir("/proc"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError, NotADirectoryError):
            info = os.stat(f"/proc/{int(entry)}/fd/{fd}") if entry.isdigit() else None
            if info and (info.st_dev, info.st_ino) == (device, inode) and is_first_of_namespace(int(entry)):
                identity = identify(int(entry))
                if identity is not None:
                    found.append(identity)
    return found


class ProcessHandle:
    """A pidfd: it can never come to mean another process."""

    def __init__(self, fd: int, pid: int) -> None:
        self._fd = fd
        self.pid = pid

    @staticmethod
    def open(identity: ProcessIdentity) -> "ProcessHandle | None":
        """``None`` where that process is gone."""
        try:
            handle = ProcessHandle(os.pidfd_open(identity.pid), identity.pid)
        except ProcessLookupError:
            return None
        # Compared after opening: from here on the descriptor and what was compared are the same process.
        if not is_alive(identity):
            handle.close()
            return None
        return handle

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> "ProcessHandle":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    async def wait(self) -> None:
        """Until it has ended. For the first process of a pid namespace that means: until every process in it has."""
        await wait_readable(self._fd)
