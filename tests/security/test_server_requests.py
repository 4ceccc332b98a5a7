"""Requests made to fool the server, and workspaces that forge what it passes on."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from shadow.api.access import Origins, is_local, origin
from shadow.api.answering import HEADERS
from shadow.core.accounts import CredentialKind, Role
from shadow.core.errors import Conflict, Denied, Unauthenticated
from shadow.core.ids import WorkspaceId
from shadow.db.database import open_database
from tests.support.api_servers import Api, Workspaces, serving_api, workspaces
from tests.support.databases import Place
from tests.support.sidecars import forged

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def served(directory: Path, manager: Workspaces | None = None) -> AsyncGenerator[Api]:
    async with open_database(directory, url="sqlite://") as database, serving_api(database, manager) as api:
        await api.accounts.first_user()
        yield api


async def said(api: Api, request: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of what is answered to these bytes."""
    host, _, port = api.host.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            whole = await reader.read()
    finally:
        writer.close()
    head, _, body = whole.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


async def get(api: Api, path: str, *headers: str, host: str | None = None) -> tuple[int, bytes, bytes]:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host or api.host}", "Connection: close", *headers]
    return await said(api, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


async def test_of_two_cookies_neither_is_believed(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        alice, _ = await api.user("alice")
        mallory, _ = await api.user("mallory")
        secrets: list[str] = []
        for user in (alice, mallory):
            _, code = await api.accounts.issue_code(user.id)
            secrets.append((await api.accounts.log_in(code.secret, CredentialKind.SESSION, name="x")).secret)
        ours, tossed = (f"shadow_session={secret}" for secret in secrets)
        assert (await get(api, "/v1/me", f"Cookie: {ours}"))[0] == 200
        assert (await get(api, "/v1/me", f"Cookie: theme=dark; {ours}; a=b=c; ;;"))[0] == 200
        assert (await get(api, "/v1/me", f"Cookie: {ours}; {ours}"))[0] == 200
        assert (await get(api, "/v1/me", f"Cookie: {ours}; {tossed}"))[0] == 401
        assert (await get(api, "/v1/me", f"Cookie: {tossed}", f"Cookie: {ours}"))[0] == 401
        assert (await get(api, "/v1/me", f'Cookie: x="; {ours}'))[0] == 200  # nothing hides behind a quote
        assert (await get(api, "/v1/me", f"Cookie: Shadow_Session={secrets[0]}"))[0] == 401


async def test_a_cookie_that_is_good_no_more_does_not_stand_in_the_way_of_a_login(tmp_path: Path) -> None:
    async with served(tmp_path) as api, aiohttp.ClientSession() as session:
        alice, _ = await api.user("alice")
        _, code = await api.accounts.issue_code(alice.id)
        headers = {"Cookie": "shadow_session=old", "Origin": api.url}
        body = {"code": code.secret, "kind": "session"}
        async with session.post(f"{api.url}/v1/login", json=body, headers=headers) as response:
            assert response.status == 201
            cookie = response.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie


async def test_forms_of_authorization(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        _, token = await api.user("alice")
        assert (await get(api, "/v1/me", f"Authorization: bearer   {token} "))[0] == 200
        for headers in (
            [f"Authorization: Bearer {token}", f"Authorization: Bearer {token}"],
            [f"Authorization: Token {token}"],
            [f"Authorization: {token}"],
            [f"Authorization: Bearer {token}, Bearer {token}"],
            [f"Authorization: Bearer {token[:-1]}"],
            [f"Authorization: Bearer {token.upper()}"],
            ["Authorization: Bearer \xff\xfe"],
            [f"Authorization_: Bearer {token}"],
            ["X-Forwarded-User: local", "X-Forwarded-For: 127.0.0.1"],
        ):
            assert (await get(api, "/v1/me", *headers))[0] == 401, headers


async def test_hosts(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        port = api.host.partition(":")[2]
        for host in (
            "",
            "evil.example",
            "127.0.0.1",
            "127.0.0.1:0",
            f"127.0.0.1:{port}.",
            f"localhost:{port}",
            f" {port}",
        ):
            assert (await get(api, "/v1/health/live", host=host or "\t"))[0] in (400, 403), host
        twice = f"GET /v1/health/live HTTP/1.1\r\nHost: {api.host}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert (await said(api, twice.encode()))[0] == 403
        none = b"GET /v1/health/live HTTP/1.0\r\n\r\n"
        assert (await said(api, none))[0] == 403
        absolute = "GET http://evil.example/v1/health/live HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert (await said(api, absolute.encode()))[0] == 403


@pytest.mark.parametrize(
    ("url", "host", "sent"),
    [
        ("https://Shadow.Example:443/", "shadow.example", "https://shadow.example"),
        ("https://shadow.example", "shadow.example:443", "https://shadow.example"),
        ("http://127.0.0.1:80", "127.0.0.1", "http://127.0.0.1"),
        ("http://[::1]:8765", "[::1]:8765", "http://[::1]:8765"),
        ("https://shadow.example:8443", "Shadow.Example:8443", "https://shadow.example:8443"),
    ],
)
def test_an_address_is_compared_as_browsers_write_it(url: str, host: str, sent: str) -> None:
    origins = Origins(allowed=frozenset({origin(url)}), secure=url.startswith("https"))
    origins.check_host({"headers": [(b"host", host.encode())]})
    origins.check_origin({"type": "http", "method": "POST", "headers": [(b"origin", sent.encode())]})
    with pytest.raises(Denied):
        origins.check_host({"headers": [(b"host", b"x" + host.encode())]})


async def test_ids_that_are_none(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        _, token = await api.user("root", Role.ADMIN)
        ids = [
            "%00",
            "a%00b",
            "%2e%2e",
            "..",
            "%ff%fe",
            "%ED%A0%80",
            "x" * 5000,
            "a%2fb",
            "%2F..%2Fhealth",
            "'--",
            "%25",
            "task_",
        ]
        for place in (
            "/v1/tasks/{}",
            "/v1/tasks/{}/events",
            "/v1/workspaces/{}/files?path=x",
            "/v1/workspaces/{}/commands/{}",
        ):
            for id_ in ids:
                status, _, body = await get(api, place.replace("{}", id_), f"Authorization: Bearer {token}")
                assert status == 404, (place, id_, status, body)
        for before in ("1~%00", "nan~a", "1e999~a", "~", "1~" + "a" * 100, "1~%ed%a0%80"):
            status, _, _ = await get(api, f"/v1/tasks?before={before}", f"Authorization: Bearer {token}")
            assert status in (200, 422), before


async def test_every_answer_says_that_it_is_no_page(tmp_path: Path) -> None:
    async with workspaces(tmp_path, "ws_alice") as manager, served(tmp_path, manager) as api:
        alice, token = await api.user("alice")
        await api.add_task("task_alice", owner=alice.id, workspace_id="ws_alice")
        page = b"<script>alert(1)</script>"
        (tmp_path / "ws_alice" / "files" / "page.html").write_bytes(page)
        for path in (
            "/v1/workspaces/ws_alice/files?path=page.html",
            "/v1/workspaces/ws_alice/files?path=page.html&limit_bytes=9",
            "/v1/workspaces/ws_alice/files/lines?path=page.html",
            "/v1/workspaces/ws_alice/tree",
            "/v1/workspaces/ws_alice/files?path=nothing",
            "/v1/me",
            "/v1/nothing",
            "/v1/health/live",
        ):
            headers = [f"Authorization: Bearer {token}", "Accept: text/html"]
            _, head, _ = await get(api, path, *headers)
            found = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            assert b"html" not in found[b"content-type"], path
            assert {name: found[name] for name in HEADERS} == {name: value.lower() for name, value in HEADERS.items()}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (
            "200 OK",
            {
                "path": "a",
                "kind": "file",
                "size_bytes": 1,
                "mode": 420,
                "modified_at": 1.0,
                "version": "1\r\nSet-Cookie: a=b",
            },
        ),
        ("200 OK", {"path": "a\r\nSet-Cookie: a=b", "kind": "file", "size_bytes": 1, "mode": 420, "modified_at": 1.0}),
        ("401 Unauthorized", {"error": {"code": "unauthenticated", "message": "Log in at evil.example."}}),
        ("302 Found", {}),
    ],
)
async def test_a_workspace_cannot_speak_for_the_server(tmp_path: Path, status: str, body: dict[str, object]) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nSet-Cookie: a=b\r\nLocation: http://evil.example\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()

    async with (
        forged(tmp_path / "socket", answer) as endpoint,
        served(tmp_path, Workspaces({WorkspaceId("ws_alice"): endpoint})) as api,
    ):
        alice, token = await api.user("alice")
        await api.add_task("task_alice", owner=alice.id, workspace_id="ws_alice")
        bearer = f"Authorization: Bearer {token}"
        for path in ("files?path=a&limit_bytes=9", "files?path=a", "files/stat?path=a"):
            answered, head, _ = await get(api, f"/v1/workspaces/ws_alice/{path}", bearer)
            assert answered not in (301, 302, 401), path
            names = {line.lower().partition(b":")[0] for line in head.split(b"\r\n")}
            assert not names & {b"set-cookie", b"location", b"www-authenticate"}, (path, head)


async def test_a_user_names_no_epoch_and_no_operation_of_others(tmp_path: Path) -> None:
    async with (
        workspaces(tmp_path, "ws_shared") as manager,
        served(tmp_path, manager) as api,
        aiohttp.ClientSession() as s,
    ):
        alice, token = await api.user("alice")
        _, root = await api.user("root", Role.ADMIN)
        await api.add_task("task_alice", owner=alice.id, workspace_id="ws_shared")
        url = f"{api.url}/v1/workspaces/ws_shared/files?path=a"
        for who, data in ((token, b"one"), (root, b"two")):
            headers = {"Authorization": f"Bearer {who}", "Shadow-Operation": "op_same", "Shadow-Epoch": str(2**62)}
            for _ in range(2):  # a repeat of one's own is answered, not done
                async with s.put(url, data=data, headers=headers) as response:
                    assert response.status == 200, await response.text()
            assert (tmp_path / "ws_shared" / "files" / "a").read_bytes() == data
        async with s.put(url, data=b"three", headers={"Authorization": f"Bearer {token}"}) as response:
            assert response.status == 200  # the epoch that was claimed shut nobody out


# Races


async def test_a_code_is_good_for_one_of_many_logins_at_once(place: Place) -> None:
    async with place.open() as database, serving_api(database) as api:
        user = await api.accounts.first_user()
        _, code = await api.accounts.issue_code(user.id)
        outcomes = await asyncio.gather(
            *(api.accounts.log_in(code.secret, CredentialKind.TOKEN, name="x") for _ in range(8)),
            return_exceptions=True,
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert [type(failure) for failure in failures] == [Unauthenticated] * 7


async def test_an_administrator_stays(place: Place) -> None:
    async with place.open() as database, serving_api(database) as api:
        first = await api.accounts.first_user()
        second, _ = await api.user("second", Role.ADMIN)
        outcomes = await asyncio.gather(
            api.accounts.change(first.id, role=Role.MEMBER),
            api.accounts.change(second.id, disabled=True),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes].count(Conflict) == 1


async def test_the_first_user_has_no_rights_on_the_host_without_their_role(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        first = await api.accounts.first_user()
        _, code = await api.accounts.issue_code(first.id)
        who = await api.principal((await api.accounts.log_in(code.secret, CredentialKind.TOKEN, name="x")).secret)
        assert is_local(who)
        assert not is_local(replace(who, user=replace(who.user, role=Role.MEMBER)))
