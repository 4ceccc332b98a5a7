"""Projects and their members, as messages of the server's API."""

from shadow.core.accounts import Member, Project, ProjectRole
from shadow.wire.message import Message


class ProjectMessage(Message, core=Project):
    id: str
    name: str
    created_at: float
    """Seconds since 1970."""


class ProjectListMessage(Message):
    projects: tuple[ProjectMessage, ...]


class NameProjectMessage(Message):
    name: str


class MemberMessage(Message, core=Member):
    user_id: str
    name: str
    role: ProjectRole


class ProjectMembersMessage(Message):
    project: ProjectMessage
    members: tuple[MemberMessage, ...]


class MemberRoleMessage(Message):
    role: ProjectRole
