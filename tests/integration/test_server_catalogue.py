"""What a server offers for new tasks, over HTTP: repositories and their branches, models, settings."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from shadow.client.shadow import Shadow
from shadow.core.accounts import CredentialKind, ProjectId, ProjectRole, Role, UserId
from shadow.core.errors import Denied, NotFound, Rejected, ShadowError, Unavailable
from shadow.core.tasks import TaskState
from shadow.db import tasks as rows
from shadow.db.database import open_database
from shadow.settings import Settings
from tests.support.api_servers import Api, serving_api
from tests.support.git_servers import commit, git, http_server, make_repository
from tests.support.rows import make_task

pytestmark = pytest.mark.anyio

SECRET = "sk-very-secret"


@dataclass(frozen=True, kw_only=True)
class World:
    api: Api

    @asynccontextmanager
    async def client(self, token: str) -> AsyncGenerator[Shadow]:
        async with Shadow(self.api.url, token=token) as shadow:
            yield shadow

    async def local(self) -> str:
        """A token of the server's own user."""
        user = await self.api.accounts.first_user()
        _, code = await self.api.accounts.issue_code(user.id)
        return (await self.api.accounts.log_in(code.secret, CredentialKind.TOKEN, name="test")).secret

    async def get(self, token: str, path: str) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
            session.get(self.api.url + path) as response,
        ):
            return response.status, await response.read()

    async def add(
        self, id_: str, repository: str, owner: UserId, *, at: float, project: ProjectId | None = None
    ) -> None:
        task = replace(make_task(id_, created_at=at), repository=repository, owner=owner, project_id=project)
        async with self.api.database.write() as transaction:
            await rows.add(transaction, replace(task, state=TaskState.IDLE))


@asynccontextmanager
async def served(directory: Path, **settings: object) -> AsyncGenerator[World]:
    async with (
        open_database(directory, url="sqlite://") as database,
        serving_api(database, settings=Settings.model_validate({"data_dir": directory / "data", **settings})) as api,
    ):
        yield World(api=api)


# Repositories


