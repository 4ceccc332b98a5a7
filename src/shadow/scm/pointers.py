"""Pointers to large files: what is committed in their place, as git-lfs's docs/spec.md says. No I/O."""

import re
from dataclasses import dataclass

MAX_POINTER_BYTES = 1024
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n"
)


@dataclass(frozen=True, slots=True)
class Pointer:
    oid: str
    size_bytes: int

    @property
    def name(self) -> str:
        """In a git directory."""
        return f"lfs/objects/{self.oid[:2]}/{self.oid[2:4]}/{self.oid}"


def parse_pointer(content: bytes) -> Pointer | None:
    found = _POINTER.fullmatch(content)
    return Pointer(found[1].decode(), int(found[2])) if found else None
