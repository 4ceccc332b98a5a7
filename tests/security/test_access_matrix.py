"""Promise 7: every route and every socket of the server, by everybody who might ask, and what they are told."""

import re
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from yarl import URL

from shadow.api.access import needed
from shadow.core.accounts import SCOPES_OF, CredentialKind, ProjectRole, Role, Scope
from shadow.db.database import open_database
from shadow.http.routes import ApiSocket
from tests.support.api_servers import Api, serving_api, workspaces

pytestmark = pytest.mark.anyio

PUBLIC, SIGNED_IN = "public", "signed in"
W = "/v1/workspaces/{workspace_id}"
T = "/v1/tasks/{task_id}"
P = "/v1/projects/{project_id}"
EXPECTED: Mapping[tuple[str, str], str] = {
    ("GET", "/v1/health/live"): PUBLIC,
    ("GET", "/v1/health/ready"): PUBLIC,
    ("GET", "/metrics"): Scope.METRICS,
    ("GET", "/v1/audit"): Scope.ADMIN,
    ("GET", "/v1/usage"): Scope.ACCOUNT,
    ("PUT", "/v1/users/{user_id}/budgets"): Scope.ADMIN,
    ("GET", "/v1/models"): Scope.TASKS_READ,
    ("GET", "/v1/models/about"): Scope.TASKS_READ,
    ("GET", "/v1/repositories"): Scope.TASKS_READ,
    ("POST", "/v1/repositories/branches"): Scope.TASKS_WRITE,
    ("GET", "/v1/settings"): Scope.ADMIN,
    ("GET", "/v1/defaults"): Scope.TASKS_READ,
    ("GET", "/v1/workspaces"): Scope.WORKSPACES_READ,
    ("GET", "/v1/openapi.json"): SIGNED_IN,
    ("POST", "/v1/login"): PUBLIC,
    ("POST", "/v1/logout"): SIGNED_IN,
    ("GET", "/v1/me"): SIGNED_IN,
    ("POST", "/v1/tokens"): Scope.ACCOUNT,
    ("GET", "/v1/tokens"): Scope.ACCOUNT,
    ("DELETE", "/v1/tokens/{credential_id}"): Scope.ACCOUNT,
    ("GET", "/v1/users"): Scope.ADMIN,
    ("POST", "/v1/users"): Scope.ADMIN,
    ("PATCH", "/v1/users/{user_id}"): Scope.ADMIN,
    ("POST", "/v1/users/{user_id}/code"): Scope.ADMIN,
    ("GET", "/v1/keys"): Scope.ACCOUNT,
    ("PUT", "/v1/keys/{provider}"): Scope.ACCOUNT,
    ("DELETE", "/v1/keys/{provider}"): Scope.ACCOUNT,
    ("POST", "/v1/keys/{provider}/test"): Scope.ACCOUNT,
    ("GET", f"{P}/keys"): Scope.TASKS_READ,
    ("PUT", f"{P}/keys/{{provider}}"): Scope.TASKS_WRITE,
    ("DELETE", f"{P}/keys/{{provider}}"): Scope.TASKS_WRITE,
    ("POST", f"{P}/keys/{{provider}}/test"): Scope.TASKS_WRITE,
    ("POST", "/v1/projects"): Scope.TASKS_WRITE,
    ("GET", "/v1/projects"): Scope.TASKS_READ,
    ("GET", P): Scope.TASKS_READ,
    ("PATCH", P): Scope.TASKS_WRITE,
    ("DELETE", P): Scope.TASKS_WRITE,
    ("PUT", f"{P}/members/{{user_id}}"): Scope.TASKS_WRITE,
    ("DELETE", f"{P}/members/{{user_id}}"): Scope.TASKS_WRITE,
    ("POST", "/v1/tasks"): Scope.TASKS_WRITE,
    ("GET", "/v1/tasks"): Scope.TASKS_READ,
    ("GET", T): Scope.TASKS_READ,
    ("DELETE", T): Scope.TASKS_WRITE,
    ("POST", f"{T}/messages"): Scope.TASKS_WRITE,
    ("GET", f"{T}/queue"): Scope.TASKS_READ,
    ("PUT", f"{T}/queue"): Scope.TASKS_WRITE,
    ("PUT", f"{T}/queue/{{message_id}}"): Scope.TASKS_WRITE,
    ("DELETE", f"{T}/queue/{{message_id}}"): Scope.TASKS_WRITE,
    ("POST", f"{T}/stop"): Scope.TASKS_WRITE,
    ("POST", f"{T}/resume"): Scope.TASKS_WRITE,
    ("GET", f"{T}/checkpoints"): Scope.TASKS_READ,
    ("POST", f"{T}/rollback"): Scope.TASKS_WRITE,
    ("POST", f"{T}/hibernate"): Scope.TASKS_WRITE,
    ("POST", f"{T}/archive"): Scope.TASKS_WRITE,
    ("GET", f"{T}/runs"): Scope.TASKS_READ,
    ("GET", f"{T}/artifacts"): Scope.TASKS_READ,
    ("GET", f"{T}/artifacts/{{name}}"): Scope.TASKS_READ,
    ("GET", f"{T}/patch"): Scope.TASKS_READ,
    ("GET", f"{T}/events"): Scope.TASKS_READ,
    ("GET", f"{T}/events/stream"): Scope.TASKS_READ,
    ("SOCKET", f"{T}/events/attach"): Scope.TASKS_READ,
    ("POST", f"{W}/commands"): Scope.WORKSPACES_WRITE,
    ("GET", f"{W}/commands"): Scope.WORKSPACES_READ,
    ("GET", f"{W}/commands/{{command_id}}"): Scope.WORKSPACES_READ,
    ("GET", f"{W}/commands/{{command_id}}/wait"): Scope.WORKSPACES_READ,
    ("GET", f"{W}/commands/{{command_id}}/output"): Scope.WORKSPACES_READ,
    ("GET", f"{W}/commands/{{command_id}}/recording"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/commands/{{command_id}}/stdin"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/commands/{{command_id}}/signal"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/commands/{{command_id}}/kill"): Scope.WORKSPACES_WRITE,
    ("GET", f"{W}/files"): Scope.WORKSPACES_READ,
    ("PUT", f"{W}/files"): Scope.WORKSPACES_WRITE,
    ("DELETE", f"{W}/files"): Scope.WORKSPACES_WRITE,
    ("GET", f"{W}/files/stat"): Scope.WORKSPACES_READ,
    ("GET", f"{W}/files/lines"): Scope.WORKSPACES_READ,
    ("GET", f"{W}/files/list"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/files/replace"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/files/move"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/files/directory"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/git/status"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/git/diff"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/git/changes"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/git/log"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/git/branches"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/git/branch"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/git/checkout"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/git/commit"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/git/checkpoint"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/git/restore"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/git/drop-checkpoints"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/search/grep"): Scope.WORKSPACES_READ,
    ("GET", f"{W}/search/files"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/terminals"): Scope.WORKSPACES_WRITE,
    ("GET", f"{W}/terminals"): Scope.WORKSPACES_READ,
    ("GET", f"{W}/terminals/{{terminal_id}}"): Scope.WORKSPACES_READ,
    ("POST", f"{W}/terminals/{{terminal_id}}/input"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/terminals/{{terminal_id}}/resize"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/terminals/{{terminal_id}}/signal"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/terminals/{{terminal_id}}/kill"): Scope.WORKSPACES_WRITE,
    ("POST", f"{W}/terminals/{{terminal_id}}/close"): Scope.WORKSPACES_WRITE,
    ("GET", f"{W}/terminals/{{terminal_id}}/recording"): Scope.WORKSPACES_READ,
    ("SOCKET", f"{W}/terminals/{{terminal_id}}/attach"): Scope.WORKSPACES_READ,
    ("SOCKET", f"{W}/terminals/{{terminal_id}}/attach?writer=w"): Scope.WORKSPACES_WRITE,
    ("SOCKET", f"{W}/terminals/{{terminal_id}}/attach?%77rite%72=w"): Scope.WORKSPACES_WRITE,
    ("GET", f"{W}/tree"): Scope.WORKSPACES_READ,
    ("PUT", f"{W}/tree"): Scope.WORKSPACES_WRITE,
    ("GET", f"{W}/watch"): Scope.WORKSPACES_READ,
}
"""What each needs, said here once more: who adds a route or changes what one needs, says so here too."""
BOUND = ("{task_id}", "{workspace_id}", "{project_id}")
"""What belongs to somebody."""


@dataclass(kw_only=True)
class World:
    api: Api
    session: aiohttp.ClientSession
    now: list[float]
    alice: str
    """Whose the task and the workspace are."""
    names: Mapping[str, str]

    async def ask(self, method: str, path: str, headers: dict[str, str], **other: str) -> tuple[int, bytes]:
        """Status and, of refusals, body."""
        url = self.api.url + path.format(**{**self.names, **other})
        if method == "SOCKET":
            upgrade = {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            }
            method, headers = "GET", {**headers, **upgrade}
        asked = self.session.request(method, URL(url, encoded=True), headers=headers, allow_redirects=False)
        async with asked as response:
            body = await response.read() if response.status >= 400 else b""
            return response.status, body


@asynccontextmanager
async def world(directory: Path) -> AsyncGenerator[World]:
    now = [time.time()]
    async with (
        open_database(directory, url="sqlite://", clock=lambda: now[0]) as database,
        workspaces(directory, "ws_alice") as manager,
        serving_api(database, manager) as api,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        await api.accounts.first_user()
        alice, token = await api.user("alice")
        await api.add_task("task_alice", owner=alice.id, workspace_id="ws_alice")
        await api.add_project("proj_alice", (alice.id, ProjectRole.MEMBER))
        names = {
            "project_id": "proj_alice",
            "task_id": "task_alice",
            "workspace_id": "ws_alice",
            "message_id": "msg_none",
            "name": "art_none",
            "command_id": "cmd_none",
            "terminal_id": "term_none",
            "credential_id": "cred_none",
            "user_id": alice.id,
            "provider": "anthropic",
        }
        yield World(api=api, session=session, now=now, alice=token, names=names)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_every_route_is_in_the_table(tmp_path: Path) -> None:
    async with open_database(tmp_path, url="sqlite://") as database, serving_api(database) as api:
        routes = api.app.routes
    said = {(method, path.partition("?")[0]): access for (method, path), access in EXPECTED.items() if "?" not in path}
    served = {
        ("SOCKET" if isinstance(route, ApiSocket) else route.method, route.path): needed(route, {"query_string": b""})
        for route in routes
    }
    assert served == said


async def test_nobody_gets_in_without_a_good_credential(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        api = at.api
        who = await api.principal(at.alice)
        all_scopes = SCOPES_OF[Role.MEMBER]
        revoked = await api.accounts.issue_token(who, name="r", scopes=all_scopes, expires_in_s=None)
        await api.accounts.revoke(who.user.id, revoked.credential.id)
        expired = await api.accounts.issue_token(who, name="e", scopes=all_scopes, expires_in_s=5)
        _, session_code = await api.accounts.issue_code(who.user.id)
        session = await api.accounts.log_in(session_code.secret, CredentialKind.SESSION, name="browser")
        _, code = await api.accounts.issue_code(who.user.id)
        carol, disabled = await api.user("carol", Role.ADMIN)
        await api.accounts.change(carol.id, disabled=True)
        at.now[0] += 6
        askers = {
            "nobody": {},
            "bad token": bearer("shadow_token_" + "0" * 32),
            "no token": {"Authorization": "Bearer"},
            "basic": {"Authorization": "Basic YWRtaW46YWRtaW4="},
            "long": bearer("x" * 5000),
            "code": bearer(code.secret),
            "session as token": bearer(session.secret),
            "token as session": {"Cookie": f"shadow_session={at.alice}", "Origin": api.url},
            "revoked": bearer(revoked.secret),
            "expired": bearer(expired.secret),
            "disabled": bearer(disabled),
        }
        for (method, path), access in EXPECTED.items():
            for name, headers in askers.items():
                status, _ = await at.ask(method, path, headers)
                if access == PUBLIC:
                    assert status not in (401, 403, 404), (method, path, name, status)
                else:
                    assert status == 401, (method, path, name, status)


async def test_a_scope_and_a_role_are_good_for_what_they_say(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        api = at.api
        admin = await api.user("root", Role.ADMIN)
        who = await api.principal(admin[1])
        _, viewer = await api.user("vera", Role.VIEWER)
        for (method, path), access in EXPECTED.items():
            if access in (PUBLIC, SIGNED_IN):
                continue
            lacking = await api.accounts.issue_token(
                who, name="lacks it", scopes=frozenset(Scope) - {Scope(access)}, expires_in_s=60
            )
            assert (await at.ask(method, path, bearer(lacking.secret)))[0] == 403, (method, path)
            await api.accounts.revoke(who.user.id, lacking.credential.id)
            if access not in SCOPES_OF[Role.VIEWER]:
                assert (await at.ask(method, path, bearer(viewer)))[0] == 403, (method, path)
            elif any(name in path for name in BOUND):
                assert (await at.ask(method, path, bearer(viewer)))[0] == 404, (method, path)
            if access == Scope.ADMIN:
                assert (await at.ask(method, path, bearer(at.alice)))[0] == 403, (method, path)


async def test_what_is_not_yours_is_answered_as_what_is_not_there(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        _, bob = await at.api.user("bob")
        others = {"task_id": "task_bobby", "workspace_id": "ws_bobby", "project_id": "proj_bobby"}
        await at.ask("GET", "/v1/me", bearer(bob))  # when it was used last is written once a minute
        for method, path in EXPECTED:
            if not any(name in path for name in BOUND):
                continue
            with statements() as of_theirs:
                status, theirs = await at.ask(method, path, bearer(bob))
            with statements() as of_none:
                _, none = await at.ask(method, path, bearer(bob), **others)
            assert status == 404, (method, path)
            assert _unnumbered(theirs).replace(b"alice", b"bobby") == _unnumbered(none), (method, path)
            assert of_theirs == of_none, (method, path)


def _unnumbered(problem: bytes) -> bytes:
    """Without the request's own id, which no other request has."""
    without, count = re.subn(rb'"request_id":"req_[0-9a-z]{12}"', b"", problem)
    assert count == 1, problem
    return without


async def test_whoever_it_belongs_to_gets_in(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        _, code = await at.api.accounts.issue_code((await at.api.principal(at.alice)).user.id)
        session = await at.api.accounts.log_in(code.secret, CredentialKind.SESSION, name="browser")
        askers = [bearer(at.alice), {"Cookie": f"shadow_session={session.secret}", "Origin": at.api.url}]
        for (method, path), access in EXPECTED.items():
            if (
                access in (Scope.ADMIN, Scope.METRICS)
                or path in ("/v1/logout", T, P)
                or path.endswith(("/archive", "/hibernate"))
            ):
                continue
            for headers in askers:
                status, body = await at.ask(method, path, headers)
                assert status not in (401, 403), (method, path, status)
                if status == 404:  # what is not there is the thing in the workspace
                    assert b"alice" not in body, (method, path, body)


async def test_other_sites_do_nothing_with_a_session(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        _, code = await at.api.accounts.issue_code((await at.api.principal(at.alice)).user.id)
        session = await at.api.accounts.log_in(code.secret, CredentialKind.SESSION, name="browser")
        cookie = {"Cookie": f"shadow_session={session.secret}"}
        port = at.api.url.rpartition(":")[2]
        foreign = [
            "http://evil.example",
            "null",
            f"https://127.0.0.1:{port}",
            "http://127.0.0.1:1",
            f"{at.api.url}.evil",
        ]
        for (method, path), access in EXPECTED.items():
            if access == PUBLIC:
                continue
            for origin in foreign:
                status, _ = await at.ask(method, path, {**cookie, "Origin": origin})
                assert status == 403, (method, path, origin)
            if method != "GET":
                assert (await at.ask(method, path, cookie))[0] == 403, (method, path)
            for site in ("cross-site", "same-site"):
                assert (await at.ask(method, path, {**cookie, "Sec-Fetch-Site": site}))[0] == 403, (method, path)


async def test_under_another_name_there_is_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        port = at.api.url.rpartition(":")[2]
        names = [
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1:1",
            f"127.0.0.1.:{port}",
            f"[::1]:{port}",
            f"a@{at.api.host}",
        ]
        for method, path in EXPECTED:
            for name in names:
                status, body = await at.ask(method, path, {**bearer(at.alice), "Host": name})
                assert (status, b"denied" in body) == (403, True), (method, path, name)


@contextmanager
def statements() -> Generator[list[str]]:
    """All that this process asks of databases meanwhile."""
    said: list[str] = []

    def heard(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", heard)
    try:
        yield said
    finally:
        event.remove(Engine, "before_cursor_execute", heard)
