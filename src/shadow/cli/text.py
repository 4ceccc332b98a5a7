"""Sizes, spans of time and durations for people."""

import re

from shadow.core.errors import Rejected

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def span(seconds: float) -> str:
    """A span of time in its one or two largest units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60 % 60, whole // 3600 % 24, whole // 86400
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


def duration_s(text: str, *, option: str) -> float:
    """Seconds from ``90``, ``1.5``, ``90s``, ``15m``, ``24h`` or ``7d``. Raises: Rejected."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise Rejected(
            f"{option} cannot be {text!r}.", mend="Give seconds, or a number with s, m, h or d: 90, 15m, 24h."
        )
    return float(match[1]) * _SECONDS[match[2] or "s"]