async def test_one_sees_the_repositories_of_the_tasks_that_one_sees(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        alice, token = await at.api.user("alice")
        bob, others = await at.api.user("bob")
        _, root = await at.api.user("root", Role.ADMIN)
        shared = await at.api.add_project("proj_x", (alice.id, ProjectRole.MEMBER), (bob.id, ProjectRole.VIEWER))
        for number in range(3):
            await at.add(f"task_a{number}", "https://git.example/alices.git", alice.id, at=10.0 + number)
        await at.add("task_s", "https://git.example/shared.git", alice.id, at=20.0, project=shared)
        await at.add("task_b", "/srv/bobs \udcff", bob.id, at=15.0)
        for who, wanted in (
            (token, [("shared", 1, 20.0), ("alices", 3, 12.0)]),
            (others, [("shared", 1, 20.0), ("bobs \udcff", 1, 15.0)]),
            (root, [("shared", 1, 20.0), ("bobs \udcff", 1, 15.0), ("alices", 3, 12.0)]),
        ):
            async with at.client(who) as shadow:
                found = await shadow.repositories.list()
                assert [(one.name, one.tasks, one.used_at) for one in found] == wanted
                assert [one.name for one in await shadow.repositories.list(limit=1)] == ["shared"]


async def test_pages_of_repositories_have_each_once(tmp_path: Path) -> None:
    async with served(tmp_path) as at:
        alice, token = await at.api.user("alice")
        for number in range(7):  # some at the same time
            await at.add(f"task_{number}", f"https://git.example/~{number}.git", alice.id, at=float(number // 3))
        seen: list[str] = []
        before = ""
        while True:
            status, body = await at.get(token, f"/v1/repositories?limit=2{before}")
            assert status == 200
            page = json.loads(body)
            seen += [one["name"] for one in page["repositories"]]
            if page["next"] is None:
                break
            before = f"&before={page['next']}"
        assert seen == ["~6", "~3", "~4", "~5", "~0", "~1", "~2"]
        for wrong in ("x", "1", "x~y", "~"):
            assert (await at.get(token, f"/v1/repositories?before={wrong}"))[0] == 422, wrong
        assert (await at.get(token, "/v1/repositories?before=nan~x"))[0] in (200, 422)


async def test_branches_are_asked_of_where_the_repository_is(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "source", {"a": b"1"}, branch="trunk")
    git(source, "branch", "feature/ä")
    git(source, "tag", "-a", "v1", "-m", "one")
    async with served(tmp_path) as at, at.client(await at.local()) as shadow:
        found = await shadow.repositories.branches(str(source))
        assert (found.default, found.branches, found.tags) == ("trunk", ("feature/ä", "trunk"), ("v1",))
        assert not found.truncated
        git(source, "symbolic-ref", "HEAD", "refs/heads/unborn")
        assert (await shadow.repositories.branches(str(source))).default is None
        assert not (tmp_path / "data" / "mirrors").exists()
        with pytest.raises(NotFound):
            await shadow.repositories.branches(str(tmp_path / "nothing"))
        with pytest.raises(Rejected):
            await shadow.repositories.branches("--upload-pack=touch /tmp/x")


async def test_only_those_who_may_begin_tasks_look_and_not_inside(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "served" / "source", {"a": b"1"})
    with http_server(tmp_path / "served") as serving:
        async with served(tmp_path) as at:
            async with at.client(await at.local()) as shadow:
                assert (await shadow.repositories.branches(f"{serving.url}/source")).branches == ("main",)
            _, member = await at.api.user("alice")
            _, root = await at.api.user("root", Role.ADMIN)
            for token in (member, root):
                async with at.client(token) as shadow:
                    for inside in (str(source), f"{serving.url}/source", "file:///etc"):
                        with pytest.raises(Rejected):
                            await shadow.repositories.branches(inside)
                    port = serving.url.rpartition(":")[2]
                    for inside in (
                        f"https://127.0.0.1:{port}/source",
                        f"https://localhost:{port}/x",
                        "ssh://a@127.0.0.1/x",
                    ):
                        with pytest.raises(Denied):
                            await shadow.repositories.branches(inside)
            _, viewer = await at.api.user("vera", Role.VIEWER)
            async with at.client(viewer) as shadow:
                with pytest.raises(Denied):
                    await shadow.repositories.branches(f"{serving.url}/source")


async def test_few_look_at_once(tmp_path: Path) -> None:
    """Others are told to come again, and who looks is not kept from it for good."""
    source = make_repository(tmp_path / "source", {"a": b"1"})

    async def look(shadow: Shadow) -> type[ShadowError] | None:
        try:
            await shadow.repositories.branches(str(source))
        except ShadowError as error:
            return type(error)
        return None

    async with served(tmp_path) as at, at.client(await at.local()) as shadow:
        answers = await asyncio.gather(*(look(shadow) for _ in range(30)))
        assert set(answers) <= {None, Unavailable}
        assert None in answers
        assert await look(shadow) is None


async def test_a_list_of_many_branches_says_that_it_was_cut(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "source", {"a": b"1"})
    head = commit(source, {"b": b"2"}, "two")
    git(
        source, "update-ref", "--stdin", stdin="".join(f"create refs/heads/b{n} {head}\n" for n in range(5100)).encode()
    )
    async with served(tmp_path) as at, at.client(await at.local()) as shadow:
        found = await shadow.repositories.branches(str(source))
        assert (len(found.branches), found.truncated, found.default) == (5000, True, "main")


# Models


async def test_models_say_whether_they_can_be_asked(tmp_path: Path) -> None:
    given = {
        "model": "anthropic:claude-sonnet-5",
        "anthropic_api_key": SecretStr(SECRET),
        "openai_api_key": SecretStr(" "),
    }
    async with served(tmp_path, **given) as at:
        _, token = await at.api.user("vera", Role.VIEWER)
        async with at.client(token) as shadow:
            assert await shadow.models.default() == "anthropic:claude-sonnet-5"
            offers = {offer.name: offer for offer in await shadow.models.providers()}
            assert {name for name, offer in offers.items() if offer.can_be_asked} == {"anthropic", "ollama"}
            assert offers["compatible"].lacks is not None
            assert "SHADOW_COMPATIBLE_BASE_URL" in offers["compatible"].lacks
            assert all((offer.lacks is None) == offer.can_be_asked for offer in offers.values())
        assert SECRET.encode() not in (await at.get(token, "/v1/models"))[1]


async def test_what_is_known_of_a_model_is_told(tmp_path: Path) -> None:
    async with served(tmp_path, compatible_base_url="http://127.0.0.1:1") as at:
        _, token = await at.api.user("alice")
        async with at.client(token) as shadow:
            known = await shadow.models.about("openrouter:anthropic/claude-sonnet-4.5")
            assert (known.provider, known.can_be_asked) == ("openrouter", False)
            known = await shadow.models.about("anthropic:claude-sonnet-4-5")
            assert known.price is not None
            assert known.price.output > known.price.input > 0
            assert known.context_tokens >= 100_000
            unknown = await shadow.models.about("compatible: my/model ")
            assert (unknown.name, unknown.price, unknown.can_be_asked) == ("compatible:my/model", None, True)
            for wrong in ("nobody:x", "anthropic", "anthropic:", "x" * 400):
                with pytest.raises(Rejected):
                    await shadow.models.about(wrong)


async def test_asking_for_models_loads_no_sdk(tmp_path: Path) -> None:
    code = (
        "import sys, shadow.api.main, shadow.api.models as m; from shadow.settings import Settings;"
        "from shadow.agent.providers.making import ModelOptions, named;"
        "m._facts(*named('anthropic:claude-sonnet-5'), ModelOptions());"
        "print(sorted({'anthropic', 'openai', 'pydantic_ai'} & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"[]\n")


# Settings


async def test_settings_are_told_and_secrets_are_not(tmp_path: Path) -> None:
    given = {
        "openai_api_key": SecretStr(SECRET),
        "database_url": SecretStr(f"postgresql://u:{SECRET}@h/n"),
        "git_proxy": f"http://user:{SECRET}@proxy.example:3128",
        "sandbox_uids": "200000-200999",
    }
    async with served(tmp_path, **given) as at:
        _, root = await at.api.user("root", Role.ADMIN)
        status, body = await at.get(root, "/v1/settings")
        assert status == 200
        assert SECRET.encode() not in body
        found = {one["name"]: one for one in json.loads(body)["settings"]}
        assert set(found) == set(Settings.model_fields)
        key = found["openai_api_key"]
        assert (key["is_secret"], key["is_set"], key["value"], key["variable"]) == (
            True,
            True,
            None,
            "SHADOW_OPENAI_API_KEY",
        )
        assert found["anthropic_api_key"]["is_set"] is False
        assert found["git_proxy"]["value"] == "http://…@proxy.example:3128"
        assert found["sandbox_uids"]["value"] == "200000-200999"
        assert (found["lease_s"]["value"], found["lease_s"]["default"], found["lease_s"]["unit"]) == (
            86400.0,
            86400.0,
            "seconds",
        )
        assert found["server_listen"]["value"] == "127.0.0.1:8765"
        assert found["sidecar_retry_waits_s"]["value"] == [1.0, 2.0, 4.0]
        _, member = await at.api.user("alice")
        assert (await at.get(member, "/v1/settings"))[0] == 403


async def test_what_holds_by_default_is_told_to_everybody(tmp_path: Path) -> None:
    async with served(tmp_path, egress="pypi .example.org", limit_processes=99, model="ollama:x") as at:
        _, viewer = await at.api.user("vera", Role.VIEWER)
        status, body = await at.get(viewer, "/v1/defaults")
        assert status == 200
        found = json.loads(body)
        assert (found["model"], found["egress"]) == ("ollama:x", ["pypi", ".example.org"])
        assert found["limits"]["processes"] == 99
        assert found["limits"]["cpus"] is None
        assert found["delete_after_s"] is None
        assert set(found["budgets"]) >= {"tokens_day", "usd_month"}
