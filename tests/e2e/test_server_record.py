"""What is on record of what was done through real servers, and what is done once however often it is asked for."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.git_servers import make_repository
from tests.support.servers import Caller, Server, calling, logged_in, running

pytestmark = pytest.mark.anyio


async def answer(
    caller: Caller, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, Mapping[str, str], Any]:
    named = caller.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    async with caller.session.request(method, caller.url + path, json=body, headers=named) as response:
        return response.status, response.headers, json.loads(await response.text())


async def record(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    """Oldest first."""
    return (await caller.call("GET", f"/v1/audit?limit=1000{query}"))["entries"][::-1]


def shown(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(e["phase"], e["method"], e["route"], e["status"], e["code"]) for e in entries]


def shadow(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "SHADOW_DATA_DIR": str(home / "data")}
    argv = [sys.executable, "-c", "from shadow.cli.main import main; main()", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


async def user(caller: Caller, name: str, role: str = "member") -> tuple[str, str]:
    """Id and token."""
    invited = await caller.call("POST", "/v1/users", {"name": name, "role": role})
    async with calling(caller.url, None) as new:
        return invited["user"]["id"], (await new.call("POST", "/v1/login", {"code": invited["code"]}))["secret"]


async def test_operations_are_on_record_refused_ones_too(tmp_path: Path) -> None:
    async with running(tmp_path, SHADOW_SERVER_TRUSTED_PROXIES="127.0.0.1") as server, logged_in(server) as admin:
        viewer_id, viewer_token = await user(admin, "ann", "viewer")
        admin.session.headers["X-Forwarded-For"] = "198.51.100.7"
        issued = await admin.call("POST", "/v1/tokens", {"name": "ci", "scopes": ["tasks:read"]})
        await admin.call("GET", "/v1/tasks")  # changes nothing
        await admin.call("DELETE", "/v1/tasks/task_nowhere", expect=404)
        async with calling(server.url, viewer_token) as viewer:
            await viewer.call("POST", "/v1/users", {"name": "bob"}, expect=403)
            await viewer.call("POST", "/v1/tasks", {"repository": "x", "instruction": "y"}, expect=403)
            await viewer.call("GET", "/v1/audit", expect=403)
        async with calling(server.url, None) as nobody:
            await nobody.call("POST", "/v1/users", {"name": "bob"}, expect=401)
            await nobody.call("POST", "/v1/login", {"code": "shadow_code_wrong"}, expect=401)
        # Nobody chooses what their operations are called on record, or calls two of them the same.
        given = [await answer(admin, "DELETE", "/v1/tasks/task_same", X_Request_Id="mine") for _ in range(2)]
        told = [headers["X-Request-Id"] for _, headers, _ in given]
        assert told == [problem["request_id"] for _, _, problem in given]
        assert [entry["request"] for entry in await record(admin, "&object=task_same")] == told
        assert len({"mine", *told}) == 3
        entries = await record(admin)
        made = [entry for entry in entries if entry["route"] == "/v1/tokens"]
        assert shown(made) == [
            ("begun", "POST", "/v1/tokens", None, None),
            ("ended", "POST", "/v1/tokens", 201, None),
        ]
        assert made[0]["request"] == made[1]["request"]
        assert made[1]["object"] == issued["credential"]["id"]
        assert {entry["source"] for entry in made} == {"198.51.100.7"}
        assert {entry["user_id"] for entry in made} == {"local"}
        assert made[0]["at"] <= made[1]["at"]
        assert shown(await record(admin, "&object=task_nowhere")) == [
            ("ended", "DELETE", "/v1/tasks/{task_id}", 404, "not_found")
        ]
        login, *refused = await record(admin, f"&user_id={viewer_id}")
        assert (login["route"], login["status"]) == ("/v1/login", 201)
        assert shown(refused) == [
            ("ended", "POST", "/v1/users", 403, "denied"),
            ("ended", "POST", "/v1/tasks", 403, "denied"),
        ]
        logins = [e for e in entries if e["route"] == "/v1/login" and e["status"] == 401]
        assert [(e["user_id"], e["code"]) for e in logins] == [(None, "unauthenticated")]
        assert not [e for e in entries if e["code"] == "unauthenticated" and e["route"] != "/v1/login"]
        text = json.dumps(entries)
        for secret in (issued["secret"], viewer_token, server.code, "shadow_code_wrong"):
            assert secret not in text

        verified = shadow(tmp_path, "audit", "verify")
        assert (verified.returncode, verified.stdout.split(":")[0]) == (0, str(len(entries))), verified.stderr
        kept = verified.stdout.strip()
        listed = shadow(tmp_path, "audit", "list", "--object", "task_nowhere")
        assert "DELETE /v1/tasks/{task_id}" in listed.stdout
        assert "404 not_found" in listed.stdout
        with closing(sqlite3.connect(tmp_path / "data/shadow.db")) as database:
            database.execute("UPDATE audit SET source = '192.0.2.1' WHERE seq = 3")
            database.commit()
        changed = shadow(tmp_path, "audit", "verify", "--expect", kept)
        assert changed.returncode == 1
        assert "entry 3" in changed.stderr


async def test_what_was_done_stays_done_where_its_end_cannot_be_put_on_record(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    async with running(home) as server, logged_in(server) as caller:
        asked = {"repository": str(source), "instruction": "Do it.", "model": "scripted:/nowhere"}
        await caller.call("POST", "/v1/tasks", asked, expect=422)
        (ended,) = [e for e in await record(caller) if e["route"] == "/v1/tasks" and e["phase"] == "ended"]
        assert (ended["status"], ended["code"]) == (422, "script_refused")
        with closing(sqlite3.connect(home / "data/shadow.db", timeout=30)) as database:
            database.execute(
                "CREATE TRIGGER slow BEFORE INSERT ON audit WHEN NEW.phase = 'ended' BEGIN SELECT RAISE(FAIL, 'no'); END"
            )
            database.commit()
            await caller.call("POST", "/v1/tokens", {"name": "ci", "scopes": ["tasks:read"]})
            database.execute("DROP TRIGGER slow")
            database.commit()
        assert "audit.end_lost" in server.log()
        last = (await record(caller))[-1]
        assert (last["phase"], last["route"]) == ("begun", "/v1/tokens")
        assert shadow(home, "audit", "verify").returncode == 0


async def test_what_cannot_be_put_on_record_is_not_done(tmp_path: Path) -> None:
    async with running(tmp_path) as server, logged_in(server) as caller:
        with closing(sqlite3.connect(tmp_path / "data/shadow.db", timeout=30)) as database:
            database.execute("CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, 'no'); END")
            database.commit()
            status, _, told = await answer(caller, "POST", "/v1/tokens", {"name": "ci", "scopes": ["tasks:read"]})
            assert status >= 400, told
        names = [one["name"] for one in (await caller.call("GET", "/v1/tokens"))["credentials"]]
        assert "ci" not in names


async def create(
    caller: Caller, source: Path, key: str, instruction: str = "Do it."
) -> tuple[int, Mapping[str, str], Any]:
    asked = {"repository": str(source), "instruction": instruction, "model": f"scripted:{source / 'script.yaml'}"}
    return await answer(caller, "POST", "/v1/tasks", asked, Idempotency_Key=key)


SCRIPT = "version: 1\nsteps:\n  - text: Done.\n"


async def test_a_creation_with_a_key_happens_once_on_any_server(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    (source / "script.yaml").write_text(SCRIPT)
    home = tmp_path / "home"
    home.mkdir()
    async with running(home) as one, logged_in(one) as caller:
        other = Server(home)
        await other.start()
        try:
            async with calling(other.url, caller.token) as second:
                answers = await asyncio.gather(*(create(who, source, "k1") for who in (caller, second) * 3))
            assert {(status, told["id"]) for status, _, told in answers} == {(201, answers[0][2]["id"])}
            assert sorted(headers.get("Idempotency-Replayed", "") for _, headers, _ in answers) == [""] + ["true"] * 5
            assert len({headers["Location"] for _, headers, _ in answers}) == 1
            one.end()  # as a crash does, behind the transaction
            async with calling(other.url, caller.token) as second:
                status, headers, told = await create(second, source, "k1")
                assert (status, headers["Idempotency-Replayed"]) == (201, "true")
                assert told == answers[0][2]
                assert (await create(second, source, "k1", "Something else."))[0] == 409
                assert (await create(second, source, "k1", "Something else."))[2]["error"]["code"] == "key_reused"
                assert (await create(second, source, "k2"))[2]["id"] != told["id"]
                assert len((await second.call("GET", "/v1/tasks"))["tasks"]) == 2
                said = [
                    await answer(
                        second, "POST", f"/v1/tasks/{told['id']}/messages", {"text": "More."}, Idempotency_Key="m"
                    )
                    for _ in range(2)
                ]
                assert said[0][2] == said[1][2]
        finally:
            other.end()


async def test_keys_belong_to_their_user_and_keep_no_secret(tmp_path: Path) -> None:
    async with running(tmp_path) as server, logged_in(server) as admin:
        _, token = await user(admin, "ann")
        asked = {"name": "ci", "scopes": ["tasks:read"]}
        _, _, first = await answer(admin, "POST", "/v1/tokens", asked, Idempotency_Key="k")
        status, headers, again = await answer(admin, "POST", "/v1/tokens", asked, Idempotency_Key="k")
        assert (status, headers["Idempotency-Replayed"], again["secret"]) == (201, "true", None)
        assert again["credential"] == first["credential"]
        async with calling(server.url, token) as ann:
            _, _, others = await answer(ann, "POST", "/v1/tokens", asked, Idempotency_Key="k")
            assert others["credential"]["id"] != first["credential"]["id"]
        invited = [await answer(admin, "POST", "/v1/users", {"name": "bob"}, Idempotency_Key="b") for _ in range(2)]
        assert invited[0][2]["user"] == invited[1][2]["user"]
        assert invited[0][2]["code"]
        assert invited[1][2]["code"] is None
        assert (await answer(admin, "POST", "/v1/users", {"name": "bob"}, Idempotency_Key="c"))[0] == 409  # not kept
        assert (await answer(admin, "POST", "/v1/users", {"name": "x" * 99}, Idempotency_Key="d"))[0] == 422
        assert (await answer(admin, "POST", "/v1/users", {"name": "eve"}, Idempotency_Key="d"))[0] == 201
        assert (await answer(admin, "POST", "/v1/users", {"name": "zoe"}, Idempotency_Key="x" * 256))[0] == 422
        files = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("shadow.db*"))
        for secret in (first["secret"], others["secret"], invited[0][2]["code"]):
            assert secret.encode() not in files


async def test_who_asks_too_much_is_told_when_to_come_again(tmp_path: Path) -> None:
    limits = {"SHADOW_SERVER_USER_REQUESTS_PER_S": "10", "SHADOW_SERVER_LOGINS_PER_MIN": "6"}
    async with running(tmp_path, **limits) as server, logged_in(server) as admin:
        _, token = await user(admin, "ann")
        async with calling(server.url, token) as ann:
            answers = [await answer(ann, "GET", "/v1/me") for _ in range(200)]
            refused = next(one for one in answers if one[0] == 429)
            assert int(refused[1]["Retry-After"]) >= 1
            assert refused[2]["error"]["details"]["limit"] == "user_rate"
            await admin.call("GET", "/v1/me")  # somebody else is not concerned
        async with calling(server.url, None) as nobody:
            tries = [await answer(nobody, "POST", "/v1/login", {"code": "wrong"}) for _ in range(8)]
            assert [status for status, _, _ in tries][-1] == 429
            assert int(tries[-1][1]["Retry-After"]) >= 1
            assert tries[-1][2]["error"]["details"]["limit"] == "login_rate"
        async with calling(server.url, "shadow_token_wrong") as guesser:
            assert (await answer(guesser, "GET", "/v1/me"))[0] == 429
        await admin.call("GET", "/v1/me")  # from the same address, with a good credential
