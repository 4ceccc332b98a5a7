"""Workspaces on this host: sandboxes of bubblewrap, or, asked for by name, plain directories without a wall."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from weakref import WeakKeyDictionary

from shadow.core.egress import EgressPolicy
from shadow.core.egress_status import EgressStatus
from shadow.core.errors import Broken, NotFound, OutcomeUnknown, ShadowError, Unavailable, Unsupported
from shadow.core.ids import WorkspaceId, is_id, make_id
from shadow.core.limits import Limits
from shadow.core.workspaces import (
    Capabilities,
    CpuTime,
    Isolation,
    WorkspaceSpec,
    WorkspaceState,
    WorkspaceStatus,
    check_lease,
    check_workspace_spec,
)
from shadow.execution.holder.measuring import measure_tree
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.execution.local import egress
from shadow.execution.local.cpu_time import read_cpu_time
from shadow.execution.local.directory import ALIVE, FILES, PROXYING, REMOVING, WorkspaceDirectory, Workspaces
from shadow.execution.local.ending import end_and_remove, end_half_started, end_processes, remove_directory
from shadow.execution.local.failures import typed_failures
from shadow.execution.local.manifest import Manifest, read_holder
from shadow.execution.local.process import ProcessIdentity, identify, is_alive
from shadow.execution.local.sandbox import Bwrap
from shadow.execution.local.starting import START_TIMEOUT_S, Starter, connect, directories
from shadow.execution.local.uids import UID_LEASES_DIRECTORY, UidLeases
from shadow.execution.opening import opened
from shadow.execution.sidecar_client.breakers import Breakers
from shadow.execution.sidecar_client.retries import Resilience
from shadow.storage.locks import try_lock

_POLL_S = 0.01
_HOLDER_ENDS_WITHIN_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Footing:
    """What an executor stands on: with anything of it changed, another ``attach`` would give another one."""

    token: str = field(repr=False)
    epoch: int
    tcp_port: int | None
    holder: ProcessIdentity | None
    egress_revision: int


class LocalWorkspaceManager(WorkspaceManager):
    """Any number of managers, in any number of processes, may share a data directory: what lies there is the truth."""

    def __init__(
        self,
        *,
        data_dir: Path,
        isolation: Isolation,
        default_lease_s: float,
        default_egress: EgressPolicy | None = None,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        toolchain_paths: Sequence[Path] = (),
        sandbox_uids: range | None = None,
        uid_leases_dir: Path = UID_LEASES_DIRECTORY,
        transport: Literal["unix", "tcp"] = "unix",
        bwraps: Sequence[Bwrap] | None = None,
        default_limits: Limits | None = None,
        resilience: Resilience | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        """``clock``: seconds since 1970. ``default_egress``: for sandboxes whose spec has none; ``None``: nothing is allowed.
        ``sandbox_uids``: as root, what sandboxes run under; ``None``: a range that is free.
        ``default_limits``: for what a spec leaves open; ``None``: no limits.
        ``bwraps``: bubblewraps to try, in this order; ``None``: those that this host has.
        ``resilience``: of the executors that ``attach`` gives. ``breakers``: theirs; ``None``: this manager's own.

        Raises: Unsupported: an isolation that is not local.
        """
        if isolation not in (Isolation.SANDBOX, Isolation.NONE):
            raise Unsupported(
                f"The local manager cannot make workspaces with isolation {isolation.value!r}.",
                mend="Use 'sandbox', or 'none', which is no wall at all.",
                details={"capability": isolation.value},
            )
        self._uids = UidLeases(sandbox_uids, directory=uid_leases_dir) if os.geteuid() == 0 else None
        self._isolation = isolation
        self._default_lease_s = default_lease_s
        self._default_limits = default_limits or Limits()
        self._default_egress = default_egress or EgressPolicy()
        self._resilience = resilience or Resilience()
        self._breakers = breakers or Breakers(self._resilience.breaker)
        self._clock = clock
        self._entropy = entropy
        self._workspaces = Workspaces(data_dir)
        self._footings = WeakKeyDictionary[ToolExecutor, _Footing]()
        self._starter = Starter(toolchain_paths=toolchain_paths, uids=self._uids, tcp=transport == "tcp", bwraps=bwraps)

    @property
    def capabilities(self) -> Capabilities:
        return _capabilities(self._isolation)

    # Making

    async def create(self, spec: WorkspaceSpec) -> WorkspaceStatus:
        lease_s = self._default_lease_s if spec.lease_s is None else spec.lease_s
        check_lease(lease_s)
        check_workspace_spec(spec)
        if spec.egress is not None:
            self._check_egress(self._isolation)
        self._starter.check(self._isolation)
        self._workspaces.prepare()
        await self._reap_quietly()
        manifest = self._new_manifest(spec, lease_s)
        try:
            async with self._workspaces.making():
                self._workspaces.make(manifest, directories=directories(self._isolation))
            with self._workspaces.open(manifest.id) as directory:
                await self._make_sure_it_runs(directory)
                await egress.make_sure(directory)
                return self._status(directory)
        except BaseException:
            await asyncio.shield(self._clean_up(manifest.id))
            raise

    async def _clean_up(self, workspace_id: WorkspaceId) -> None:
        """After a failure that is told in any case; what stays now is left to the reaper."""
        try:
            await self.destroy(workspace_id)
        except ShadowError as error:
            log.warning("workspace.cleanup_failed", extra={"workspace_id": workspace_id, "reason": str(error)})

    def _new_manifest(self, spec: WorkspaceSpec, lease_s: float) -> Manifest:
        starter = identify(os.getpid())
        assert starter is not None
        now = self._clock()
        policy = spec.egress or self._default_egress
        if not self.capabilities.egress:
            policy = EgressPolicy()
        return Manifest(
            id=WorkspaceId(make_id("ws", entropy=self._entropy(16))),
            name=spec.name,
            isolation=self._isolation,
            created_at=now,
            lease_expires_at=now + lease_s,
            token=self._entropy(32).hex(),
            epoch=1,
            starter=starter,
            env=spec.env,
            checkout=spec.checkout,
            limits=spec.limits.over(self._default_limits),
            egress=policy,
            egress_revision=1 if policy.rules else 0,
        )

    async def _make_sure_it_runs(self, directory: WorkspaceDirectory) -> None:
        try:
            async with asyncio.timeout(2 * START_TIMEOUT_S):
                while not self._runs(directory, directory.manifest()):
                    if not directory.is_current():
                        raise NotFound(f"The workspace {directory.id} was destroyed.")
                    if not await self._start(directory):
                        await end_half_started(directory)
                        await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise Unavailable("Another process has been starting this workspace for a minute.") from error

    def _runs(self, directory: WorkspaceDirectory, manifest: Manifest) -> bool:
        holder = read_holder(directory.fd)
        return manifest.ready and holder is not None and is_alive(holder) and directory.is_alive()

    async def _start(self, directory: WorkspaceDirectory) -> bool:
        """Bring its processes up; ``False`` where somebody else is at it. Raises: NotFound: it is gone, or its lease is over."""
        fd = directory.open_lock()
        try:
            if not try_lock(fd, ALIVE):
                return False
            starter = identify(os.getpid())
            assert starter is not None
            manifest = await directory.change(lambda m: replace(m, ready=False, starter=starter))
            lease_s = manifest.lease_expires_at - self._clock()
            if lease_s <= 0 or not directory.is_current():
                raise NotFound(f"The workspace {manifest.id} was destroyed, or its lease is over.")
            started = await self._starter.start(
                directory, manifest, lease_s=lease_s, lock_fd=fd, capabilities=_capabilities(manifest.isolation)
            )
            await directory.change(
                lambda m: replace(m, ready=True, made=True, uid=started.uid, tcp_port=started.tcp_port)
            )
            self._breakers.forget(manifest.id)
            return True
        finally:
            os.close(fd)

    # Using

    async def attach(self, workspace_id: WorkspaceId, *, take_over: bool = False) -> ToolExecutor:
        with self._workspaces.open(workspace_id) as directory:
            await self._make_sure_it_runs(directory)
            await egress.make_sure(directory)
            manifest = directory.manifest()
            breaker = self._breakers.of(workspace_id)
            if not take_over:
                executor = connect(directory, manifest, _capabilities(manifest.isolation), self._resilience, breaker)
                self._footings[executor] = _footing(directory, manifest)
                return executor
            manifest = await directory.change(lambda m: replace(m, epoch=m.epoch + 1))
            breaker.try_soon(time.monotonic())  # others' failures are no reason not to look
            executor = connect(directory, manifest, _capabilities(manifest.isolation), self._resilience, breaker)
            try:
                # Any call with an operation tells the holder of the new epoch; this one changes nothing else.
                await executor.make_directory(".")
            except BaseException:
                await executor.aclose()
                raise
            return executor

    async def is_attached(self, workspace_id: WorkspaceId, executor: ToolExecutor) -> bool:
        footing = self._footings.get(executor)
        with suppress(NotFound, Broken), self._workspaces.open(workspace_id) as directory:
            manifest = directory.manifest()
            has_proxy = manifest.egress_revision == 0 or directory.is_held(PROXYING)
            return has_proxy and self._runs(directory, manifest) and _footing(directory, manifest) == footing
        return False

    async def renew(self, workspace_id: WorkspaceId, *, lease_s: float) -> None:
        check_lease(lease_s)
        with self._workspaces.open(workspace_id) as directory:
            expires_at = self._clock() + lease_s
            manifest = await directory.change(lambda m: replace(m, lease_expires_at=expires_at))
            while directory.is_alive() and not self._runs(directory, manifest):  # it is told its lease when it starts
                await asyncio.sleep(_POLL_S)
                manifest = directory.manifest()
            holder = read_holder(directory.fd)
            if self._runs(directory, manifest):
                try:
                    async with connect(directory, manifest, _capabilities(manifest.isolation)) as executor:
                        await executor.renew_lease(lease_s)
                except (Unavailable, OutcomeUnknown):
                    if holder is not None and is_alive(holder):
                        raise
                    # It hibernates, or has died: whoever starts it again tells it what the manifest says by now.
                await egress.make_sure(directory)

    async def set_egress(self, workspace_id: WorkspaceId, policy: EgressPolicy) -> None:
        with self._workspaces.open(workspace_id) as directory:
            self._check_egress(directory.manifest().isolation)
            await directory.change(lambda m: replace(m, egress=policy, egress_revision=m.egress_revision + 1))
            await egress.make_sure(directory)

    async def egress(self, workspace_id: WorkspaceId) -> EgressStatus:
        with self._workspaces.open(workspace_id) as directory:
            self._check_egress(directory.manifest().isolation)
            return await egress.read_status(directory)

    def _check_egress(self, isolation: Isolation) -> None:
        if not _capabilities(isolation).egress:
            raise Unsupported(
                f"Egress of workspaces with isolation {isolation.value!r} is not limited: they have the host's network.",
                mend="Use isolation 'sandbox'.",
                details={"capability": "egress"},
            )

    def open(self, spec: WorkspaceSpec) -> AbstractAsyncContextManager[ToolExecutor]:
        lease_s = self._default_lease_s if spec.lease_s is None else spec.lease_s
        return opened(self, spec, lease_s=lease_s)

    # Looking

    async def status(self, workspace_id: WorkspaceId, *, measure: bool = False) -> WorkspaceStatus:
        with self._workspaces.open(workspace_id) as directory:
            status = self._status(directory)
            if measure and status.state is not WorkspaceState.BROKEN:
                with typed_failures("Measuring the workspace"):
                    fd = os.open(
                        FILES, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd
                    )
                    try:
                        size = await asyncio.to_thread(measure_tree, fd)
                    finally:
                        os.close(fd)
                status = replace(status, size_bytes=size.size_bytes)
            return status

    async def cpu_time(self, workspace_id: WorkspaceId) -> CpuTime | None:
        with self._workspaces.open(workspace_id) as directory:
            return await asyncio.to_thread(read_cpu_time, directory.fd)

    async def list(self) -> Sequence[WorkspaceStatus]:
        await self._reap_quietly()
        found: list[WorkspaceStatus] = []
        for workspace_id in self._workspaces.present():
            with suppress(NotFound), self._workspaces.open(workspace_id) as directory:
                found.append(self._status(directory))
        return sorted(found, key=lambda status: (status.created_at, status.id))

    def _status(self, directory: WorkspaceDirectory) -> WorkspaceStatus:
        try:
            manifest = directory.manifest()
        except (Broken, NotFound) as error:
            return WorkspaceStatus(
                id=WorkspaceId(directory.id),
                name=None,
                state=WorkspaceState.BROKEN,
                isolation=self._isolation,
                created_at=os.fstat(directory.fd).st_mtime,
                lease_expires_at=None,
                size_bytes=None,
                error=error.message,
            )
        if self._runs(directory, manifest):
            state = WorkspaceState.READY
        elif directory.is_alive() or (not manifest.made and is_alive(manifest.starter)):
            state = WorkspaceState.STARTING
        else:
            state = WorkspaceState.STOPPED
        return WorkspaceStatus(
            id=manifest.id,
            name=manifest.name,
            state=state,
            isolation=manifest.isolation,
            created_at=manifest.created_at,
            lease_expires_at=manifest.lease_expires_at,
            size_bytes=None,
            checkout=manifest.checkout,
            limits=manifest.limits,
        )

    # Ending

    async def hibernate(self, workspace_id: WorkspaceId, *, keep_s: float) -> None:
        check_lease(keep_s)
        with self._workspaces.open(workspace_id) as directory:
            expires_at = self._clock() + keep_s
            # Before anything ends: a reaper never meets it without processes and with its old lease.
            await directory.change(lambda m: replace(m, lease_expires_at=expires_at))
            await end_processes(directory)

    async def destroy(self, workspace_id: WorkspaceId) -> None:
        if not is_id(workspace_id):
            return
        self._breakers.forget(workspace_id)
        with typed_failures("Destroying the workspace"):
            self._workspaces.hide(workspace_id)
        await end_and_remove(self._workspaces, workspace_id, self._uids)

    async def list_orphans(self) -> Sequence[WorkspaceId]:
        left = [workspace_id for workspace_id in self._workspaces.present() if self._is_orphan(workspace_id)]
        return [*left, *(i for i in self._workspaces.being_removed() if not self._is_worked_on(i))]

    def _is_orphan(self, workspace_id: WorkspaceId) -> bool:
        try:
            with self._workspaces.open(workspace_id) as directory:
                manifest = directory.manifest()
                overdue_s = self._clock() - manifest.lease_expires_at
                abandoned = not manifest.made and not is_alive(manifest.starter)
                if directory.is_alive():
                    # A holder ends itself with its lease. One that was never told of it cannot.
                    return abandoned and overdue_s > _HOLDER_ENDS_WITHIN_S
                return abandoned or overdue_s >= 0
        except (NotFound, Broken):  # gone meanwhile, or not to be understood: somebody's files, for all we know
            return False

    def _is_worked_on(self, workspace_id: WorkspaceId) -> bool:
        directory = self._workspaces.open_removed(workspace_id)
        if directory is None:
            return True
        with directory:
            return directory.is_held(REMOVING)

    async def reap(self) -> Sequence[WorkspaceId]:
        orphans = await self.list_orphans()
        for workspace_id in orphans:
            await self.destroy(workspace_id)
        if self._workspaces.half_made():
            async with self._workspaces.making():
                for path in self._workspaces.half_made():
                    await asyncio.to_thread(remove_directory, path)
        return orphans

    async def _reap_quietly(self) -> None:
        """Beside other work, which must not fail because of it."""
        try:
            for workspace_id in await self.reap():
                log.info("workspace.reaped", extra={"workspace_id": workspace_id})
        except ShadowError as error:
            log.warning("workspace.reaping_failed", extra={"reason": str(error)})


def _footing(directory: WorkspaceDirectory, manifest: Manifest) -> _Footing:
    return _Footing(
        token=manifest.token,
        epoch=manifest.epoch,
        tcp_port=manifest.tcp_port,
        holder=read_holder(directory.fd),
        egress_revision=manifest.egress_revision,
    )


def _capabilities(isolation: Isolation) -> Capabilities:
    return Capabilities(
        isolation=isolation,
        survives_sidecar=True,
        network=isolation is Isolation.NONE,
        outlives_starter=True,
        git=True,
        terminals=True,
        trees=True,
        watching=True,
        limits=True,
        hibernation=True,
        cpu_time=True,
        egress=isolation is Isolation.SANDBOX,
    )
