"""Artifacts as values: files that are kept of a task when its workspace is gone. No I/O."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    name: str
    size_bytes: int
    made_at: float
    """Seconds since 1970."""
    version: str
    """Another one where something else was put in its place."""
