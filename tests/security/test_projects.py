"""Projects: who sees and changes what their members share."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from shadow.accounts.projects import Projects
from shadow.core.accounts import ProjectRole, Role
from shadow.core.errors import Conflict
from tests.support.api_servers import Api, serving_api
from tests.support.databases import Place
from tests.support.servers import Caller

pytestmark = pytest.mark.anyio

ENDS_WITHIN_S = 15.0


@asynccontextmanager
async def callers(api: Api, *tokens: str) -> AsyncGenerator[list[Caller]]:
    async with aiohttp.ClientSession() as session:
        yield [Caller(session, api.url, token) for token in tokens]


async def test_what_is_in_a_project_is_there_for_its_members(place: Place) -> None:
    async with place.open() as database, serving_api(database) as api:
        await api.accounts.first_user()
        (_, a), (bob, b), (vera, v), (_, o) = [await api.user(name) for name in ("alice", "bob", "vera", "olga")]
        async with callers(api, a, b, v, o) as (alice, member, viewer, other):
            project = (await alice.call("POST", "/v1/projects", {"name": "Website"}))["id"]
            members = f"/v1/projects/{project}/members"
            await alice.call("PUT", f"{members}/{bob.id}", {"role": "member"})
            await alice.call("PUT", f"{members}/{vera.id}", {"role": "viewer"})
            asked = {"repository": "https://example.org/a.git", "instruction": "Mend it.", "project_id": project}
            task = (await alice.call("POST", "/v1/tasks", asked))["id"]
            own = (await alice.call("POST", "/v1/tasks", {**asked, "project_id": None}))["id"]
            for who in (alice, member, viewer):
                listed = await who.call("GET", f"/v1/tasks?project_id={project}")
                assert [one["id"] for one in listed["tasks"]] == [task]
                assert (await who.call("GET", f"/v1/tasks/{task}"))["project_id"] == project
            assert (await other.call("GET", "/v1/tasks"))["tasks"] == []
            await other.call("GET", f"/v1/tasks/{task}", expect=404)
            await member.call("GET", f"/v1/tasks/{own}", expect=404)
            await member.call("POST", f"/v1/tasks/{task}/messages", {"text": "And this."}, expect=201)
            await viewer.call("POST", f"/v1/tasks/{task}/messages", {"text": "No."}, expect=403)
            await viewer.call("DELETE", f"/v1/tasks/{task}", expect=403)
            await viewer.call("POST", "/v1/tasks", asked, expect=403)
            await other.call("POST", "/v1/tasks", asked, expect=404)
            await viewer.call("PUT", f"{members}/{vera.id}", {"role": "member"}, expect=403)
            await other.call("PUT", f"{members}/{vera.id}", {"role": "member"}, expect=404)
            await member.call("PATCH", f"/v1/projects/{project}", {"name": "Site"})
            await member.call("DELETE", f"/v1/projects/{project}", expect=409)
            await alice.call("DELETE", f"{members}/{bob.id}")
            await member.call("GET", f"/v1/tasks/{task}", expect=404)
            assert (await member.call("GET", "/v1/projects"))["projects"] == []


async def test_who_began_a_task_sees_it_no_more_once_out_of_its_project(place: Place) -> None:
    async with place.open() as database, serving_api(database) as api:
        alice, token = await api.user("alice")
        bob, _ = await api.user("bob")
        project = await api.add_project("proj_a", (alice.id, ProjectRole.MEMBER), (bob.id, ProjectRole.MEMBER))
        await api.add_task("task_a", owner=bob.id, project_id=project)
        await api.add_task("task_b", owner=alice.id, project_id=project)
        async with callers(api, token) as (caller,):
            assert len((await caller.call("GET", "/v1/tasks"))["tasks"]) == 2
            await caller.call("DELETE", f"/v1/projects/{project}/members/{alice.id}")
            assert (await caller.call("GET", "/v1/tasks"))["tasks"] == []
            await caller.call("GET", "/v1/tasks/task_b", expect=404)


async def test_what_is_open_ends_with_the_membership(shared_place: Place) -> None:
    async with shared_place.open() as database, shared_place.open() as others, serving_api(database) as api:
        alice, token = await api.user("alice")
        root, admin = await api.user("root", Role.ADMIN)
        project = await api.add_project("proj_a", (alice.id, ProjectRole.MEMBER), (root.id, ProjectRole.MEMBER))
        await api.add_task("task_a", owner=root.id, project_id=project)
        elsewhere = Projects(database=others, entropy=os.urandom)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.ws_connect(f"{api.url}/v1/tasks/task_a/events/attach") as socket:
                await elsewhere.remove_member(await api.principal(admin), project, alice.id)
                async with asyncio.timeout(ENDS_WITHIN_S):
                    await socket.receive()
                assert socket.close_code == 1008


async def test_a_member_stays_in_a_project(place: Place) -> None:
    async with place.open() as database, serving_api(database) as api:
        (alice, a), (bob, b) = [await api.user(name) for name in ("alice", "bob")]
        project = await api.add_project("proj_a", (alice.id, ProjectRole.MEMBER), (bob.id, ProjectRole.MEMBER))
        projects = Projects(database=database, entropy=os.urandom)
        outcomes = await asyncio.gather(
            projects.remove_member(await api.principal(a), project, alice.id),
            projects.set_member(await api.principal(b), project, bob.id, ProjectRole.VIEWER),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes].count(Conflict) == 1
