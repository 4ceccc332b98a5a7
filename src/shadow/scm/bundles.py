"""The head of a git bundle, read by hand before git sees any of it: which object format, which bases, which refs. No I/O.

Format: ``# v2 git bundle`` or ``# v3 git bundle``, capabilities (``@name=value``, v3), prerequisites (``-<object> <comment>``),
refs (``<object> <name>``), an empty line, a pack. Source: gitformat-bundle(5).
"""

import os
from dataclasses import dataclass

from shadow.core.repositories import is_commit
from shadow.scm.failures import UnsoundRepository

MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleHeader:
    object_format: str
    bases: tuple[str, ...]
    refs: tuple[tuple[str, str], ...]
    """Names and objects."""
    pack_offset: int


def parse_header(data: bytes) -> BundleHeader:
    """``data``: the bundle's first ``MAX_HEADER_BYTES`` and 4, or all of it. Raises: UnsoundRepository."""
    lines = data[:MAX_HEADER_BYTES].split(b"\n")
    if lines[0] not in (b"# v2 git bundle", b"# v3 git bundle"):
        raise UnsoundRepository("What the workspace handed out is not a git bundle.")
    object_format, offset = "sha1", len(lines[0]) + 1
    bases: list[str] = []
    refs: list[tuple[str, str]] = []
    for line in lines[1:-1]:
        offset += len(line) + 1
        if not line:
            if data[offset : offset + 4] != b"PACK":
                break
            return BundleHeader(object_format=object_format, bases=tuple(bases), refs=tuple(refs), pack_offset=offset)
        if line.startswith(b"@object-format="):
            object_format = line.partition(b"=")[2].decode("ascii", "replace")
        elif line.startswith(b"@"):
            raise UnsoundRepository("The bundle asks for a capability that Shadow does not take.")
        elif line.startswith(b"-"):
            bases.append(_object(line[1:].partition(b" ")[0]))
        else:
            value, _, name = line.partition(b" ")
            refs.append((os.fsdecode(name), _object(value)))
    raise UnsoundRepository("The head of the bundle that the workspace handed out is damaged or too long.")


def _object(text: bytes) -> str:
    name = text.decode("ascii", "replace")
    if not is_commit(name):
        raise UnsoundRepository("The bundle names something that is no object.")
    return name
