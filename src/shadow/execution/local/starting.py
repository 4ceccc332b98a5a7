"""Bring a workspace's processes up in its directory: socket, sandbox, holder, first answer."""

import asyncio
import math
import os
import socket
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from zlib import crc32

from shadow.core.errors import Broken, Unsupported
from shadow.core.limits import Limits
from shadow.core.workspaces import Capabilities, Isolation
from shadow.execution.holder.config import HolderConfig, holder_argv, sidecar_argv
from shadow.execution.interface import ToolExecutor
from shadow.execution.local import launcher
from shadow.execution.local.cgroups import Cgroups, Mechanism, find_cgroups, groups, make_groups, settings
from shadow.execution.local.directory import DOOR, EGRESS, FILES, HOME, SOCKET, STATE, TEMPORARY, WorkspaceDirectory
from shadow.execution.local.failures import host_limits, launch_failure, typed_failures
from shadow.execution.local.host_facts import find_bwraps, read_host, stage_directory, tool_directories
from shadow.execution.local.launch import GroupPlan, Launched, LaunchPlan, launch
from shadow.execution.local.manifest import Manifest, write_holder
from shadow.execution.local.sandbox import EGRESS as SANDBOX_EGRESS
from shadow.execution.local.sandbox import (
    EGRESS_PORT,
    EGRESS_SOCKET,
    FILES_IN_MEMORY,
    WORKSPACE,
    Bwrap,
    Host,
    Sandbox,
    base_env,
    bwrap_argv,
    proxy_env,
    sandbox_data,
    staged_sources,
)
from shadow.execution.local.sandbox import HOME as SANDBOX_HOME
from shadow.execution.local.sandbox import STATE as SANDBOX_STATE
from shadow.execution.local.seccomp import assemble
from shadow.execution.local.uids import UidLeases
from shadow.execution.sidecar_client.breaker import Breaker
from shadow.execution.sidecar_client.retries import Resilience

START_TIMEOUT_S = 30.0
_BACKLOG = 512


def directories(isolation: Isolation) -> Sequence[str]:
    """What a workspace's directory holds from the beginning."""
    return (FILES, STATE, EGRESS, DOOR) if isolation is Isolation.SANDBOX else (FILES, STATE, HOME, TEMPORARY)


def connect(
    directory: WorkspaceDirectory,
    manifest: Manifest,
    capabilities: Capabilities,
    resilience: Resilience | None = None,
    breaker: Breaker | None = None,
) -> ToolExecutor:
    """An executor that speaks to the workspace's sidecar. Nothing is sent yet. ``breaker``: a shared one."""
    from shadow.execution.sidecar_client.client import SidecarClient  # its HTTP library takes 0.2 s to import
    from shadow.execution.sidecar_client.endpoint import TcpEndpoint, UnixEndpoint

    endpoint = (
        UnixEndpoint(directory.path / SOCKET)
        if manifest.tcp_port is None
        else TcpEndpoint(host="127.0.0.1", port=manifest.tcp_port)
    )
    return SidecarClient(
        endpoint,
        token=manifest.token,
        capabilities=capabilities,
        epoch=manifest.epoch,
        resilience=resilience,
        breaker=breaker,
    )


