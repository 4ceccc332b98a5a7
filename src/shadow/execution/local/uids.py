"""Leases of uids: as root, each sandbox runs under a uid that nobody else on the host has.

A lease is a file named like the uid that holds the path of the workspace's directory. It is taken after the directory was made
and given back after that was removed, so a lease whose directory is gone was left by a crash and may be taken again, once no
process runs under the uid. All processes of the host share one place for leases, whatever their data directories.
"""

import grp
import os
import pwd
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shadow.core.errors import Conflict, LimitExceeded, SettingsRefused
from shadow.execution.local.failures import typed_failures
from shadow.storage.locks import held

UID_LEASES_DIRECTORY = Path("/var/lib/shadow/uids")
DEFAULT_UIDS = (range(1_900_000_000, 1_900_010_000), range(60_578, 61_184))
"""Ranges that distributions, systemd and subordinate uids leave free; the second for containers with few mapped uids."""

MappedRanges = Sequence[tuple[int, int]]
"""First and one past the last."""


def mapped_ranges(map_file: str = "/proc/self/uid_map") -> MappedRanges:
    rows = [
        [int(number) for number in line.split()] for line in Path(map_file).read_text(encoding="ascii").splitlines()
    ]
    return [(first, first + count) for first, _, count in rows]


def is_mapped(uids: range, mapped: MappedRanges) -> bool:
    return any(first <= uids.start and uids.stop <= end for first, end in mapped)


def choose_uids(asked: range | None) -> range:
    """The range to lease from. Raises: SettingsRefused: the user namespace that we are in does not have it."""
    maps = [mapped_ranges("/proc/self/uid_map"), mapped_ranges("/proc/self/gid_map")]
    for uids in DEFAULT_UIDS if asked is None else (asked,):
        if len(uids) > 0 and uids.step == 1 and uids.start > 0 and all(is_mapped(uids, mapped) for mapped in maps):
            return uids
    tried = "the default ranges" if asked is None else f"{asked.start}-{asked.stop - 1}"
    raise SettingsRefused(
        f"The uids for sandboxes ({tried}) do not exist here: /proc/self/uid_map lacks them.",
        mend="Set a range of uids that is mapped, above 0 and used by nobody, or run Shadow as an ordinary user.",
    )


class UidLeases:
    """``uids``: the range to lease from; ``None``: one that is free on most hosts."""

    def __init__(self, uids: range | None, *, directory: Path = UID_LEASES_DIRECTORY) -> None:
        self._asked = uids
        self._directory = directory

    async def take(self, owner: Path) -> int:
        """A uid for the workspace in ``owner``. Raises: LimitExceeded: all are taken. SettingsRefused: they do not exist."""
        uids = choose_uids(self._asked)
        with typed_failures(f"Keeping leases of uids in {self._directory}"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with held(self._directory / ".lock"):
                taken = {int(entry) for entry in os.listdir(self._directory) if entry.isdigit()}
                for uid in uids:
                    if uid not in taken and not _has_name(uid):
                        self._write(uid, owner)
                        return uid
                for uid in uids:
                    if uid in taken and self._is_stale(uid):
                        self._write(uid, owner)
                        return uid
        raise LimitExceeded(
            f"All {len(uids)} uids for sandboxes are taken.", mend="Destroy workspaces, or set a larger range."
        )

    async def keep(self, uid: int, owner: Path) -> None:
        """Make sure that ``owner`` still has ``uid``. Raises: Conflict: somebody else has it."""
        with typed_failures(f"Keeping leases of uids in {self._directory}"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with held(self._directory / ".lock"):
                if self._owner(uid) == str(owner):
                    return
                if (self._directory / str(uid)).exists() and not self._is_stale(uid):
                    raise Conflict(
                        f"The uid {uid} of this workspace now belongs to {self._owner(uid)}.",
                        mend="Destroy one of the two workspaces.",
                    )
                self._write(uid, owner)

    async def release(self, owner: Path) -> None:
        """Give back whatever ``owner`` has. Its directory must be gone."""
        if not self._directory.is_dir():
            return
        with typed_failures(f"Keeping leases of uids in {self._directory}"):
            async with held(self._directory / ".lock"):
                for entry in os.listdir(self._directory):
                    if entry.isdigit() and self._owner(int(entry)) == str(owner):
                        with suppress(FileNotFoundError):
                            (self._directory / entry).unlink()

    def _owner(self, uid: int) -> str:
        """Empty where there is no lease, or one that was cut short while it was written."""
        try:
            return os.fsdecode((self._directory / str(uid)).read_bytes())
        except FileNotFoundError:
            return ""

    def _write(self, uid: int, owner: Path) -> None:
        (self._directory / str(uid)).write_bytes(os.fsencode(owner))

    def _is_stale(self, uid: int) -> bool:
        owner = self._owner(uid)
        directories = [Path(owner), removed_name(Path(owner))] if owner else []
        return not any(os.path.lexists(directory) for directory in directories) and not _runs_under(uid)


def removed_name(workspace: Path) -> Path:
    """What a workspace's directory is called while it is removed."""
    return workspace.with_name(f".removed-{workspace.name}")


def _has_name(uid: int) -> bool:
    with suppress(KeyError):
        pwd.getpwuid(uid)
        return True
    with suppress(KeyError):
        grp.getgrgid(uid)
        return True
    return False


def _runs_under(uid: int) -> bool:
    """Whether a process has ``uid`` as any of its four. Read from status: the owner of /proc/PID hides it at times."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in Path("/proc", entry, "status").read_bytes().splitlines():
                if line.startswith(b"Uid:") and str(uid).encode() in line.split()[1:]:
                    return True
    return False
