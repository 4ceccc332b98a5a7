"""Projects of a server, whose members share tasks: each method is one call of its API."""

from collections.abc import Sequence
from urllib.parse import quote

from shadow.client.calling import Caller
from shadow.core.accounts import Member, Project, ProjectId, ProjectRole
from shadow.wire.message import outgoing, to_core
from shadow.wire.projects import (
    MemberRoleMessage,
    NameProjectMessage,
    ProjectListMessage,
    ProjectMembersMessage,
    ProjectMessage,
)


class ProjectsClient:
    """Every method raises what the server tells: NotFound (also of projects that one is not in), Denied, Rejected, Conflict,
    LimitExceeded; and Unavailable or OutcomeUnknown where it does not answer. ``user``: an id, or a name."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(self, name: str) -> Project:
        """With oneself as its member."""
        message = outgoing(NameProjectMessage, {"name": name})
        return to_core(await self._caller.create(ProjectMessage, "/v1/projects", message), Project)

    async def list(self) -> Sequence[Project]:
        """Those that one is in; all, for administrators."""
        found = await self._caller.ask(ProjectListMessage, "/v1/projects")
        return [to_core(message, Project) for message in found.projects]

    async def get(self, project_id: ProjectId) -> tuple[Project, Sequence[Member]]:
        return _with_members(await self._caller.ask(ProjectMembersMessage, _path(project_id)))

    async def rename(self, project_id: ProjectId, name: str) -> Project:
        message = outgoing(NameProjectMessage, {"name": name})
        changed = await self._caller.change(ProjectMessage, "PATCH", _path(project_id), message, repeatable=True)
        return to_core(changed, Project)

    async def delete(self, project_id: ProjectId) -> None:
        """Raises Conflict while there are tasks in it."""
        await self._caller.tell("DELETE", _path(project_id))

    async def set_member(
        self, project_id: ProjectId, user: str, *, role: ProjectRole = ProjectRole.MEMBER
    ) -> tuple[Project, Sequence[Member]]:
        """Add a user, or give them another role."""
        message = outgoing(MemberRoleMessage, {"role": role})
        path = _path(project_id, "members", user)
        return _with_members(await self._caller.change(ProjectMembersMessage, "PUT", path, message, repeatable=True))

    async def remove_member(self, project_id: ProjectId, user: str) -> None:
        """What they have open of it ends."""
        await self._caller.tell("DELETE", _path(project_id, "members", user))


def _path(*parts: str) -> str:
    return "/".join(["/v1/projects", *(quote(part, safe="") or "-" for part in parts)])


def _with_members(message: ProjectMembersMessage) -> tuple[Project, Sequence[Member]]:
    return to_core(message.project, Project), [to_core(member, Member) for member in message.members]
