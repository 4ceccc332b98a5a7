"""What a benchmark says: our figure beside a floor or a peer of the same run."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    name: str
    unit: str
    ours: float
    floor: float
    floor_is: str
    """What the floor is, in a few words."""
    better: Literal["lower", "higher"]
    goal: str
    reached: bool
    details: dict[str, float | str] = field(default_factory=dict[str, float | str])
    """Names end in their units."""

    @property
    def ratio(self) -> float:
        return self.ours / self.floor

    def to_json(self) -> dict[str, object]:
        return {
            "benchmark": self.name,
            "unit": self.unit,
            "ours": round(self.ours, 4),
            "floor": round(self.floor, 4),
            "ratio": round(self.ratio, 3),
            "better": self.better,
            "floor_is": self.floor_is,
            "goal": self.goal,
            "reached": self.reached,
            **{name: round(value, 4) if isinstance(value, float) else value for name, value in self.details.items()},
        }


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
