"""Nothing is spent on behalf of whoever may no more, and nobody spends by more than their credential is for."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from shadow.core.accounts import ProjectId, ProjectRole, Role, Scope, User
from shadow.core.keys import Payer
from shadow.core.tasks import TaskId
from tests.support.api_servers import Api, serving_api, workspaces
from tests.support.databases import Place
from tests.support.servers import Caller

pytestmark = pytest.mark.anyio

SAY = {"text": "And this."}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Ann and Bob are members of a project; Ann began its task."""

    api: Api
    ann: User
    bob: Caller
    hers: Caller
    root: Caller
    project: ProjectId
    task: TaskId


@asynccontextmanager
async def a_scene(place: Place) -> AsyncGenerator[Scene]:
    async with place.open() as database, serving_api(database) as api, aiohttp.ClientSession() as session:
        await api.accounts.first_user()
        _, root = await api.user("root", Role.ADMIN)
        (ann, hers), (bob, his) = await api.user("ann"), await api.user("bob")
        project = await api.add_project("proj_a", (ann.id, ProjectRole.MEMBER), (bob.id, ProjectRole.MEMBER))
        task = await api.add_task("task_a", owner=ann.id, project_id=project)
        root_, hers_, his_ = [Caller(session, api.url, token) for token in (root, hers, his)]
        yield Scene(api=api, ann=ann, bob=his_, hers=hers_, root=root_, project=project, task=task)


@pytest.mark.parametrize("how", ["taken out", "shut out", "a viewer"])
async def test_whoever_left_pays_no_more(place: Place, how: str) -> None:
    async with a_scene(place) as scene:
        say = f"/v1/tasks/{scene.task}/messages"
        await scene.bob.call("POST", say, SAY)
        user = f"/v1/users/{scene.ann.id}"
        if how == "taken out":
            await scene.root.call("DELETE", f"/v1/projects/{scene.project}/members/{scene.ann.id}")
        else:
            await scene.root.call("PATCH", user, {"disabled": True} if how == "shut out" else {"role": "viewer"})
        refused = await scene.bob.call("POST", say, SAY, expect=403)
        assert "on their behalf" in refused["error"]["message"]
        await scene.bob.call("GET", f"/v1/tasks/{scene.task}")


async def test_keys_of_a_project_go_with_whoever_stored_them(place: Place) -> None:
    async with a_scene(place) as scene:
        of_project = f"/v1/projects/{scene.project}/keys"
        await scene.hers.call("PUT", f"{of_project}/openai", {"key": "sk-of-ann-0123456789"})
        await scene.bob.call("PUT", f"{of_project}/anthropic", {"key": "sk-of-bob-0123456789"})
        await scene.root.call("DELETE", f"/v1/projects/{scene.project}/members/{scene.ann.id}")
        assert [key["provider"] for key in (await scene.bob.call("GET", of_project))["keys"]] == ["anthropic"]
        async with scene.api.keys.endpoint("openai", Payer(user_id=scene.ann.id, project_id=scene.project)) as endpoint:
            assert endpoint is None


async def test_an_administrators_narrow_token_is_narrow(place: Place) -> None:
    async with a_scene(place) as scene:
        assert scene.root.token is not None
        root = await scene.api.principal(scene.root.token)
        scopes = frozenset({Scope.TASKS_READ, Scope.TASKS_WRITE})
        issued = await scene.api.accounts.issue_token(root, name="ci", scopes=scopes, expires_in_s=None)
        narrow = Caller(scene.root.session, scene.api.url, issued.secret)
        assert [task["id"] for task in (await scene.root.call("GET", "/v1/tasks"))["tasks"]] == [scene.task]
        assert (await narrow.call("GET", "/v1/tasks"))["tasks"] == []
        await narrow.call("GET", f"/v1/tasks/{scene.task}", expect=404)
        members = f"/v1/projects/{scene.project}/members/{root.user.id}"
        await narrow.call("PUT", members, {"role": "member"}, expect=404)
        await narrow.call("PUT", f"/v1/projects/{scene.project}/keys/openai", {"key": "sk-0123456789"}, expect=404)


async def test_what_is_spent_up_is_not_spent_in_a_workspace_either(shared_place: Place, tmp_path: Path) -> None:
    async with (
        shared_place.open() as database,
        workspaces(tmp_path / "w", "ws_ann") as manager,
        serving_api(database, manager) as api,
        aiohttp.ClientSession() as session,
    ):
        await api.accounts.first_user()
        ann, token = await api.user("ann")
        _, root = await api.user("root", Role.ADMIN)
        await api.add_task("task_ann", owner=ann.id, workspace_id="ws_ann")
        hers, workspace = Caller(session, api.url, token), "/v1/workspaces/ws_ann"
        command = {"argv": ["true"]}
        await hers.call("POST", f"{workspace}/commands", command)
        await Caller(session, api.url, root).call("PUT", f"/v1/users/{ann.id}/budgets", {"cpu_s_day": 0})
        refused = await hers.call("POST", f"{workspace}/commands", command, expect=413)
        assert refused["error"]["code"] == "budget_spent"
        await hers.call("GET", f"{workspace}/commands")
