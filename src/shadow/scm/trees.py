"""What a commit's tree holds, listed from a repository of ours."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shadow.scm.git import Call, git

LINK, MODULE = "120000", "160000"
MAX_LISTING_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    mode: str
    object: str
    """Of a submodule: its commit."""
    size_bytes: int | None
    """``None`` for what is no file."""
    path: str


async def list_tree(repository: Path, commit: str) -> Sequence[Entry]:
    """Everything but directories. Raises: LimitExceeded: trees that unfold to more than anybody can check out."""
    call = Call(arguments=["ls-tree", "-r", "-l", "-z", commit], directory=repository, about="Listing the files")
    listing = (await git(call, limit_bytes=MAX_LISTING_BYTES)).stdout
    return [_entry(record) for record in listing.split(b"\0") if record]


def _entry(record: bytes) -> Entry:
    head, _, path = record.partition(b"\t")
    mode, _, name, size = head.decode("ascii").split()
    return Entry(mode, name, None if size == "-" else int(size), os.fsdecode(path))
