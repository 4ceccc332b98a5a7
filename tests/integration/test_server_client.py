"""The client of a server over a connection that loses answers: what creates is made once, and its maker gets it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shadow.client.shadow import Shadow
from shadow.core.accounts import CredentialKind, ProjectRole, Role, Scope
from shadow.core.errors import Conflict, NotFound, OutcomeUnknown, Rejected
from shadow.db.database import open_database
from shadow.testing.chaos import CLEAR, ChaosProxy, Fault, chaos_proxy
from tests.support.api_servers import Api, serving_api
from tests.support.sidecars import Waits

pytestmark = pytest.mark.anyio

LOST = Fault(to_client_bytes=0)
"""The request arrives, its answer does not."""


class Lossy:
    """A client of the administrator behind a proxy that loses what it is told to."""

    def __init__(self, api: Api, shadow: Shadow, proxy: ChaosProxy) -> None:
        self.api, self.shadow, self.proxy = api, shadow, proxy

    def lose(self, answers: int) -> None:
        """Of the next connections, one that is open first."""
        first = self.proxy.connections - self.proxy.open_connections
        self.proxy.switch(lambda number: LOST if number < first + answers else CLEAR)


@asynccontextmanager
async def lossy(tmp_path: Path) -> AsyncGenerator[Lossy]:
    waits = Waits()
    async with open_database(tmp_path, url="sqlite://") as database, serving_api(database) as api:
        target = ("127.0.0.1", int(api.url.rpartition(":")[2]))
        async with chaos_proxy(target=target, listen=("127.0.0.1", 0), plan=CLEAR) as proxy:
            assert isinstance(proxy.address, tuple)
            url = f"http://127.0.0.1:{proxy.address[1]}"
            api.is_known_at(url)
            _, code = await api.accounts.issue_code((await api.accounts.first_user()).id)
            token = (await api.accounts.log_in(code.secret, CredentialKind.TOKEN, name="test")).secret
            async with Shadow(url, token=token, sleep=waits.sleep, clock=lambda: waits.now) as shadow:
                yield Lossy(api, shadow, proxy)


async def test_what_creates_is_made_once_though_answers_are_lost(tmp_path: Path) -> None:
    async with lossy(tmp_path) as at:
        shadow = at.shadow
        at.lose(2)
        project = await shadow.projects.create("Website")
        assert await shadow.projects.list() == [project]
        at.lose(2)
        task = await shadow.tasks.create("https://example.org/a.git", "Mend it", project_id=project.id)
        assert [one.id for one in await shadow.tasks.list(project_id=project.id)] == [task.id]
        at.lose(1)
        message = await shadow.tasks.send(task.id, "And this")
        assert [one.text for one in await shadow.tasks.queue(task.id)] == ["Mend it", message.text]


async def test_a_secret_whose_answer_was_lost_is_another_one_and_nobodys(tmp_path: Path) -> None:
    async with lossy(tmp_path) as at:
        at.lose(1)
        credential, secret = await at.shadow.accounts.create_token("ci", scopes=[Scope.TASKS_READ])
        assert (await at.api.principal(secret)).credential.id == credential.id
        named = [one.id for one in await at.shadow.accounts.credentials() if one.name == "ci"]
        assert named == [credential.id]
        at.lose(1)
        invited = await at.shadow.accounts.invite("ada", role=Role.VIEWER)
        assert [user.name for user in await at.shadow.accounts.users()] == ["local", "ada"]
        await at.api.accounts.log_in(invited.code, CredentialKind.TOKEN, name="ada")
        at.lose(1)
        again = await at.shadow.accounts.code(invited.user.id)
        await at.api.accounts.log_in(again.code, CredentialKind.TOKEN, name="ada")


async def test_what_stays_unknown_can_be_repeated_with_its_key(tmp_path: Path) -> None:
    async with lossy(tmp_path) as at:
        create = at.shadow.tasks.create
        at.lose(99)
        with pytest.raises(OutcomeUnknown) as unknown:
            await create("https://example.org/a.git", "Mend it")
        at.lose(0)
        key = unknown.value.details["idempotency_key"]
        assert isinstance(key, str)
        task = await create("https://example.org/a.git", "Mend it", key=key)
        assert [one.id for one in await at.shadow.tasks.list()] == [task.id]
        with pytest.raises(Conflict):
            await create("https://example.org/a.git", "Something else", key=key)


async def test_what_does_not_create_is_not_sent_twice(tmp_path: Path) -> None:
    async with lossy(tmp_path) as at:
        project = await at.shadow.projects.create("Website")
        at.lose(1)
        with pytest.raises(OutcomeUnknown):
            await at.shadow.projects.delete(project.id)
        with pytest.raises(NotFound):
            await at.shadow.projects.get(project.id)


async def test_projects_and_their_members(tmp_path: Path) -> None:
    async with lossy(tmp_path) as at:
        projects = at.shadow.projects
        project = await projects.create("Website")
        bob, token = await at.api.user("bob")
        _, members = await projects.set_member(project.id, "bob", role=ProjectRole.VIEWER)
        assert [(one.user_id, one.role) for one in members] == [(bob.id, "viewer"), ("local", "member")]
        async with Shadow(at.shadow.url, token=token) as theirs:
            assert await theirs.projects.list() == [project]
            assert (await theirs.accounts.me()).name == "bob"
        assert (await projects.rename(project.id, "Site")).name == "Site"
        await projects.remove_member(project.id, bob.id)
        with pytest.raises(NotFound):
            await projects.remove_member(project.id, "bob")
        with pytest.raises(NotFound):
            await projects.set_member(project.id, "nobody")
        with pytest.raises(Rejected):
            await projects.create(" ")
        await projects.delete(project.id)
        assert await projects.list() == []


async def test_a_name_that_is_anothers_id_names_the_other(tmp_path: Path) -> None:
    async with lossy(tmp_path) as at:
        project = await at.shadow.projects.create("Website")
        bob, _ = await at.api.user("bob")
        await at.api.user(bob.id)
        _, members = await at.shadow.projects.set_member(project.id, bob.id)
        assert [one.name for one in members] == ["bob", "local"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot here\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>",
        b"HTTP/1.1 301 Moved\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
    ],
)
async def test_what_is_no_server_of_shadows_is_told_before_a_code_is_sent(answer: bytes) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Shadow(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as shadow:
        with pytest.raises(Rejected) as refused:
            await shadow.version()
    assert "sidecar" not in str(refused.value)
    assert refused.value.mend
    assert all(request.startswith(b"GET ") for request in seen)