class Starter:
    """Starts workspaces' processes. Facts of the host are read once."""

    def __init__(
        self, *, toolchain_paths: Sequence[Path], uids: UidLeases | None, tcp: bool, bwraps: Sequence[Bwrap] | None
    ) -> None:
        """``uids``: where sandboxes get a uid of their own; ``None``: they run under ours."""
        self._toolchain_paths = tuple(toolchain_paths)
        self._uids = uids
        self._tcp = tcp
        self._host: Host | None = None
        self._bwraps = tuple(bwraps or ())
        self._cgroups: tuple[Cgroups | None] | None = None
        """What was found, once somebody has looked."""

    def check(self, isolation: Isolation) -> None:
        """Raises: Unsupported, SettingsRefused: what can be known before anything is made."""
        if isolation is Isolation.SANDBOX:
            assemble(os.uname().machine)
            self._host = self._host or read_host(self._toolchain_paths)
            self._bwraps = self._bwraps or find_bwraps()

    async def start(
        self,
        directory: WorkspaceDirectory,
        manifest: Manifest,
        *,
        lease_s: float,
        lock_fd: int,
        capabilities: Capabilities,
    ) -> Manifest:
        """Start the holder and wait until its sidecar answers. ``lock_fd`` has the directory's ALIVE lock.

        Returns the manifest with what is now true; the caller writes it. What failed leaves no process.
        Raises: Unsupported, LimitExceeded, Denied, Conflict, SettingsRefused, Broken.
        """
        self.check(manifest.isolation)
        with typed_failures("Starting the workspace"):
            manifest = replace(manifest, uid=await self._leased_uid(directory, manifest))
            with listening_socket(directory, tcp=self._tcp) as listener:
                manifest = replace(manifest, tcp_port=listener.getsockname()[1] if self._tcp else None)
                cgroups = await self._group_plan(manifest)
                config = self._config(directory, manifest, lease_s, cgroups).to_json()
                descriptors = (lock_fd, listener.fileno())
                await self._first_that_works(directory, manifest, config, descriptors, cgroups, capabilities)
        return manifest

    async def _first_that_works(
        self,
        directory: WorkspaceDirectory,
        manifest: Manifest,
        config: bytes,
        descriptors: tuple[int, int],
        cgroups: GroupPlan,
        capabilities: Capabilities,
    ) -> None:
        """Another bubblewrap may be allowed what one is not: AppArmor goes by the program's path."""
        first_failure: Unsupported | None = None
        for bwrap in self._bwraps if manifest.isolation is Isolation.SANDBOX else (None,):
            plan = self.plan(directory, holder_argv(), uid=manifest.uid, bwrap=bwrap, limits=manifest.limits)
            plan = replace(plan, cgroups=cgroups)
            try:
                async with first_process(directory, plan, config=config, descriptors=descriptors) as process:
                    await _first_answer(process, connect(directory, manifest, capabilities))
            except Unsupported as error:
                first_failure = first_failure or error
            else:
                self._bwraps = tuple(sorted(self._bwraps, key=lambda other: other != bwrap))
                return
        assert first_failure is not None
        raise first_failure

    def plan(
        self,
        directory: WorkspaceDirectory,
        argv: Sequence[str],
        *,
        uid: int | None,
        bwrap: Bwrap | None,
        limits: Limits,
    ) -> LaunchPlan:
        """``bwrap``: the bubblewrap that makes the sandbox; ``None``: no wall."""
        if bwrap is None:
            return LaunchPlan(argv=argv, announce=True)
        assert self._host is not None
        sandbox = Sandbox(
            bwrap=bwrap,
            host=self._host,
            files=str(directory.path / FILES),
            state=str(directory.path / STATE),
            egress=str(directory.path / DOOR),
            command=argv,
            memory_bytes=limits.memory_bytes,
        )
        stage_dir = None if uid is None else stage_directory()
        return LaunchPlan(
            argv=bwrap_argv(sandbox, stage_dir=stage_dir),
            data=sandbox_data(assemble(os.uname().machine)),
            announce=False,
            uid=uid,
            stage_dir=stage_dir,
            stage=staged_sources(sandbox),
        )

    async def _leased_uid(self, directory: WorkspaceDirectory, manifest: Manifest) -> int | None:
        if self._uids is None or manifest.isolation is not Isolation.SANDBOX:
            return None
        if manifest.uid is not None:
            await self._uids.keep(manifest.uid, directory.path)
            return manifest.uid
        uid = await self._uids.take(directory.path)
        for name in (FILES, STATE):
            os.chown(name, uid, uid, dir_fd=directory.fd, follow_symlinks=False)
        return uid

    async def _group_plan(self, manifest: Manifest) -> GroupPlan:
        """Control groups for its commands, made where that can be done beforehand."""
        limits = manifest.limits
        if limits.memory_bytes is None and limits.processes is None and limits.cpus is None:
            return GroupPlan()
        if self._cgroups is None:
            self._cgroups = (await asyncio.to_thread(find_cgroups),)
        found = self._cgroups[0]
        if found is None:
            return GroupPlan()
        if found.mechanism is Mechanism.SCOPE:
            return GroupPlan(scope=settings(limits, version=2), root=str(found.roots[""]))
        version = 2 if found.mechanism is Mechanism.V2 else 1
        places = groups(found, manifest.id)
        make_groups(places, limits, version=version)
        oom = "memory.events" if version == 2 else "memory.oom_control"
        return GroupPlan(
            procs=[f"{path}/cgroup.procs" for path in dict.fromkeys(places.values())],
            oom=f"{places['memory']}/{oom}" if "memory" in places else None,
            limits_cpu="cpu" in places,
        )

    def _config(
        self, directory: WorkspaceDirectory, manifest: Manifest, lease_s: float, cgroups: GroupPlan
    ) -> HolderConfig:
        tools = tool_directories(self._toolchain_paths)
        sandboxed = manifest.isolation is Isolation.SANDBOX
        if sandboxed:
            root, state, home, temporary = WORKSPACE, SANDBOX_STATE, SANDBOX_HOME, "/tmp"
        else:
            root, state, home, temporary = (str(directory.path / name) for name in (FILES, STATE, HOME, TEMPORARY))
        env = base_env(home=home, temporary=temporary, tool_directories=tools, last=f"{sys.base_prefix}/bin")
        walled = manifest.isolation is Isolation.SANDBOX
        return HolderConfig(
            workspace_id=manifest.id,
            root=root,
            state_dir=state,
            token=manifest.token,
            isolation=manifest.isolation.value,
            lease_s=lease_s,
            epoch=manifest.epoch,
            base_env={**env, **(proxy_env() if walled else {}), **manifest.env},
            listen_fd=launcher.LISTEN_FD,
            lock_fd=launcher.LOCK_FD,
            limits=manifest.limits,
            own_processes=sandboxed,
            files_in_memory=tuple(FILES_IN_MEMORY) if sandboxed else (),
            cgroup_fds=tuple(range(launcher.CGROUP_FD, launcher.CGROUP_FD + cgroups.count)),
            oom_fd=launcher.OOM_FD,
            cpus=() if cgroups.limits_cpu else chosen_cpus(manifest.limits.cpus, manifest.id),
            sidecar_argv=sidecar_argv(),
            sidecar_env=env,
            egress_port=EGRESS_PORT if walled else None,
            egress_socket=f"{SANDBOX_EGRESS}/{EGRESS_SOCKET}",
        )


