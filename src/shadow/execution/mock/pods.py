"""The life of a simulated pod: how it comes up or fails to, and what ends it, each as a real cluster would tell it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from shadow.core.errors import LimitExceeded, ShadowError, Unavailable
from shadow.core.workspaces import WorkspaceState
from shadow.execution.mock.latency import draw
from shadow.execution.mock.plan import PodEnd, PodFailure, PodPlan


class PodPhase(StrEnum):
    PENDING = "pending"
    PULLING = "pulling"
    RUNNING = "running"
    """Its containers run; the sidecar does not answer yet."""
    READY = "ready"
    OOM_KILLED = "oom_killed"
    """Being started again."""
    EVICTED = "evicted"
    HIBERNATED = "hibernated"
    UNSCHEDULABLE = "unschedulable"
    IMAGE_PULL_FAILED = "image_pull_failed"
    ENDED = "ended"
    """The lease was over, or the workspace was destroyed."""


_STATES = {
    PodPhase.READY: WorkspaceState.READY,
    PodPhase.EVICTED: WorkspaceState.STOPPED,
    PodPhase.HIBERNATED: WorkspaceState.STOPPED,
    PodPhase.ENDED: WorkspaceState.STOPPED,
}
GONE = (PodPhase.EVICTED, PodPhase.HIBERNATED)
"""Without a pod, until somebody attaches."""
TOLD = {
    PodPhase.OOM_KILLED: "The pod was OOM-killed and is being started again (exit code 137).",
    PodPhase.EVICTED: "The pod was evicted: the node was low on resource: memory.",
    PodPhase.UNSCHEDULABLE: "0/3 nodes are available: 3 Insufficient memory.",
    PodPhase.IMAGE_PULL_FAILED: 'Back-off pulling image "shadow-workspace": ErrImagePull.',
    PodPhase.ENDED: "The lease is over.",
}
"""What ``WorkspaceStatus.error`` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMoment:
    """``at``: seconds since 1970."""

    phase: PodPhase
    at: float


def state_of(phase: PodPhase) -> WorkspaceState:
    return _STATES.get(phase, WorkspaceState.STARTING)


def phase_after(end: PodEnd) -> PodPhase:
    return PodPhase.EVICTED if end is PodEnd.EVICTED else PodPhase.OOM_KILLED


async def bring_up(
    plan: PodPlan, random: Random, *, enter: Callable[[PodPhase], None], sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Through its phases until it is ready. Raises: Unavailable, LimitExceeded: the plan lets it fail."""
    if plan.failure is PodFailure.QUOTA:
        raise LimitExceeded(
            'pods "workspace" is forbidden: exceeded quota: workspaces, requested: pods=1, used: pods=10, limited: pods=10.',
            mend="Destroy workspaces that are not needed, or ask for a larger quota.",
            details={"reason": "QuotaExceeded"},
        )
    enter(PodPhase.PENDING)
    await sleep(draw(plan.pending, random))
    if plan.failure is PodFailure.UNSCHEDULABLE:
        enter(PodPhase.UNSCHEDULABLE)
        await sleep(plan.give_up_s)
        raise _gave_up(PodPhase.UNSCHEDULABLE, "Unschedulable", plan, "Ask for less, or wait for a node with room.")
    enter(PodPhase.PULLING)
    await sleep(draw(plan.pulling, random))
    if plan.failure is PodFailure.IMAGE_PULL:
        enter(PodPhase.IMAGE_PULL_FAILED)
        await sleep(plan.give_up_s)
        mend = "Look at the image's name and the pull secret."
        raise _gave_up(PodPhase.IMAGE_PULL_FAILED, "ImagePullBackOff", plan, mend)
    enter(PodPhase.RUNNING)
    await sleep(draw(plan.starting, random))
    enter(PodPhase.READY)


def _gave_up(phase: PodPhase, reason: str, plan: PodPlan, mend: str) -> ShadowError:
    return Unavailable(
        f"The pod did not become ready within {plan.give_up_s:.0f} s: {TOLD[phase]}",
        mend=mend,
        details={"reason": reason},
    )
