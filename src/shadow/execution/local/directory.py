"""Where local workspaces lie: ``DATA_DIR/workspaces/ID/`` and what is in there.

    manifest.json   what every process has to know       holder.json   which process is the first one inside
    proxy.json      which one is the egress proxy
    lock            byte 0: somebody lives in here       sidecar.sock  bound outside, never visible inside
    files/          the checkout                         state/        journal and byte logs
    egress/         of the egress proxy: its events, counters and identity, and the socket for the control plane
    door/           where it listens: all that the inside sees of it
    home/, tmp/     only without a sandbox, which has its own in memory

A directory appears under its name with its manifest, and disappears from it before anything in it is taken down: names that
begin with a dot are on their way in or out, and nobody's workspace.
"""

import os
import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from shadow.core.errors import Broken, Denied, NotFound
from shadow.core.ids import WorkspaceId, is_id
from shadow.execution.local.failures import typed_failures
from shadow.execution.local.manifest import HOLDER, MANIFEST, PROXY, Manifest, read_manifest, write_manifest
from shadow.execution.local.uids import removed_name
from shadow.storage.locks import held, is_locked, lock, open_lock

FILES, STATE, HOME, TEMPORARY = "files", "state", "home", "tmp"
EGRESS, DOOR = "egress", "door"
SOCKET = "sidecar.sock"
LOCK = "lock"
ALIVE, CHANGES, REMOVING, PROXYING = 0, 1, 2, 3
"""Bytes of the lock: kept by the holder for as long as it lives; by who changes the manifest; by who takes the directory down;
by the egress proxy for as long as it lives."""
REMOVED_LAST = (HOLDER, PROXY, MANIFEST, LOCK)
_NEW = ".new-"
_REMOVED = ".removed-"


class WorkspaceDirectory:
    """One workspace's directory, held open: it stays the same one whatever its path comes to mean."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.id = path.name.removeprefix(_REMOVED)

    def __enter__(self) -> "WorkspaceDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def is_current(self) -> bool:
        """Whether it still lies under its name: not removed meanwhile."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        here = os.fstat(self.fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def manifest(self) -> Manifest:
        """Raises: NotFound, Broken."""
        manifest = read_manifest(self.fd)
        if manifest.id != self.id:
            raise Broken(f"The workspace's manifest is that of {manifest.id}.", mend="Destroy the workspace.")
        return manifest

    def open_lock(self) -> int:
        return open_lock(LOCK, directory_fd=self.fd)

    def is_alive(self) -> bool:
        """Whether somebody lives in it, or is about to start it."""
        return self.is_held(ALIVE)

    def is_held(self, byte: int) -> bool:
        try:
            fd = os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        try:
            return is_locked(fd, byte)
        finally:
            os.close(fd)

    async def change(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Rewrite the manifest while nobody else does. Raises: NotFound, Broken, LimitExceeded (disk full)."""
        with typed_failures("Writing the workspace's manifest"):
            fd = self.open_lock()
            try:
                await lock(fd, CHANGES)
                manifest = change(self.manifest())
                if not self.is_current():
                    raise NotFound(f"The workspace {manifest.id} was destroyed.")
                write_manifest(self.fd, manifest)
            finally:
                os.close(fd)
        return manifest


class Workspaces:
    """All workspaces of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir.absolute() / "workspaces"

    def prepare(self) -> None:
        """Raises: Denied: it cannot be made, or is somebody else's."""
        with typed_failures("Making the data directory"):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.path.stat()
            if info.st_uid != os.geteuid():
                raise Denied(
                    f"{self.path} belongs to another user (uid {info.st_uid}).",
                    mend="Choose a data directory of your own, or run as that user.",
                )
            if info.st_mode & 0o077:
                self.path.chmod(0o700)

    def present(self) -> Sequence[WorkspaceId]:
        return [WorkspaceId(name) for name in self._names() if is_id(name)]

    def being_removed(self) -> Sequence[WorkspaceId]:
        """Left by whoever did not come to the end of it, or being worked on right now."""
        names = [name.removeprefix(_REMOVED) for name in self._names() if name.startswith(_REMOVED)]
        return [WorkspaceId(name) for name in names if is_id(name)]

    def half_made(self) -> Sequence[Path]:
        return [self.path / name for name in self._names() if name.startswith(_NEW)]

    def _names(self) -> Sequence[str]:
        with typed_failures("Reading the data directory"):
            try:
                with os.scandir(self.path) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []

    def open(self, workspace_id: str) -> WorkspaceDirectory:
        """Raises: NotFound."""
        if not is_id(workspace_id):
            raise NotFound(f"{workspace_id[:80]!r} cannot be the id of a workspace.")
        path = self.path / workspace_id
        found = self._open(path)
        if found is None:
            raise NotFound(
                f"There is no workspace {workspace_id}.", mend="'shadow workspace list' shows those there are."
            )
        return found

    def open_removed(self, workspace_id: WorkspaceId) -> WorkspaceDirectory | None:
        return self._open(removed_name(self.path / workspace_id))

    def _open(self, path: Path) -> WorkspaceDirectory | None:
        with typed_failures("Opening the workspace"):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
        return WorkspaceDirectory(path, fd)

    @asynccontextmanager
    async def making(self) -> AsyncGenerator[None]:
        """Nobody else makes a directory meanwhile: what is half made now was left by a crash."""
        with typed_failures("Using the data directory"):
            async with held(self.path / ".lock"):
                yield

    def make(self, manifest: Manifest, *, directories: Sequence[str]) -> None:
        """A new workspace's directory, complete with its manifest, at once or not at all. Call within ``making``."""
        new = self.path / f"{_NEW}{manifest.id}"
        new.mkdir(mode=0o700)
        try:
            for name in directories:
                (new / name).mkdir(mode=0o755 if name in (FILES, DOOR) else 0o700)
            fd = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.close(open_lock(LOCK, directory_fd=fd))
                write_manifest(fd, manifest)
            finally:
                os.close(fd)
            new.rename(self.path / manifest.id)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)  # nobody else has been in it; what stays is left to the reaper
            raise

    def hide(self, workspace_id: WorkspaceId) -> bool:
        """Take the directory from its name, for removal. ``False`` where it is not there."""
        path = self.path / workspace_id
        try:
            path.rename(removed_name(path))
        except FileNotFoundError:
            return False
        return True
