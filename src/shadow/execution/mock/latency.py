"""How long things take: seconds, or a distribution of them, drawn from a seeded generator. Pure."""

import math
from dataclasses import dataclass
from random import Random

from shadow.core.errors import Rejected


@dataclass(frozen=True, slots=True)
class Uniform:
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class Exponential:
    mean_s: float


@dataclass(frozen=True, slots=True)
class LogNormal:
    """As round trips are: mostly near the median, now and then far above. ``sigma`` is that of the logarithm."""

    median_s: float
    sigma: float = 0.5


Latency = float | Uniform | Exponential | LogNormal
"""A number is always the same."""


def draw(latency: Latency, random: Random) -> float:
    """Seconds."""
    match latency:
        case Uniform(low_s=low_s, high_s=high_s):
            return random.uniform(low_s, high_s)
        case Exponential(mean_s=mean_s):
            return random.expovariate(1 / mean_s) if mean_s else 0.0
        case LogNormal(median_s=median_s, sigma=sigma):
            return median_s * math.exp(random.gauss(0.0, sigma))
        case _:
            return latency


def check_latency(latency: Latency) -> None:
    """Raises: Rejected: a number in it is none, or below 0."""
    match latency:
        case Uniform(low_s=low_s, high_s=high_s):
            numbers = (low_s, high_s)
        case Exponential(mean_s=mean_s):
            numbers = (mean_s,)
        case LogNormal(median_s=median_s, sigma=sigma):
            numbers = (median_s, sigma)
        case _:
            numbers = (latency,)
    if not all(0 <= number < math.inf for number in numbers):  # also for what is not a number
        raise Rejected(f"A latency is made of numbers of 0 or more, not {latency}.")
