"""The one place that names implementations: a workspace manager for a mode and an isolation, imported when asked for."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from shadow.core.egress import EgressPolicy
from shadow.core.errors import Unsupported
from shadow.core.limits import Limits
from shadow.core.workspaces import Isolation, Mode
from shadow.execution.interface import WorkspaceManager
from shadow.execution.sidecar_client.breakers import Breakers
from shadow.execution.sidecar_client.retries import Resilience


def kernel_limits() -> Mapping[str, str]:
    """By controller (memory, pids, cpu): the mechanism by which this host's kernel keeps local workspaces to a limit of it."""
    from shadow.execution.local.cgroups import controllers, find_cgroups

    found = find_cgroups()
    return {} if found is None else dict.fromkeys(controllers(found), found.mechanism.value)


def make_manager(
    mode: Mode,
    isolation: Isolation,
    *,
    data_dir: Path,
    default_lease_s: float,
    default_egress: EgressPolicy | None = None,
    toolchain_paths: Sequence[Path] = (),
    sandbox_uids: range | None = None,
    default_limits: Limits | None = None,
    resilience: Resilience | None = None,
    breakers: Breakers | None = None,
    transport: Literal["unix", "tcp"] = "unix",
    mock_plan: Path | None = None,
    clock: Callable[[], float] = time.time,
    entropy: Callable[[int], bytes] = os.urandom,
) -> WorkspaceManager:
    """``breakers``: of the sidecars of local workspaces, for whoever tells how they stand.

    Raises: Unsupported: there is no such implementation yet; the mend names one that there is. MockPlanRefused.
    """
    match mode, isolation:
        case Mode.LOCAL, Isolation.SANDBOX | Isolation.NONE:
            from shadow.execution.local.manager import LocalWorkspaceManager

            return LocalWorkspaceManager(
                data_dir=data_dir,
                isolation=isolation,
                default_lease_s=default_lease_s,
                default_egress=default_egress,
                toolchain_paths=toolchain_paths,
                sandbox_uids=sandbox_uids,
                default_limits=default_limits,
                resilience=resilience,
                breakers=breakers,
                transport=transport,
                clock=clock,
                entropy=entropy,
            )
        case Mode.LOCAL, Isolation.CONTAINER | Isolation.MICROVM:
            raise Unsupported(
                f"Local workspaces with isolation {isolation.value!r} do not exist yet.",
                mend="Use isolation 'sandbox'.",
                details={"capability": isolation.value},
            )
        case Mode.MOCK, _:
            from shadow.execution.mock.manager import MockWorkspaceManager
            from shadow.execution.mock.plan_file import load_plan
            from shadow.execution.mock.times import RealTime

            return MockWorkspaceManager(
                load_plan(mock_plan) if mock_plan is not None else None,
                time=RealTime(clock=clock),
                isolation=isolation,
                default_lease_s=default_lease_s,
                default_limits=default_limits,
            )
        case Mode.REMOTE, _:
            raise Unsupported(
                f"The mode {mode.value!r} does not exist yet.",
                mend="Use the mode 'local' (AGENT_MODE=local).",
                details={"capability": mode.value},
            )
