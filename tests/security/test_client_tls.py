"""The client of a server and TLS: whom it trusts, what it tells of others, and that no token travels in clear unasked."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.client.addresses import server_url
from shadow.client.shadow import Shadow
from shadow.core.commands import CommandSpec
from shadow.core.errors import Rejected
from shadow.core.events import TaskCreated
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import TaskId
from shadow.core.terminals import TerminalEnded, TerminalOutput, TerminalSpec
from shadow.db import events
from shadow.db.database import open_database
from shadow.execution.sidecar_client.trust import Untrusted
from tests.support.api_servers import Api, serving_api, workspaces
from tests.support.shadow_cli import ShadowCli
from tests.support.sidecars import Waits
from tests.support.tls import Authority, make_authority, tls_front

pytestmark = pytest.mark.anyio

ELSEWHERE = (
    "http://shadow.example",
    "http://10.0.0.1:8765",
    "http://0.0.0.0:8765",
    "http://127.0.0.1.shadow.example",
    "http://localhost.shadow.example",
    "http://[2001:db8::1]:80/base",
)
HERE = ("http://127.0.0.1:8765", "http://127.7.7.7", "http://localhost:1", "http://[::1]:8765", "HTTP://LOCALHOST:1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = make_authority(tmp_path_factory.mktemp("authority"))
    if made is None:
        pytest.skip("openssl is not installed")
    return made


@asynccontextmanager
async def served(directory: Path) -> AsyncGenerator[tuple[Api, str]]:
    """The server, and a token of its administrator, whose task has a workspace."""
    async with (
        open_database(directory, url="sqlite://") as database,
        workspaces(directory, "ws_tls") as manager,
        serving_api(database, manager) as api,
    ):
        user = await api.accounts.first_user()
        _, code = await api.accounts.issue_code(user.id)
        async with Shadow(api.url) as shadow:
            token = await shadow.accounts.log_in(code.secret)
        task = await api.add_task("task_tls", owner=user.id, workspace_id="ws_tls")
        async with database.write() as transaction:
            await events.append(transaction, task, [TaskCreated(instruction="x", repository="r", model="m")])
        yield api, token


def port_of(api: Api) -> int:
    return int(api.url.rpartition(":")[2])


async def test_everything_travels_by_tls(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("DNS:localhost")
    async with served(tmp_path) as (api, token), tls_front(port_of(api), certificate, key) as front:
        url = f"https://localhost:{front.port}"
        api.is_known_at(url)
        async with Shadow(url, token=token, tls=authority.trust) as shadow:
            assert (await shadow.accounts.me()).name == "local"
            assert [one.id for one in await shadow.workspaces.list()] == []  # mocked ones only
            (task,) = await shadow.tasks.list()
            async with aclosing(shadow.events(task.id)) as followed:
                assert isinstance((await anext(followed)).event, TaskCreated)
            async with shadow.workspace(WorkspaceId("ws_tls")) as workspace:
                content = bytes(range(256)) * 4096
                await workspace.write_file("a", content)
                assert (await workspace.read_file("a")).content == content
                assert (await workspace.run(CommandSpec(argv=("echo", "hi")))).stdout == b"hi\n"
                terminal = await workspace.create_terminal(
                    TerminalSpec(argv=("bash", "-c", "read line; echo got $line"))
                )
                shown, ended = b"", False
                async with workspace.attach_terminal(terminal.id) as attachment:
                    await attachment.write(b"this\r")
                    async for event in attachment:
                        shown += event.data if isinstance(event, TerminalOutput) else b""
                        ended = isinstance(event, TerminalEnded)
                assert b"got this" in shown
                assert ended
        assert token.encode() in front.received


@pytest.mark.parametrize(
    ("name", "ends", "known", "reason"),
    [
        ("DNS:localhost", "20200201000000Z", True, "expired"),
        ("DNS:shadow.example", "20991231000000Z", True, "other_name"),
        ("IP:127.0.0.2", "20991231000000Z", True, "other_name"),
        ("DNS:localhost", "20991231000000Z", False, "unknown_authority"),
    ],
)
async def test_a_certificate_that_shows_nothing_is_refused_at_once(
    tmp_path: Path, authority: Authority, name: str, ends: str, known: bool, reason: str
) -> None:
    certificate, key = authority.issue(name, ends=ends)
    waits = Waits()
    async with served(tmp_path) as (api, token), tls_front(port_of(api), certificate, key) as front:
        host = "127.0.0.1" if name.startswith("IP") else "localhost"
        url = f"https://{host}:{front.port}"
        api.is_known_at(url)
        trust = authority.trust if known else None
        async with Shadow(url, token=token, tls=trust, sleep=waits.sleep, clock=lambda: waits.now) as shadow:
            with pytest.raises(Untrusted) as asked:
                await shadow.accounts.me()
            with pytest.raises(Untrusted):
                await anext(shadow.events(TaskId("task_tls"), patience_s=60))
            async with shadow.workspace(WorkspaceId("ws_tls")) as workspace:
                with pytest.raises(Untrusted):
                    await workspace.run(CommandSpec(argv=("true",)))
        assert asked.value.details["reason"] == reason
        assert asked.value.mend
        assert (waits.slept, bytes(front.received)) == ([], b"")


async def test_who_speaks_no_tls_is_told_apart_from_who_is_away(tmp_path: Path) -> None:
    waits = Waits()
    async with served(tmp_path) as (api, token):
        url = api.url.replace("http://", "https://")
        async with Shadow(url, token=token, sleep=waits.sleep, clock=lambda: waits.now) as shadow:
            with pytest.raises(Untrusted) as refused:
                await shadow.version()
    assert (refused.value.details["reason"], waits.slept) == ("no_tls", [])


async def test_the_command_line_trusts_the_authorities_of_a_file(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("DNS:localhost")
    (tmp_path / "home").mkdir()
    async with served(tmp_path) as (api, _), tls_front(port_of(api), certificate, key) as front:
        url = f"https://localhost:{front.port}"
        api.is_known_at(url)
        _, code = await api.accounts.issue_code((await api.accounts.first_user()).id)
        login = ("login", url, "--code", code.secret, "--json")
        refused = await asyncio.to_thread(ShadowCli(tmp_path / "home").run, *login)
        error = json.loads(refused.stdout)["error"]
        assert (refused.returncode, error["code"]) == (1, "untrusted")
        assert "SSL_CERT_FILE" in error["mend"]
        trusting = ShadowCli(tmp_path / "home", {"SSL_CERT_FILE": str(authority.certificate)})
        done = await asyncio.to_thread(trusting.run, *login)  # the refused one has not spent the code
        assert done.returncode == 0, done


@pytest.mark.parametrize("url", ELSEWHERE)
def test_no_token_goes_to_another_host_in_clear(url: str) -> None:
    with pytest.raises(Rejected) as refused:
        Shadow(url, token="secret")
    assert "--insecure" in (refused.value.mend or "")
    assert "secret" not in str(refused.value)
    assert Shadow(url, token="secret", insecure=True).url == url


@pytest.mark.parametrize("url", HERE)
def test_a_token_goes_to_this_host_in_clear(url: str) -> None:
    assert Shadow(url, token="secret").url == url.lower()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("shadow.example", "https://shadow.example"),
        ("shadow.example:8443/base/", "https://shadow.example:8443/base"),
        ("10.0.0.1", "https://10.0.0.1"),
        ("localhost:8765", "http://localhost:8765"),
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("[::1]:8765", "http://[::1]:8765"),
        ("https://Shadow.Example/", "https://shadow.example"),
    ],
)
def test_an_address_is_written_one_way(typed: str, meant: str) -> None:
    assert server_url(typed) == meant
    assert server_url(meant) == meant


@pytest.mark.parametrize(
    "typed",
    ["", "ftp://x", "http://", "http://a:b@c", "http://localhost@evil", "https://x?y", "https://x#y", "http://x:99999"],
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(Rejected):
        server_url(typed)


@given(st.text(max_size=40))
def test_whatever_is_typed_goes_in_clear_to_this_host_alone(text: str) -> None:
    try:
        url = Shadow(text, token="secret").url
    except Rejected:
        return
    host = urlsplit(url).hostname or ""
    here = host.startswith("127.") or host in ("localhost", "::1") or host.endswith(".localhost")
    assert url.startswith("https://") or here
