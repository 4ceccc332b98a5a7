"""Stored keys over the API: who may keep and use whose, and that none comes out again: in no answer, record, log or backup."""

import json
import logging
from pathlib import Path

import aiohttp
import pytest

from shadow.core.accounts import LOCAL_USER, ProjectRole, Role
from shadow.core.keys import Payer
from shadow.db import audit
from shadow.db.backup import back_up
from shadow.db.database import FILE
from tests.support.api_servers import BAD_KEY, SEALING_KEY, serving_api
from tests.support.databases import SQLITE, Place, make_place
from tests.support.servers import Caller

pytestmark = pytest.mark.anyio

KEY = "sk-hers-0123456789abcdef"
THEIRS = "sk-theirs-0123456789abcdef"


async def test_a_key_goes_in_and_never_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    place = make_place(SQLITE, tmp_path)
    heard: list[str] = []
    async with place.open() as database, serving_api(database) as api, aiohttp.ClientSession() as session:
        _, token = await api.user("alice", Role.ADMIN)
        caller = Caller(session, api.url, token)

        async def call(method: str, path: str, body: object = None, status: int = 200) -> object:
            answer = await caller.call(method, path, body, expect=status)
            heard.append(json.dumps(answer))
            return answer

        stored = await call("PUT", "/v1/keys/anthropic", {"key": KEY})
        assert isinstance(stored, dict)
        assert (stored["provider"], stored["hint"], stored["base_url"]) == ("anthropic", "cdef", None)
        assert (await call("GET", "/v1/keys")) == {"keys": [stored]}
        await call("POST", "/v1/keys/anthropic/test")
        await call("PUT", "/v1/keys/openai", {"key": KEY, "base_url": "https://10.0.0.1/v1"}, 403)
        await call("PUT", "/v1/keys/openai", {"key": KEY, "base_url": "http://example.org/v1"}, 422)
        await call("PUT", "/v1/keys/openai", {"key": f"{KEY} with blanks"}, 422)
        await call("PUT", "/v1/keys/openai", {"key": KEY, "base_url": ["no text"]}, 422)
        await call("PUT", "/v1/keys/openai", {"key": [KEY]}, 422)
        await call("PUT", "/v1/keys/openai-chat", {"key": KEY}, 404)
        await call("PUT", "/v1/keys/openai", {"key": BAD_KEY}, 403)
        await call("GET", "/v1/audit?limit=100")
        await call("GET", "/v1/openapi.json")
        async with database.read() as connection:
            record = repr(await audit.page(connection, limit=100))
        await call("DELETE", "/v1/keys/anthropic")
        await call("DELETE", "/v1/keys/anthropic", None, 404)
        await caller.call("PUT", "/v1/keys/anthropic", {"key": KEY})
    assert "/v1/keys/{provider}" in record
    for where, said in {"answers": "".join(heard), "record": record, "log": caplog.text}.items():
        for secret in (KEY, BAD_KEY, SEALING_KEY):
            assert secret not in said, where
    back_up(tmp_path / FILE, tmp_path / "backup")
    for file in (tmp_path / FILE, tmp_path / "backup"):
        assert KEY.encode() not in file.read_bytes(), file


async def test_who_may_write_in_a_project_keeps_its_keys_and_who_reads_sees_that_they_are_there(place: Place) -> None:
    async with place.open() as database, serving_api(database) as api, aiohttp.ClientSession() as session:
        await api.accounts.first_user()
        (alice, a), (bob, b), (vera, v), (_, o) = [await api.user(name) for name in ("alice", "bob", "vera", "olga")]
        member, viewer = ProjectRole.MEMBER, ProjectRole.VIEWER
        project = await api.add_project("proj_a", (alice.id, member), (bob.id, member), (vera.id, viewer))
        hers, his, hers_too, others = [Caller(session, api.url, token) for token in (a, b, v, o)]
        keys, one = f"/v1/projects/{project}/keys", f"/v1/projects/{project}/keys/anthropic"
        await hers.call("PUT", one, {"key": THEIRS})
        await hers.call("PUT", "/v1/keys/anthropic", {"key": KEY})
        for caller in (hers, his, hers_too):
            (told,) = (await caller.call("GET", keys))["keys"]
            assert (told["added_by"], THEIRS in json.dumps(told)) == (alice.id, False)
        assert (await his.call("GET", "/v1/keys"))["keys"] == []
        await his.call("POST", f"{one}/test")
        for method, path, body in (("PUT", one, {"key": KEY}), ("DELETE", one, None), ("POST", f"{one}/test", None)):
            await hers_too.call(method, path, body, expect=403)
            await others.call(method, path, body, expect=404)
        await others.call("GET", keys, expect=404)
        async with api.keys.endpoint("anthropic", Payer(user_id=bob.id, project_id=project)) as endpoint:
            assert endpoint is not None
            assert endpoint.key == THEIRS
        await his.call("DELETE", one)
        async with api.keys.endpoint("anthropic", Payer(user_id=bob.id, project_id=project)) as endpoint:
            assert endpoint is None


async def test_only_this_hosts_own_user_names_hosts_inside_and_not_for_projects(place: Place) -> None:
    inside = {"key": KEY, "base_url": "http://127.0.0.1:1/v1"}
    async with place.open() as database, serving_api(database) as api, aiohttp.ClientSession() as session:
        local = await api.accounts.first_user()
        _, code = await api.accounts.issue_code(LOCAL_USER)
        caller = Caller(session, api.url, None)
        caller.token = (await caller.call("POST", "/v1/login", {"code": code.secret}))["secret"]
        project = await api.add_project("proj_a", (local.id, ProjectRole.MEMBER))
        await caller.call("PUT", "/v1/keys/compatible", inside)
        await caller.call("PUT", f"/v1/projects/{project}/keys/compatible", inside, expect=422)
        _, root = await api.user("root", Role.ADMIN)
        await Caller(session, api.url, root).call("PUT", "/v1/keys/compatible", inside, expect=422)


async def test_a_model_is_looked_for_on_behalf_of_whoever_pays(place: Place) -> None:
    """Of the project and of the task's owner, not of whoever says something."""
    asked: list[tuple[str | None, Payer]] = []

    async def check(name: str | None, payer: Payer) -> str:
        asked.append((name, payer))
        return name or "scripted:nothing"

    async with (
        place.open() as database,
        serving_api(database, check_model=check) as api,
        aiohttp.ClientSession() as session,
    ):
        (alice, a), (bob, b) = [await api.user(name) for name in ("alice", "bob")]
        project = await api.add_project("proj_a", (alice.id, ProjectRole.MEMBER), (bob.id, ProjectRole.MEMBER))
        hers, his = Caller(session, api.url, a), Caller(session, api.url, b)
        new = {"repository": "https://example.org/a.git", "instruction": "Mend it.", "project_id": project}
        task = (await hers.call("POST", "/v1/tasks", new))["id"]
        await hers.call("POST", "/v1/tasks", {**new, "project_id": None, "model": "anthropic:x"})
        await his.call("POST", f"/v1/tasks/{task}/messages", {"text": "On.", "model": "openai:y"}, expect=201)
        in_project = Payer(user_id=alice.id, project_id=project)
        assert asked == [(None, in_project), ("anthropic:x", Payer(user_id=alice.id)), ("openai:y", in_project)]
