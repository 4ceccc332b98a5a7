"""Routes of what tasks did and left: their runs, their artifacts, their work as a patch."""

import asyncio
from typing import Any

from starlette.requests import Request

from shadow.api.access import task
from shadow.core.accounts import Scope
from shadow.core.errors import NotFound
from shadow.core.tasks import Task
from shadow.http.downloads import TAKES, TELLS, download
from shadow.http.holds import Holds
from shadow.http.requests import read_query
from shadow.http.responses import Answer, ByteStream, NotModified, message_answer
from shadow.http.routes import OCTETS, ApiRoute, ApiRoutes, Raw
from shadow.storage.artifacts import ArtifactStore
from shadow.tasks.elsewhere import is_elsewhere
from shadow.tasks.looking import delivered, patch_of, runs
from shadow.tasks.service import Tasks
from shadow.wire.runs import (
    ArtifactListMessage,
    ArtifactMessage,
    ArtifactsQuery,
    RunListMessage,
    RunMessage,
    RunsQuery,
)

PATCH = "text/x-patch"


class ResultRoutes:
    def __init__(self, tasks: Tasks, artifacts: ArtifactStore, holds: Holds) -> None:
        self._tasks = tasks
        self._artifacts = artifacts
        self._holds = holds

    def routes(self) -> ApiRoutes:
        one = "/v1/tasks/{task_id}"
        read: dict[str, Any] = {"access": Scope.TASKS_READ}
        return [
            ApiRoute(
                "GET",
                f"{one}/runs",
                self.runs,
                summary="What was said to the agent, and how each time ended.",
                query=RunsQuery,
                answer=RunListMessage,
                **read,
            ),
            ApiRoute(
                "GET",
                f"{one}/artifacts",
                self.artifacts,
                summary="Files that are kept of it, also when its workspace is gone.",
                query=ArtifactsQuery,
                answer=ArtifactListMessage,
                **read,
            ),
            ApiRoute(
                "GET",
                f"{one}/artifacts/{{name}}",
                self.artifact,
                summary="The bytes of an artifact.",
                answer=Raw(about="The bytes.", headers=TELLS),
                headers=TAKES,
                **read,
            ),
            ApiRoute(
                "GET",
                f"{one}/patch",
                self.patch,
                summary="What it delivered last, for `git am` or `git apply`.",
                answer=Raw(
                    about="The patch.",
                    media_types=(PATCH,),
                    headers={
                        "Shadow-Commit": "The commit that was delivered.",
                        "Content-Disposition": TELLS["Content-Disposition"],
                    },
                ),
                **read,
            ),
        ]

    async def runs(self, request: Request) -> Answer:
        query = read_query(request, RunsQuery)
        found = await runs(self._tasks.database, task(request).id, after=query.after, limit=query.limit)
        last = found[-1].seq if len(found) == query.limit else None
        return message_answer(RunListMessage(runs=tuple(RunMessage.of(run) for run in found), next=last))

    async def artifacts(self, request: Request) -> Answer:
        query = read_query(request, ArtifactsQuery)
        self._check_here(task(request))
        found = await asyncio.to_thread(self._artifacts.list, task(request).id)
        behind = [one for one in found if one.name > query.after]
        page = behind[: query.limit]
        return message_answer(
            ArtifactListMessage(
                artifacts=tuple(ArtifactMessage.of(one) for one in page),
                next=page[-1].name if len(behind) > len(page) else None,
            )
        )

    async def artifact(self, request: Request) -> Answer | ByteStream | NotModified:
        self._check_here(task(request))
        return await self._download(request, request.path_params["name"], media_type=OCTETS, headers={})

    async def patch(self, request: Request) -> Answer | ByteStream | NotModified:
        of = task(request)
        work = await delivered(self._tasks.database, of.id)
        headers = {b"shadow-commit": work.commit.encode()}
        if work.artifact is None:
            name = f'attachment; filename="{of.id}.patch"'.encode()
            return Answer(patch_of(work), media_type=PATCH.encode(), headers={**headers, b"content-disposition": name})
        self._check_here(of)
        return await self._download(request, work.artifact, media_type=PATCH, headers=headers)

    async def _download(
        self, request: Request, name: str, *, media_type: str, headers: dict[bytes, bytes]
    ) -> Answer | ByteStream | NotModified:
        file, artifact = await asyncio.to_thread(self._artifacts.open, task(request).id, name)
        return download(
            request,
            file,
            self._holds,
            name=artifact.name,
            media_type=media_type.encode(),
            version=artifact.version,
            headers=headers,
        )

    def _check_here(self, of: Task) -> None:
        """Raises: NotFound: another host has its artifacts."""
        if is_elsewhere(of, self._tasks.host):
            raise NotFound(
                f"The artifacts of {of.id} are on the host {of.host}.",
                mend="Ask the server there.",
                details={"host": of.host},
            )
