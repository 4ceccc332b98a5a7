"""What a person types for a workspace (an id, a unique beginning of one, or a name), a command or a terminal."""

from collections.abc import Sequence
from typing import TypeVar

from shadow.core.commands import Command
from shadow.core.errors import Conflict, NotFound
from shadow.core.terminals import Terminal
from shadow.core.workspaces import WorkspaceStatus

Part = TypeVar("Part", bound=Command | Terminal)


def choose(reference: str, statuses: Sequence[WorkspaceStatus]) -> WorkspaceStatus:
    """The one workspace meant. An exact id goes before a name, a name before the beginning of an id.

    Raises: NotFound, Conflict: several are meant.
    """
    for status in statuses:
        if status.id == reference:
            return status
    meant = [status for status in statuses if reference and status.name == reference]
    if not meant and reference:
        # The part before the underscore is the same for all: `ws_4kz…` may be given as `4kz`.
        meant = [s for s in statuses if s.id.startswith(reference) or s.id.partition("_")[2].startswith(reference)]
    if not meant:
        raise NotFound(f"There is no workspace {reference!r}.", mend="`shadow workspace list` shows all.")
    if len(meant) > 1:
        ids: list[str] = [status.id for status in meant]
        raise Conflict(
            f"{reference!r} may mean any of {', '.join(ids)}.",
            mend="Give more of the id.",
            details={"workspaces": ids},
        )
    return meant[0]


def choose_part(reference: str, parts: Sequence[Part], *, noun: str, mend: str) -> Part:
    """The one command or terminal meant by an id or a unique beginning of one. Raises: NotFound, Conflict."""
    meant = [part for part in parts if part.id == reference]
    if not meant and reference:
        meant = [p for p in parts if p.id.startswith(reference) or p.id.partition("_")[2].startswith(reference)]
    if not meant:
        raise NotFound(f"There is no {noun} {reference!r} in this workspace.", mend=mend)
    if len(meant) > 1:
        ids: list[str] = [part.id for part in meant]
        raise Conflict(f"{reference!r} may mean any of {', '.join(ids[:20])}.", mend="Give more of the id.")
    return meant[0]
