"""A range of bytes that a request asks for (RFC 9110, section 14): one range is served, everything else is the whole."""

import re

from shadow.core.errors import Rejected

_RANGE = re.compile(r"bytes\s*=\s*(\d{1,18})?\s*-\s*(\d{1,18})?\s*")


class UnsatisfiableRange(Rejected):
    """There is nothing of what was asked for."""

    code = "unsatisfiable_range"


def range_of(header: str | None, *, size_bytes: int) -> tuple[int, int] | None:
    """Where to begin and where to end (not included); ``None``: the whole. Raises: UnsatisfiableRange."""
    found = _RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or (found[1] is None and found[2] is None):
        return None
    if found[1] is None:
        start, end = max(0, size_bytes - int(found[2])), size_bytes
    else:
        start = int(found[1])
        if found[2] is not None and int(found[2]) < start:
            return None
        end = size_bytes if found[2] is None else min(size_bytes, int(found[2]) + 1)
    if start >= end:
        raise UnsatisfiableRange(f"There are {size_bytes} bytes: none of that range.")
    return start, end
