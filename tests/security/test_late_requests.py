"""Requests that were let in and take their time: what was taken from their sender meanwhile, they no longer use."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from shadow.accounts.projects import Projects
from shadow.core.accounts import ProjectId, ProjectRole, Role, User
from shadow.core.errors import Conflict, NotFound, ShadowError
from shadow.core.ids import WorkspaceId
from shadow.core.repositories import RemoteRepository, Scheme
from shadow.core.tasks import TaskId
from shadow.db import tasks as rows
from shadow.db.database import Database
from shadow.tasks.service import Tasks
from tests.support.api_servers import Api, serving_api, workspaces
from tests.support.databases import Place
from tests.support.servers import Caller

pytestmark = pytest.mark.anyio

WITHIN_S = 20.0
NEW = {"repository": "https://example.org/a.git", "instruction": "Mend it."}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Ann is a member of a project that has a task; Bob is, too."""

    api: Api
    ann: User
    token: str
    project: ProjectId
    task: TaskId
    root: Caller


@asynccontextmanager
async def a_scene(place: Place) -> AsyncGenerator[Scene]:
    async with place.open() as database, serving_api(database) as api, aiohttp.ClientSession() as session:
        await api.accounts.first_user()
        _, root = await api.user("root", Role.ADMIN)
        (ann, token), (bob, _) = [await api.user(name) for name in ("ann", "bob")]
        members = [(one.id, ProjectRole.MEMBER) for one in (ann, bob)]
        project = await api.add_project("proj_a", *members)
        task = await api.add_task("task_a", owner=bob.id, project_id=project)
        yield Scene(api=api, ann=ann, token=token, project=project, task=task, root=Caller(session, api.url, root))


async def late(scene: Scene, method: str, path: str, body: object, meanwhile: Callable[[], Awaitable[object]]) -> int:
    """The status of a request whose body is sent when it has been let in and ``meanwhile`` is over."""
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(*scene.api.host.split(":"))
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: {scene.api.host}\r\nAuthorization: Bearer {scene.token}\r\n"
        head += f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(WITHIN_S):
            assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # the handler asks for the body
            await meanwhile()
            writer.write(data)
            answer = await reader.read()
    finally:
        writer.close()
    return int(answer.split()[1])


async def tasks_of(database: Database) -> list[str]:
    async with database.read() as connection:
        return sorted(task.id for task in await rows.newest(connection))


TAKEN: dict[str, tuple[str, str, object, int]] = {
    "out of the project": ("DELETE", "/v1/projects/{project}/members/{ann}", None, 404),
    "only a viewer of it": ("PUT", "/v1/projects/{project}/members/{ann}", {"role": "viewer"}, 403),
    "shut out": ("PATCH", "/v1/users/{ann}", {"disabled": True}, 401),
    "another role": ("PATCH", "/v1/users/{ann}", {"role": "viewer"}, 503),
}
ASKED: dict[str, tuple[str, str, object]] = {
    "begin": ("POST", "/v1/tasks", NEW | {"project_id": "{project}"}),
    "say": ("POST", "/v1/tasks/{task}/messages", {"text": "And this."}),
    "roll back": ("POST", "/v1/tasks/{task}/rollback", {"checkpoint": "cp_1"}),
    "order": ("PUT", "/v1/tasks/{task}/queue", {"ids": []}),
    "rename": ("PATCH", "/v1/projects/{project}", {"name": "Other"}),
    "store a key": ("PUT", "/v1/projects/{project}/keys/openai", {"key": "sk-of-the-project-0123"}),
}


@pytest.mark.parametrize(
    ("asked", "taken"),
    [*((asked, "out of the project") for asked in ASKED), *(("say", taken) for taken in [*TAKEN][1:])],
)
async def test_what_is_taken_while_a_body_comes_is_no_longer_used(place: Place, asked: str, taken: str) -> None:
    async with a_scene(place) as scene:

        def filled(text: str) -> str:
            return text.format(project=scene.project, ann=scene.ann.id, task=scene.task)

        method, path, change, expected = TAKEN[taken]

        async def take() -> None:
            await scene.root.call(method, filled(path), change)

        how, where, body = ASKED[asked]
        body = json.loads(json.dumps(body).replace("{project}", scene.project))
        assert await late(scene, how, filled(where), body, take) == expected
        assert await tasks_of(scene.api.database) == [scene.task]
        assert await Tasks(database=scene.api.database, shown=str, entropy=os.urandom).queue(scene.task) == []


async def test_whoever_is_shut_out_meanwhile_gets_no_token(place: Place) -> None:
    async with a_scene(place) as scene:

        async def shut_out() -> None:
            await scene.root.call("PATCH", f"/v1/users/{scene.ann.id}", {"disabled": True})

        body = {"name": "spare", "scopes": ["tasks:read"]}
        assert await late(scene, "POST", "/v1/tokens", body, shut_out) == 401
        assert await scene.api.accounts.credentials(scene.ann.id) == []


