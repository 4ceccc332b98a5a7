"""What a person types for a project (an id, a unique beginning of one, or a name) and for a role in it."""

from collections.abc import Sequence

from shadow.cli.outcome import WrongUsage
from shadow.core.accounts import Project, ProjectRole
from shadow.core.errors import Conflict, NotFound


def choose_project(reference: str, projects: Sequence[Project]) -> Project:
    """The one that is meant. An exact id goes before a name, a name before the beginning of an id.

    Raises: NotFound; Conflict: several are meant.
    """
    meant = [project for project in projects if project.id == reference]
    meant = meant or [project for project in projects if project.name == reference]
    if not meant and reference:
        meant = [p for p in projects if p.id.startswith(reference) or p.id.partition("_")[2].startswith(reference)]
    if not meant:
        raise NotFound(f"You are in no project {reference!r}.", mend="`shadow project list` shows all that you see.")
    if len(meant) > 1:
        shown = ", ".join(f"{project.id} ({project.name})" for project in meant[:20])
        raise Conflict(f"{reference!r} may mean any of {shown}.", mend="Give the id.")
    return meant[0]


def project_role(text: str | None) -> ProjectRole:
    """Raises: WrongUsage."""
    if text is None:
        return ProjectRole.MEMBER
    if text not in tuple(ProjectRole):
        raise WrongUsage(f"A role in a project cannot be {text!r}.", mend=f"Choose from {', '.join(ProjectRole)}.")
    return ProjectRole(text)
