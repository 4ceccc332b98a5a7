"""End a workspace's processes and take down its directory. Safe to repeat, to interrupt and to do twice at once."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM

from shadow.core.errors import Broken, NotFound, Unavailable
from shadow.core.ids import WorkspaceId
from shadow.execution.local.cgroups import remove_groups
from shadow.execution.local.directory import (
    ALIVE,
    LOCK,
    PROXYING,
    REMOVED_LAST,
    REMOVING,
    WorkspaceDirectory,
    Workspaces,
)
from shadow.execution.local.failures import typed_failures
from shadow.execution.local.launcher import LOCK_FD
from shadow.execution.local.manifest import PROXY, read_holder
from shadow.execution.local.process import ProcessHandle, first_processes_with, is_alive, is_first_of_namespace
from shadow.execution.local.removal import remove_tree
from shadow.execution.local.uids import UidLeases
from shadow.storage.locks import lock, try_lock

GRACE_S = 12.0
"""For a holder without a pid namespace to end its commands one by one."""
_KILL_S = 30.0
_STARTS_WITHIN_S = 60.0
_PROXY_GRACE_S = 3.0
"""For an egress proxy to write down what it has counted, once the holder is gone."""
_REMOVAL_S = 3600.0
_POLL_S = 0.005


async def end_and_remove(workspaces: Workspaces, workspace_id: WorkspaceId, uids: UidLeases | None) -> None:
    """For a directory that is hidden already. Returns when nothing is left. Raises: Unavailable: a process is still there."""
    with typed_failures("Removing the workspace"):
        directory = workspaces.open_removed(workspace_id)
        if directory is None:
            return
        with directory:
            try:
                fd = directory.open_lock()
            except FileNotFoundError:  # somebody else was quicker
                return
            try:
                await lock(fd, REMOVING, timeout_s=_REMOVAL_S)
                await _end_processes(directory, fd)
                await asyncio.to_thread(remove_groups, workspace_id)
                await asyncio.to_thread(remove_directory, directory.path)
            finally:
                os.close(fd)
        if uids is not None:
            await uids.release(workspaces.path / workspace_id)


async def end_processes(directory: WorkspaceDirectory) -> None:
    """Leaves the directory as it is: whoever attaches starts it again. One that is being started comes up first.

    Raises: NotFound: it was destroyed meanwhile. Unavailable: a process is still there.
    """
    with typed_failures("Ending the workspace's processes"):
        fd = directory.open_lock()
        try:
            with suppress(TimeoutError):  # what is left is killed below
                async with asyncio.timeout(_STARTS_WITHIN_S):
                    await _end_ready_holders(directory, fd)
            await _wait_for_proxy(directory)
            await _end_processes(directory, fd)
            if not directory.is_current():
                raise NotFound(f"The workspace {directory.id} was destroyed.")
            await asyncio.to_thread(remove_groups, directory.id)
        finally:
            os.close(fd)


async def end_half_started(directory: WorkspaceDirectory) -> None:
    """The holder of a starter that died before it was done, which nobody will ever use; never any other."""
    with typed_failures("Ending a workspace that was half started"):
        await _end_holder(directory, ready_too=False)


async def _end_ready_holders(directory: WorkspaceDirectory, lock_fd: int) -> None:
    """Until the ALIVE lock is ours: nobody can start then."""
    while not try_lock(lock_fd, ALIVE):
        await _end_holder(directory, ready_too=True)
        await asyncio.sleep(_POLL_S)


async def _end_holder(directory: WorkspaceDirectory, *, ready_too: bool) -> None:
    """Unless somebody is about to start it."""
    holder = read_holder(directory.fd)
    manifest = directory.manifest()
    # Read after the holder: what it says, it says of that one, or of one that came later.
    may_end = ready_too if manifest.ready else not is_alive(manifest.starter)
    handle = ProcessHandle.open(holder) if holder is not None and may_end else None
    if handle is not None:
        with handle:
            await _end(handle, gently=not is_first_of_namespace(handle.pid))


async def _wait_for_proxy(directory: WorkspaceDirectory) -> None:
    """It ends with the holder, by itself."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_PROXY_GRACE_S):
            while directory.is_held(PROXYING):  # noqa: ASYNC110 - the kernel tells nobody when a lock becomes free
                await asyncio.sleep(_POLL_S)


def remove_directory(path: Path) -> None:
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent, path.name, last=REMOVED_LAST)
    finally:
        os.close(parent)


async def _end_processes(directory: WorkspaceDirectory, lock_fd: int) -> None:
    """Until the ALIVE and PROXYING locks are ours: then nobody lives in it, and nobody can start."""
    try:
        async with asyncio.timeout(_KILL_S + GRACE_S):
            while True:
                # Read each time: somebody may be starting it right now.
                holder = read_holder(directory.fd)
                handle = None if holder is None else ProcessHandle.open(holder)
                if handle is not None:
                    with handle:
                        await _end(handle, gently=not is_first_of_namespace(handle.pid))
                proxy = read_holder(directory.fd, name=PROXY)
                handle = None if proxy is None else ProcessHandle.open(proxy)
                if handle is not None:  # it would end with the holder, by itself
                    with handle:
                        await _end(handle, gently=False)
                if try_lock(lock_fd, ALIVE) and try_lock(lock_fd, PROXYING):
                    return
                if holder is None:
                    _kill_half_started(directory)
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Unavailable(
            f"The processes of {directory.path} could not be ended.",
            mend="Try again. What is left ends with the workspace's lease.",
        ) from error


def _kill_half_started(directory: WorkspaceDirectory) -> None:
    """A starter that was killed with the sandbox half made may leave a first process that no record names."""
    with suppress(NotFound, Broken):  # then nobody knows who started it: in doubt, wait
        if is_alive(directory.manifest().starter):
            return
        file = os.stat(LOCK, dir_fd=directory.fd, follow_symlinks=False)
        for identity in first_processes_with(LOCK_FD, device=file.st_dev, inode=file.st_ino):
            handle = ProcessHandle.open(identity)
            if handle is not None:
                with handle:
                    handle.send(SIGKILL)


async def _end(handle: ProcessHandle, *, gently: bool) -> None:
    if gently:
        handle.send(SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await handle.wait()
                return
    handle.send(SIGKILL)
    await handle.wait()
