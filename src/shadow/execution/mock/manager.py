"""The mock's ``WorkspaceManager``: workspaces in the memory of this process, each with a simulated pod."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from shadow.core.egress import EgressPolicy
from shadow.core.egress_status import EgressStatus
from shadow.core.errors import NotFound, Unsupported
from shadow.core.ids import WorkspaceId, make_id
from shadow.core.limits import Limits
from shadow.core.workspaces import (
    Capabilities,
    CpuTime,
    Isolation,
    WorkspaceSpec,
    WorkspaceStatus,
    check_lease,
    check_workspace_spec,
)
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.execution.mock.chances import Chances
from shadow.execution.mock.executor import MockToolExecutor
from shadow.execution.mock.plan import MockPlan, PodEnd
from shadow.execution.mock.pods import TOLD, PodMoment, PodPhase, state_of
from shadow.execution.mock.times import RealTime, Time
from shadow.execution.mock.workspace import MockWorkspace
from shadow.execution.opening import opened


class MockWorkspaceManager(WorkspaceManager):
    """Everything that it makes ends with it. ``isolation`` is only what its workspaces say of themselves."""

    def __init__(
        self,
        plan: MockPlan | None = None,
        *,
        time: Time | None = None,
        isolation: Isolation = Isolation.SANDBOX,
        default_lease_s: float = 24 * 3600.0,
        default_limits: Limits | None = None,
    ) -> None:
        self._plan = plan or MockPlan()
        self._time = time or RealTime()
        self._isolation = isolation
        self._default_lease_s = default_lease_s
        self._default_limits = default_limits or Limits()
        self._chances = Chances(self._plan, name="manager")
        self._workspaces: dict[WorkspaceId, MockWorkspace] = {}
        self._made = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            isolation=self._isolation, survives_sidecar=True, network=False, hibernation=True, programs=False
        )

    # Making

    async def create(self, spec: WorkspaceSpec) -> WorkspaceStatus:
        lease_s = self._default_lease_s if spec.lease_s is None else spec.lease_s
        check_lease(lease_s)
        check_workspace_spec(spec)
        if spec.egress is not None:
            self._refuse_egress()
        await self._delay("create")
        pods = self._plan.pods
        workspace = MockWorkspace(
            WorkspaceId(make_id("ws", entropy=self._chances.entropy(16))),
            spec=spec,
            limits=spec.limits.over(self._default_limits),
            plan=self._plan,
            pod=pods[self._made] if self._made < len(pods) else self._plan.pod,
            time=self._time,
            number=self._made,
        )
        self._made += 1
        self._workspaces[workspace.id] = workspace
        workspace.set_lease(lease_s)
        try:
            await workspace.start()
            self._strike("create")
        except BaseException:
            await self.destroy(workspace.id)
            raise
        return self._status(workspace)

    async def _delay(self, operation: str) -> None:
        latency_s = self._chances.latency_s(operation)
        if latency_s > 0:
            await self._time.sleep(latency_s)

    def _strike(self, operation: str) -> None:
        fault = self._chances.fault(operation)
        if fault is not None:
            raise fault.error(fault.message, details={"planned": True})

    # Using

    async def attach(self, workspace_id: WorkspaceId, *, take_over: bool = False) -> ToolExecutor:
        workspace = self._get(workspace_id)
        await self._delay("attach")
        self._strike("attach")
        await workspace.awake()
        if take_over:
            workspace.operations.check_epoch(workspace.operations.epoch + 1)
        return MockToolExecutor(workspace, capabilities=self.capabilities, epoch=workspace.operations.epoch)

    async def renew(self, workspace_id: WorkspaceId, *, lease_s: float) -> None:
        check_lease(lease_s)
        self._get(workspace_id).set_lease(lease_s)

    def open(self, spec: WorkspaceSpec) -> AbstractAsyncContextManager[ToolExecutor]:
        lease_s = self._default_lease_s if spec.lease_s is None else spec.lease_s
        return opened(self, spec, lease_s=lease_s, sleep=self._time.background_sleep)

    async def set_egress(self, workspace_id: WorkspaceId, policy: EgressPolicy) -> None:
        self._refuse_egress()

    async def egress(self, workspace_id: WorkspaceId) -> EgressStatus:
        self._refuse_egress()

    def _refuse_egress(self) -> NoReturn:
        raise Unsupported(
            "Mocked workspaces reach no network, whatever a policy says.",
            mend="Use a real workspace (AGENT_MODE=local) for it.",
            details={"capability": "egress"},
        )

    # Looking

    async def status(self, workspace_id: WorkspaceId, *, measure: bool = False) -> WorkspaceStatus:
        return self._status(self._find(workspace_id), measure=measure)

    async def cpu_time(self, workspace_id: WorkspaceId) -> CpuTime | None:
        self._find(workspace_id)
        return None

    async def list(self) -> Sequence[WorkspaceStatus]:
        return [self._status(workspace) for workspace in self._workspaces.values()]

    def history(self, workspace_id: WorkspaceId) -> Sequence[PodMoment]:
        """The phases of its pod so far. Raises: NotFound."""
        return tuple(self._find(workspace_id).history)

    def _status(self, workspace: MockWorkspace, *, measure: bool = False) -> WorkspaceStatus:
        return WorkspaceStatus(
            id=workspace.id,
            name=workspace.spec.name,
            state=state_of(workspace.phase),
            isolation=self._isolation,
            created_at=workspace.created_at,
            lease_expires_at=workspace.lease_expires_at,
            size_bytes=workspace.files.tree.size_bytes if measure else None,
            error=TOLD.get(workspace.phase),
            checkout=workspace.spec.checkout,
            limits=workspace.limits,
            phase=workspace.phase.value,
        )

    def _find(self, workspace_id: WorkspaceId) -> MockWorkspace:
        workspace = self._workspaces.get(workspace_id)
        if workspace is None:
            raise NotFound(
                f"There is no workspace {workspace_id!r}.",
                mend="A mocked workspace lives only in the process, and with the manager, that made it.",
            )
        return workspace

    def _get(self, workspace_id: WorkspaceId) -> MockWorkspace:
        """One that may still be used. Raises: NotFound."""
        workspace = self._find(workspace_id)
        if workspace.phase is PodPhase.ENDED or workspace.lease_is_over:
            raise NotFound(f"The workspace {workspace_id} was destroyed, or its lease is over.")
        return workspace

    # Ending

    async def hibernate(self, workspace_id: WorkspaceId, *, keep_s: float) -> None:
        check_lease(keep_s)
        workspace = self._get(workspace_id)
        workspace.set_lease(keep_s)
        await workspace.hibernate()

    async def destroy(self, workspace_id: WorkspaceId) -> None:
        workspace = self._workspaces.pop(workspace_id, None)
        if workspace is not None:
            workspace.end()

    async def list_orphans(self) -> Sequence[WorkspaceId]:
        return [id_ for id_, workspace in self._workspaces.items() if workspace.lease_is_over]

    async def reap(self) -> Sequence[WorkspaceId]:
        orphans = await self.list_orphans()
        for workspace_id in orphans:
            await self.destroy(workspace_id)
        return orphans

    # What a test brings about by itself, besides what the plan has

    def evict(self, workspace_id: WorkspaceId) -> None:
        """As a node short of memory does. Raises: NotFound."""
        self._find(workspace_id).lose_pod(PodEnd.EVICTED)

    def oom_kill(self, workspace_id: WorkspaceId) -> None:
        """As the kernel does to a container above its limit. Raises: NotFound."""
        self._find(workspace_id).lose_pod(PodEnd.OOM_KILLED)
