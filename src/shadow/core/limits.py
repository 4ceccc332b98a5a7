"""Limits of a workspace: what they are, which one was reached, and by whom. No I/O, no clock."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from shadow.core.errors import Rejected

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


class LimitKind(StrEnum):
    """The limits whose reaching ends a command. Too much CPU only makes it slow; too many open files it hears of itself."""

    MEMORY = "memory"
    PROCESSES = "processes"
    FILE_SIZE = "file_size"
    WORKSPACE_BYTES = "workspace_bytes"
    WORKSPACE_FILES = "workspace_files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What all commands of a workspace may use together, where nothing else is said; ``None``: as much as the host gives."""

    memory_bytes: int | None = None
    """Without page cache; files in memory (/tmp, /dev/shm, the home directory) take at most half of it."""
    processes: int | None = None
    """Processes and threads, zombies too."""
    cpus: float | None = None
    """CPU seconds per second."""
    open_files: int | None = None
    """For each process."""
    file_size_bytes: int | None = None
    """For each file that a command or the executor writes."""
    workspace_bytes: int | None = None
    """What the checkout takes on disk."""
    workspace_files: int | None = None
    """Files and directories of the checkout."""
    command_time_s: float | None = None
    """For each command that has no timeout of its own."""

    def over(self, defaults: "Limits") -> "Limits":
        """These, with ``defaults`` where they say nothing."""
        return Limits(**{name: getattr(defaults if own is None else self, name) for name, own in self.pairs()})

    def pairs(self) -> list[tuple[str, int | float | None]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


SMALLEST: Mapping[str, float] = {
    "memory_bytes": 16 * 1024**2,
    "processes": 8,
    "cpus": 0.01,
    "open_files": 64,
    "file_size_bytes": 64 * 1024,
    "workspace_bytes": 64 * 1024,
    "workspace_files": 8,
    "command_time_s": 0.001,
}
"""Below these no command could run."""


def check_limits(limits: Limits) -> None:
    """Raises: Rejected: with the first limit that no command could live with."""
    for name, value in limits.pairs():
        if value is not None and not SMALLEST[name] <= value < 2**62:  # also for what is not a number
            raise Rejected(f"The limit {name} must be at least {SMALLEST[name]:g}, not {value}.")


def limits_from(values: Mapping[str, object]) -> Limits:
    """From names and numbers, as a file or a message has them; unknown names are skipped. Raises: TypeError, ValueError."""
    known: dict[str, float | int] = {}
    for name, _ in Limits().pairs():
        value = values.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise TypeError(f"the limit {name!r} is not a number above 0")
        known[name] = float(value) if name in {"cpus", "command_time_s"} else int(value)
    return Limits(**known)  # pyright: ignore[reportArgumentType]


def parse_bytes(text: str) -> int:
    """Bytes from ``4g``, ``512m``, ``1.5G``, ``64k`` or a plain number; units are powers of 1024. Raises: ValueError."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise ValueError("write a number of bytes, or one with k, m, g or t: 512m, 4g")
    return int(float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the tree of one command uses at a moment."""

    memory_bytes: int
    processes: int
    shared_bytes: int = 0
    """How much of the memory is shared: those pages may be mapped files in memory."""


def reached(limits: Limits, usages: Mapping[str, Usage], *, files_bytes: int) -> tuple[LimitKind, str] | None:
    """The limit that is exceeded, and the command to end for it: the one that weighs most.

    ``files_bytes``: files in memory; what of them is mapped is counted once.
    """
    if not usages:
        return None
    if limits.processes is not None and sum(u.processes for u in usages.values()) > limits.processes:
        return LimitKind.PROCESSES, max(usages, key=lambda name: usages[name].processes)
    if limits.memory_bytes is not None:
        unmapped = max(0, files_bytes - sum(u.shared_bytes for u in usages.values()))
        total = unmapped + sum(u.memory_bytes for u in usages.values())
        if total > limits.memory_bytes:
            return LimitKind.MEMORY, max(usages, key=lambda name: usages[name].memory_bytes)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSize:
    """What a directory tree takes."""

    size_bytes: int
    files: int


def exceeded_by(limits: Limits, size: TreeSize) -> LimitKind | None:
    """Which limit of the checkout it exceeds."""
    if limits.workspace_bytes is not None and size.size_bytes > limits.workspace_bytes:
        return LimitKind.WORKSPACE_BYTES
    if limits.workspace_files is not None and size.files > limits.workspace_files:
        return LimitKind.WORKSPACE_FILES
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What the tree of one command has done up to a moment."""

    written_bytes: int = 0
    """By system calls, wherever to."""
    system_ticks: int = 0
    """CPU time in the kernel."""

    def since(self, earlier: "Activity") -> "Activity":
        return Activity(
            written_bytes=max(0, self.written_bytes - earlier.written_bytes),
            system_ticks=max(0, self.system_ticks - earlier.system_ticks),
        )


def grower(kind: LimitKind, activities: Mapping[str, Activity], *, unless_below_bytes: int = 0) -> str | None:
    """The command that most likely made the checkout grow; ``None`` where none did anything.

    ``unless_below_bytes``: somebody else wrote too, so that only who wrote this much is to blame.
    """

    def weight(name: str) -> tuple[int, int]:
        done = activities[name]
        both = (done.written_bytes, done.system_ticks)
        return both if kind is LimitKind.WORKSPACE_BYTES else (both[1], both[0])

    if not activities:
        return None
    most = max(activities, key=weight)
    idle = weight(most) == (0, 0)
    return None if idle or activities[most].written_bytes < unless_below_bytes else most