def chosen_cpus(cpus: float | None, workspace_id: str) -> tuple[int, ...]:
    """So many CPUs, whole ones, that workspaces spread over all; the same ones for one workspace. None where all are wanted."""
    available = sorted(os.sched_getaffinity(0))
    if cpus is None or cpus >= len(available):
        return ()
    first = crc32(workspace_id.encode())
    return tuple(available[(first + i) % len(available)] for i in range(math.ceil(cpus)))


@contextmanager
def listening_socket(directory: WorkspaceDirectory, *, tcp: bool) -> Generator[socket.socket]:
    """Bound outside, where nothing inside can put something else in its place."""
    with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        if tcp:
            listener.bind(("127.0.0.1", 0))
        else:
            with suppress(FileNotFoundError):
                os.unlink(f"{SOCKET}.new", dir_fd=directory.fd)
            os.fchmod(listener.fileno(), 0o600)  # before the bind: no moment at which others may connect
            listener.bind(f"/proc/self/fd/{directory.fd}/{SOCKET}.new")  # an address is at most 107 bytes long
        listener.listen(_BACKLOG)
        if not tcp:
            # Never absent: to clients, no socket means no workspace.
            os.rename(f"{SOCKET}.new", SOCKET, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
        yield listener


@asynccontextmanager
async def first_process(
    directory: WorkspaceDirectory, plan: LaunchPlan, *, config: bytes, descriptors: tuple[int, int]
) -> AsyncGenerator[Launched]:
    """Start it and hand it its configuration. It lives on after the block, unless that fails.

    ``descriptors``: the lock and the listening socket. Raises: see ``launch``.
    """
    process = await launch(plan, lock_fd=descriptors[0], listen_fd=descriptors[1])
    try:
        # Recorded before it may do anything: from here on, whoever destroys the workspace finds it.
        write_holder(directory.fd, process.identity)
        async with asyncio.timeout(START_TIMEOUT_S):
            await process.configure(config)
        yield process
    except BaseException:
        process.handle.send(SIGKILL)
        raise
    finally:
        process.close()


async def _first_answer(process: Launched, executor: ToolExecutor) -> None:
    """Raises: as ``launch_failure`` where the process ended first; Broken where nothing answers in time."""
    ended = asyncio.create_task(process.handle.wait())
    answer = asyncio.create_task(executor.health())
    try:
        await asyncio.wait({ended, answer}, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise launch_failure(process.failure_text(), host_limits())
        if not answer.done():
            raise Broken(f"The workspace did not answer within {START_TIMEOUT_S:.0f} s.")
        await answer
    finally:
        for task in (ended, answer):
            task.cancel()
        await asyncio.gather(ended, answer, return_exceptions=True)
        await executor.aclose()
