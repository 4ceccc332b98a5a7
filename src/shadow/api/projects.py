"""Routes of projects: parse, one call, answer."""

from typing import Any

from starlette.requests import Request

from shadow.accounts.projects import Projects
from shadow.api.access import principal
from shadow.api.acting import acting
from shadow.api.auditing import name_made
from shadow.api.creating import CREATED, HEADERS, Keep, created, once
from shadow.core.accounts import Project, ProjectId, Scope
from shadow.db.database import Transaction
from shadow.http.requests import read_message
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.wire.projects import (
    MemberMessage,
    MemberRoleMessage,
    NameProjectMessage,
    ProjectListMessage,
    ProjectMembersMessage,
    ProjectMessage,
)


class ProjectRoutes:
    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    def routes(self) -> ApiRoutes:
        one = "/v1/projects/{project_id}"
        read: dict[str, Any] = {"access": Scope.TASKS_READ}
        write: dict[str, Any] = {"access": Scope.TASKS_WRITE}
        return [
            ApiRoute(
                "POST",
                "/v1/projects",
                self.create,
                summary="Make a project, with oneself as its member.",
                body=NameProjectMessage,
                answer=ProjectMessage,
                status=CREATED,
                headers=HEADERS,
                **write,
            ),
            ApiRoute(
                "GET", "/v1/projects", self.list, summary="Those that one is in.", answer=ProjectListMessage, **read
            ),
            ApiRoute("GET", one, self.get, summary="Who is in it.", answer=ProjectMembersMessage, **read),
            ApiRoute(
                "PATCH",
                one,
                self.rename,
                summary="Give it another name.",
                body=NameProjectMessage,
                answer=ProjectMessage,
                **write,
            ),
            ApiRoute("DELETE", one, self.delete, summary="Remove it, once it has no tasks.", **write),
            ApiRoute(
                "PUT",
                f"{one}/members/{{user_id}}",
                self.set_member,
                summary="Add a user, by id or name, or give them another role.",
                body=MemberRoleMessage,
                answer=ProjectMembersMessage,
                **write,
            ),
            ApiRoute(
                "DELETE",
                f"{one}/members/{{user_id}}",
                self.remove_member,
                summary="Take a user out; what they have open of it ends.",
                **write,
            ),
        ]

    async def create(self, request: Request) -> Answer:
        asked = await read_message(request, NameProjectMessage)

        async def create(keep: Keep) -> Answer:
            async def also(transaction: Transaction, project: Project) -> None:
                await keep(transaction, ProjectMessage.of(project), _address(project))

            project = await acting(self._projects, request).create(principal(request), asked.name, also=also)
            name_made(request, project.id)
            return created(ProjectMessage.of(project), location=_address(project))

        return await once(self._projects.database, request, asked, create)

    async def list(self, request: Request) -> Answer:
        found = await self._projects.list(principal(request))
        return message_answer(ProjectListMessage(projects=tuple(ProjectMessage.of(one) for one in found)))

    async def get(self, request: Request) -> Answer:
        project, members = await self._projects.members(principal(request), _id(request))
        told = tuple(MemberMessage.of(member) for member in members)
        return message_answer(ProjectMembersMessage(project=ProjectMessage.of(project), members=told))

    async def rename(self, request: Request) -> Answer:
        asked = await read_message(request, NameProjectMessage)
        return message_answer(
            ProjectMessage.of(
                await acting(self._projects, request).rename(principal(request), _id(request), asked.name)
            )
        )

    async def delete(self, request: Request) -> Answer:
        await acting(self._projects, request).delete(principal(request), _id(request))
        return Answer(b"{}")

    async def set_member(self, request: Request) -> Answer:
        asked = await read_message(request, MemberRoleMessage)
        await acting(self._projects, request).set_member(principal(request), _id(request), _user(request), asked.role)
        return await self.get(request)

    async def remove_member(self, request: Request) -> Answer:
        await acting(self._projects, request).remove_member(principal(request), _id(request), _user(request))
        return Answer(b"{}")


def _id(request: Request) -> ProjectId:
    return ProjectId(request.path_params["project_id"])


def _address(project: Project) -> str:
    return f"/v1/projects/{project.id}"


def _user(request: Request) -> str:
    return request.path_params["user_id"]
