"""Whole directory trees in and out of a workspace, as tar streams. No I/O."""

from dataclasses import dataclass

MAX_TREE_ENTRIES = 1_000_000
MAX_TREE_BYTES = 64 * 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeReceipt:
    """What an upload made."""

    files: int
    directories: int
    links: int
    size_bytes: int