@pytest.mark.parametrize("gone", ["the project", "the task", "the token"])
async def test_what_goes_while_a_body_comes_is_not_found(place: Place, gone: str) -> None:
    async with a_scene(place) as scene:
        database = scene.api.database

        async def go() -> None:
            if gone != "the token":
                async with database.write() as transaction:
                    await rows.delete(transaction, scene.task)
            if gone == "the project":
                await scene.root.call("DELETE", f"/v1/projects/{scene.project}")
            if gone == "the token":
                (credential,) = await scene.api.accounts.credentials(scene.ann.id)
                await scene.api.accounts.revoke(scene.ann.id, credential.id)

        new = NEW | {"project_id": scene.project}
        say = (f"/v1/tasks/{scene.task}/messages", {"text": "And this."})
        path, body = say if gone == "the task" else ("/v1/tasks", new)
        assert await late(scene, "POST", path, body, go) == (401 if gone == "the token" else 404)
        assert await tasks_of(database) == ([scene.task] if gone == "the token" else [])


async def test_an_upload_ends_with_the_right_to_it(shared_place: Place, tmp_path: Path) -> None:
    async with (
        shared_place.open() as database,
        workspaces(tmp_path / "w", "ws_ann") as manager,
        serving_api(database, manager) as api,
    ):
        await api.accounts.first_user()
        ann, token = await api.user("ann")
        await api.add_task("task_ann", owner=ann.id, workspace_id="ws_ann")
        reader, writer = await asyncio.open_connection(*api.host.split(":"))
        try:
            head = f"PUT /v1/workspaces/ws_ann/files?path=late HTTP/1.1\r\nHost: {api.host}\r\n"
            head += f"Authorization: Bearer {token}\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
            writer.write(head.encode())
            async with asyncio.timeout(WITHIN_S):
                assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
                writer.write(b"x" * 50)
                await api.accounts.change(ann.id, disabled=True)
                answer = await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.close()
        assert b" 401 " in answer.splitlines()[0]
        async with await manager.attach(WorkspaceId("ws_ann")) as executor:
            with pytest.raises(NotFound):
                await executor.stat("late")


# At the very same moment, on two servers


REPOSITORY = RemoteRepository(scheme=Scheme.HTTPS, host="example.org", port=443, url="https://example.org/a.git")


async def test_a_project_that_is_deleted_as_a_task_begins_in_it_has_it_or_is_not_there(shared_place: Place) -> None:
    async with shared_place.open() as one, shared_place.open() as other, serving_api(one) as api:
        user, token = await api.user("ann")
        who = await api.principal(token)
        projects = Projects(database=other, entropy=os.urandom)
        async with aiohttp.ClientSession() as session:
            ann = Caller(session, api.url, token)
            for number in range(30):
                project = await api.add_project(f"proj_{number}", (user.id, ProjectRole.MEMBER))
                new = NEW | {"project_id": project}
                begun, deleted = await asyncio.gather(
                    session.post(f"{api.url}/v1/tasks", json=new, headers=ann.headers),
                    _outcome(projects.delete(who, project)),
                )
                async with begun:
                    if deleted is None:
                        assert begun.status == 404, await begun.text()
                    else:
                        assert isinstance(deleted, Conflict)
                        assert begun.status == 201, await begun.text()


async def _outcome(call: Awaitable[None]) -> ShadowError | None:
    try:
        await call
    except ShadowError as error:
        return error
    return None


async def test_one_key_sent_many_times_at_once_makes_one_task(shared_place: Place) -> None:
    async with (
        shared_place.open() as one,
        shared_place.open() as other,
        serving_api(one) as api,
        serving_api(other) as second,
        aiohttp.ClientSession() as session,
    ):
        _, token = await api.user("ann")
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "once"}

        async def create(number: int) -> tuple[int, str]:
            url = (api, second)[number % 2].url
            async with session.post(f"{url}/v1/tasks", json=NEW, headers=headers) as answer:
                return answer.status, (await answer.json())["id"]

        answers = await asyncio.gather(*(create(number) for number in range(16)))
        assert {status for status, _ in answers} == {201}
        assert [id_ for _, id_ in answers] == await tasks_of(one) * 16


async def test_a_task_that_is_deleted_while_it_is_spoken_to_says_so(shared_place: Place) -> None:
    async with shared_place.open() as one, shared_place.open() as other, serving_api(one) as api:
        user, token = await api.user("ann")
        async with aiohttp.ClientSession() as session:
            for number in range(30):
                task = await api.add_task(f"task_{number}", owner=user.id)

                async def delete(task: TaskId = task) -> None:
                    async with other.write() as transaction:
                        await rows.delete(transaction, task)

                url = f"{api.url}/v1/tasks/{task}/messages"
                headers = {"Authorization": f"Bearer {token}"}
                answer, _ = await asyncio.gather(session.post(url, json={"text": "Hello"}, headers=headers), delete())
                async with answer:
                    assert answer.status in (201, 404), await answer.text()
