"""The breakers of one process: one for each workspace, whoever attaches to it and how often. No I/O, no clock."""

from collections import Counter
from collections.abc import Mapping

from shadow.core.ids import WorkspaceId
from shadow.execution.sidecar_client.breaker import Breaker, BreakerPolicy, BreakerState, BreakerStatus

MAX_BREAKERS = 4096
"""Beyond that the one that was asked for least lately is forgotten, of those that let calls through if there are any."""


class Breakers:
    """All that they are told has to be told by one monotonic clock."""

    def __init__(self, policy: BreakerPolicy, *, limit: int = MAX_BREAKERS) -> None:
        self._policy = policy
        self._limit = limit
        self._by_workspace: dict[WorkspaceId, Breaker] = {}
        self._opens_of_forgotten = 0

    def of(self, workspace_id: WorkspaceId) -> Breaker:
        breaker = self._by_workspace.pop(workspace_id, None)
        if breaker is None:
            if len(self._by_workspace) >= self._limit:
                self.forget(self._least_wanted())
            breaker = Breaker(self._policy)
        self._by_workspace[workspace_id] = breaker  # at the end: the first one was asked for least lately
        return breaker

    def forget(self, workspace_id: WorkspaceId) -> None:
        """The workspace is gone, or its processes are new. Who still has its breaker keeps that one."""
        breaker = self._by_workspace.pop(workspace_id, None)
        if breaker is not None:
            self._opens_of_forgotten += breaker.opens

    def statuses(self, now: float) -> Mapping[WorkspaceId, BreakerStatus]:
        return {workspace_id: breaker.status(now) for workspace_id, breaker in self._by_workspace.items()}

    def by_state(self) -> Mapping[BreakerState, int]:
        counted = Counter(breaker.state for breaker in self._by_workspace.values())
        return {state: counted[state] for state in BreakerState}

    @property
    def opens(self) -> int:
        """How often any of them opened; it never falls."""
        return self._opens_of_forgotten + sum(breaker.opens for breaker in self._by_workspace.values())

    def _least_wanted(self) -> WorkspaceId:
        first = next(iter(self._by_workspace))
        return next((id_ for id_, breaker in self._by_workspace.items() if breaker.state is BreakerState.CLOSED), first)
