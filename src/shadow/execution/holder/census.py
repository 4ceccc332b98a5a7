"""Who is there and what they use, by one pass over /proc: cheap enough to be repeated while commands run."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from shadow.core.limits import Activity, TreeSize, Usage

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    parent: int
    threads: int
    resident_bytes: int
    system_ticks: int
    """With those of its children that it has waited for."""


def take_census() -> dict[int, Process]:
    """Every process that /proc shows, zombies too. Who comes or goes meanwhile may be missed."""
    found: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    data = file.read()
                fields = data[data.rindex(b")") + 2 :].split()  # the name before may hold anything
                found[int(name)] = Process(
                    parent=int(fields[1]),
                    threads=max(1, int(fields[17])),
                    resident_bytes=int(fields[21]) * PAGE_BYTES,
                    system_ticks=int(fields[12]) + int(fields[14]),
                )
    return found


def trees(census: Mapping[int, Process], roots: Mapping[str, int]) -> dict[str, list[int]]:
    """For each name the pids below its root, which itself is not among them."""
    children: dict[int, list[int]] = {}
    for pid, process in census.items():
        children.setdefault(process.parent, []).append(pid)
    found: dict[str, list[int]] = {}
    for name, root in roots.items():
        below: list[int] = []
        pending = list(children.get(root, ()))
        while pending:
            pid = pending.pop()
            below.append(pid)
            pending += children.get(pid, ())
        found[name] = below
    return found


def usages(census: Mapping[int, Process], members: Mapping[str, Iterable[int]], *, exact: bool) -> dict[str, Usage]:
    """``exact``: memory that several share is divided among them, which costs a walk through each one's page tables."""
    found: dict[str, Usage] = {}
    for name, pids in members.items():
        memory = shared = processes = 0
        for pid in pids:
            process = census[pid]
            resident = (process.resident_bytes, 0)
            private, common = _proportional_bytes(pid, resident) if exact and process.resident_bytes else resident
            memory += private + common
            shared += common
            processes += process.threads
        found[name] = Usage(memory_bytes=memory, processes=processes, shared_bytes=shared)
    return found


def activities(census: Mapping[int, Process], members: Mapping[str, Iterable[int]]) -> dict[str, Activity]:
    found: dict[str, Activity] = {}
    for name, pids in members.items():
        listed = list(pids)
        found[name] = Activity(
            written_bytes=sum(map(_written_bytes, listed)),
            system_ticks=sum(census[pid].system_ticks for pid in listed),
        )
    return found


def files_in_memory(places: Iterable[str]) -> TreeSize:
    """What file systems in memory hold."""
    size_bytes = files = 0
    for place in places:
        room = os.statvfs(place)
        size_bytes += (room.f_blocks - room.f_bfree) * room.f_frsize
        files += room.f_files - room.f_ffree
    return TreeSize(size_bytes=size_bytes, files=files)


def _proportional_bytes(pid: int, otherwise: tuple[int, int]) -> tuple[int, int]:
    """Private memory, and its share of shared memory; without mapped files, which the kernel can drop."""
    private = shared = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss_Anon:"):
                    private = int(line.split()[1]) * 1024
                elif line.startswith(b"Pss_Shmem:"):
                    shared = int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    except PermissionError:  # it hides from its neighbours
        return otherwise
    return private, shared


def _written_bytes(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError), open(f"/proc/{pid}/io", "rb") as file:
        for line in file:
            if line.startswith(b"wchar:"):
                return int(line.split()[1])
    return 0
