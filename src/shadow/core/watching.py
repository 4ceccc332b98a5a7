"""Changes of files as they are told to whoever watches a workspace. No I/O, no clock."""

from dataclasses import dataclass
from enum import StrEnum


class ChangeKind(StrEnum):
    CREATED = "created"
    MODIFIED = "modified"
    """Content or mode."""
    DELETED = "deleted"
    RENAMED = "renamed"
    """Within what is watched; a move in or out of it is ``created`` or ``deleted``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    kind: ChangeKind
    path: str
    """Where it is now; of what was deleted, where it was."""
    source: str | None = None
    """Where it was before, of what was renamed."""
    is_directory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """The first thing told: changes from here on are seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChanges:
    """What changed within a short time, in order; between two renames each path and kind once.

    Whoever begins with what is there after ``Watching`` and follows it knows every name. Something may be told as created
    that was told before: it was seen in a new directory, and by its own event.
    """

    changes: tuple[FileChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesMissed:
    """Anything may have changed since the last event: look again. Told instead of silence."""

    reason: str
    """For people: too many changes at once, a git operation, a disconnect."""
