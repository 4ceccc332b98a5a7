"""Text for a terminal: hostile characters made harmless; sizes, spans of time and durations for people."""

import re

from shadow.core.errors import Rejected

# Control characters (C0, DEL, C1), characters that reorder or hide text, and the surrogates that carry undecodable bytes.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def printable(text: str) -> str:
    """``text`` on one line, with what could steer a terminal or deceive a reader written as an escape."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    point = ord(match[0])
    if 0xDC80 <= point <= 0xDCFF:
        return f"\\x{point - 0xDC00:02x}"  # the byte that surrogateescape stands for
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(match[0]) or (
        f"\\x{point:02x}" if point < 256 else f"\\u{point:04x}"
    )


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
