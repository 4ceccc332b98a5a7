"""Half-open intervals of minutes, counted from Monday 00:00."""

from dataclasses import dataclass

MINUTES_PER_DAY = 24 * 60
MINUTES_PER_WEEK = 7 * MINUTES_PER_DAY


@dataclass(frozen=True, order=True)
class Interval:
    start: int
    end: int

    def __post_init__(self):
        if not 0 <= self.start < self.end:
            raise ValueError(f"an interval must run forwards, not from {self.start} to {self.end}")

    def __contains__(self, minute):
        return self.start <= minute < self.end

    @property
    def length(self):
        return self.end - self.start


def merge(intervals):
    """The same minutes in as few intervals as possible, in order."""
    merged = []
    for interval in sorted(intervals):
        if merged and interval.start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, interval.end))
        else:
            merged.append(interval)
    return merged
