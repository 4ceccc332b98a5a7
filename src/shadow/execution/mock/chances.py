"""What a plan says about the next call: counted and drawn, the same each time for the same seed. No I/O, no clock."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol, TypeVar

from shadow.execution.mock.latency import draw
from shadow.execution.mock.plan import ANY, Fault, MockPlan, StreamCut


class _Counted(Protocol):
    @property
    def operation(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def skip(self) -> int: ...
    @property
    def count(self) -> int | None: ...


C = TypeVar("C", bound=_Counted)


class Chances:
    """Of one workspace, or of a manager. Each operation has random numbers of its own, so that others do not shift them."""

    def __init__(self, plan: MockPlan, *, name: str) -> None:
        self._plan = plan
        self._name = name
        self._randoms: dict[str, Random] = {}
        self._seen: Counter[int] = Counter()
        self._struck: Counter[int] = Counter()

    def random(self, what: str) -> Random:
        if what not in self._randoms:
            self._randoms[what] = Random(f"{self._plan.seed}/{self._name}/{what}")
        return self._randoms[what]

    def latency_s(self, operation: str) -> float:
        latency = self._plan.latency.get(operation, self._plan.latency.get(ANY, 0.0))
        return draw(latency, self.random(f"latency of {operation}"))

    def fault(self, operation: str) -> Fault | None:
        return self._first(self._plan.faults, operation)

    def cut(self, operation: str) -> StreamCut | None:
        return self._first(self._plan.cuts, operation)

    def entropy(self, size: int) -> bytes:
        """For ids."""
        return self.random("ids").randbytes(size)

    def _first(self, planned: Sequence[C], operation: str) -> C | None:
        """The first that strikes; every one that is about the operation counts the call."""
        first: C | None = None
        for one in planned:
            if one.operation in (operation, ANY):
                self._seen[id(one)] += 1
                if first is None and self._strikes(one, self.random(f"faults of {operation}").random):
                    first = one
        return first

    def _strikes(self, one: _Counted, draw: Callable[[], float]) -> bool:
        if self._seen[id(one)] <= one.skip or (one.count is not None and self._struck[id(one)] >= one.count):
            return False
        if draw() >= one.probability:
            return False
        self._struck[id(one)] += 1
        return True
