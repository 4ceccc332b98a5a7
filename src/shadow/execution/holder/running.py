"""One command as the holder knows it: its parts, its line in the journal, and why it could not start."""

import errno
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shadow.core.commands import CommandSpec
from shadow.core.errors import Denied, LimitExceeded, NotFound, Rejected, ShadowError
from shadow.core.limits import LimitKind
from shadow.core.terminals import TerminalSize
from shadow.execution.holder.config import HolderConfig
from shadow.execution.holder.journal import Record
from shadow.execution.holder.kernel import descendants
from shadow.execution.holder.log_files import LogReader, LogWriter
from shadow.execution.holder.loop import Timer
from shadow.execution.holder.output import OutputPump
from shadow.execution.holder.stdin import StdinFeed
from shadow.execution.holder.subreaper import Confinement, Subreaper

MAX_RUNNING = 256
OWN_PROCESSES = MAX_RUNNING + 64
"""What a workspace needs at most besides its commands: their subreapers, the sidecar and its threads."""

Reply = Callable[[Record | ShadowError], None]


@dataclass(slots=True)
class Kill:
    """A tree that is being ended: SIGTERM until ``term_until``, then SIGKILL until ``deadline``."""

    term_until: float
    deadline: float
    replies: list[Reply]


@dataclass(slots=True)
class Running:
    """One command, from its start until it is forgotten."""

    id: str
    operation: str
    spec: CommandSpec
    started_at: float
    output: OutputPump
    stdin: StdinFeed
    size: TerminalSize | None = None
    """Of a terminal; ``None``: this is a command."""
    pty: int | None = None
    """Our end of a terminal, while ``output`` has it open."""
    hidden: bool = False
    """Started by the sidecar for itself: not listed, not journaled, forgotten when it says so."""
    subreaper: Subreaper | None = None
    """Who has the command's processes below it; ``None`` when nothing is left of them."""
    pid: int | None = None
    starting: list[tuple[Reply, float | None]] = field(default_factory=list[tuple[Reply, float | None]])
    """Callers that wait for the start, and for how long they want to wait for the end."""
    status: int | None = None
    """As waitpid gives it."""
    wanted: Record | None = None
    """What the ending will say where we bring it about."""
    ending: Record | None = None
    ended_at: float | None = None
    kill: Kill | None = None
    survivors: tuple[int, ...] = ()
    timeout: Timer | None = None
    time_s: float | None = None
    """What ``timeout`` was set to: the command's own, or the workspace's limit."""

    @property
    def open_pty(self) -> int | None:
        return None if self.output.closed else self.pty

    def describe(self) -> Record:
        layout = self.output.log.layout
        return {
            "id": self.id,
            "argv": list(self.spec.argv),
            "cwd": self.spec.cwd,
            "pid": self.pid,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "ending": self.ending,
            "output_start": layout.start,
            "output_end": layout.end,
            "output_closed": self.output.closed,
            "stdin_accepted": self.stdin.accepted,
            "descendants": len(descendants(self.subreaper.pid)) if self.subreaper is not None else 0,
            "survivors": list(self.survivors),
            "size": _size(self.size),
        }

    def progress(self) -> Record:
        layout = self.output.log.layout
        command = self.describe() if self.ending is not None else None
        return {"start": layout.start, "end": layout.end, "command": command, "size": _size(self.size)}

    def to_journal(self) -> Record:
        return {
            "operation": self.operation,
            "argv": list(self.spec.argv),
            "cwd": self.spec.cwd,
            "log_limit_bytes": self.spec.log_limit_bytes,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "ending": self.ending,
            "end": self.output.log.layout.end,
            "stdin_accepted": self.stdin.accepted,
            "size": _size(self.size),
        }


def _size(size: TerminalSize | None) -> list[int] | None:
    return None if size is None else [size.columns, size.rows]


def from_journal(command_id: str, values: Mapping[str, Any], directory: str) -> Running:
    """A command of an earlier holder: nothing of it runs, its output is what the disk has."""
    limit: int = values["log_limit_bytes"]
    log = LogWriter(directory, limit_bytes=limit)
    log.layout.segments = LogReader(directory).segments()
    log.layout.end = max(values["end"], log.layout.segments[-1].end if log.layout.segments else 0)
    return Running(
        id=command_id,
        operation=values["operation"],
        spec=CommandSpec(argv=tuple(values["argv"]), cwd=values["cwd"], log_limit_bytes=limit),
        started_at=values["started_at"],
        output=OutputPump.finished(log),
        stdin=StdinFeed.finished(values["stdin_accepted"]),
        ended_at=values["ended_at"],
        ending=values["ending"],
        size=None if values["size"] is None else TerminalSize(columns=values["size"][0], rows=values["size"][1]),
    )


def limit_reached(limit: LimitKind) -> Record:
    return {"kind": "limit_exceeded", "limit": limit.value}


def confinement_of(config: HolderConfig) -> Confinement:
    """What the kernel itself holds commands to, below the watch, which ends them for it."""
    limits = config.limits
    wanted = {
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_size_bytes,
        # Counts all processes of the user: of use only where they all are this workspace's. The holder has no such limit.
        resource.RLIMIT_NPROC: limits.processes + OWN_PROCESSES
        if limits.processes is not None and config.own_processes
        else None,
    }
    return Confinement(
        rlimits={number: value for number, value in wanted.items() if value is not None},
        cgroup_fds=config.cgroup_fds,
        cpus=config.cpus,
    )


def ending_of(status: int) -> Record:
    """What a status of waitpid's means."""
    if os.WIFSIGNALED(status):
        return {"kind": "signalled", "signal": os.WTERMSIG(status)}
    return {"kind": "exited", "code": os.WEXITSTATUS(status)}


def spawn_error(number: int, what: str, spec: CommandSpec) -> ShadowError:
    """The error for an errno of the start; ``what`` is ``program`` or ``directory``."""
    name = spec.cwd if what == "directory" else spec.argv[0]
    reason = os.strerror(number)
    details: dict[str, object] = {"errno": number, what: name}
    if number in {errno.ENOENT, errno.ENOTDIR}:
        kind = "working directory" if what == "directory" else "program"
        return NotFound(f"There is no {kind} {name!r}.", details=details)
    if number in {errno.EACCES, errno.EPERM}:
        return Denied(f"{name!r} cannot be executed: {reason}.", details=details)
    if number == errno.E2BIG:
        return Rejected(
            "The arguments and the environment are too large together.", mend="Use a file or stdin.", details=details
        )
    if number in {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
        return LimitExceeded(f"The workspace cannot start another process: {reason}.", details=details)
    return Rejected(f"{name!r} cannot be executed: {reason}.", details=details)
