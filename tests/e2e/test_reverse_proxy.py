"""What docs/operations.md says of running a server: its nginx in front of one, and its unit of systemd."""

import asyncio
import hashlib
import ipaddress
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from shadow.api.access import SECURE_COOKIE, Origins
from shadow.client.shadow import Shadow
from shadow.core.accounts import CredentialKind
from shadow.core.events import Recorded, StateChanged, TaskCreated
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import TaskId
from shadow.core.terminals import TerminalOutput, TerminalSpec
from shadow.db import audit, events
from shadow.db.database import open_database
from shadow.http.events import HEARTBEAT_S
from shadow.http.server import PING_S
from tests.support.api_servers import Api, serving_api, workspaces
from tests.support.nginx import Nginx, nginx
from tests.support.tls import make_authority

pytestmark = pytest.mark.anyio

OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()
FILE_BYTES = 64 * 1024 * 1024
MAX_MEMORY_BYTES = 32 * 1024 * 1024
DEADLINE_S = 20.0
TASK, WORKSPACE = TaskId("task_proxied"), WorkspaceId("ws_proxied")


def documented(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", OPERATIONS, re.DOTALL | re.MULTILINE)
    return found


def replaced(text: str, **by: tuple[str, str]) -> str:
    for old, new in by.values():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@dataclass(kw_only=True)
class Site:
    api: Api
    shadow: Shadow
    """What its administrator has: through nginx."""
    token: str
    session: aiohttp.ClientSession
    """From another address of this host, through nginx."""
    nginx: Nginx

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@asynccontextmanager
async def site(tmp_path: Path, *, path: str = "") -> AsyncGenerator[Site]:
    """The server behind nginx, as documented; ``path``: below which of its site."""
    authority = make_authority(tmp_path)
    if authority is None:
        pytest.skip("openssl is not installed")
    certificate, key = authority.issue("DNS:localhost")
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(tmp_path, url="sqlite://"))
        manager = await stack.enter_async_context(workspaces(tmp_path, WORKSPACE))
        api = await stack.enter_async_context(serving_api(database, manager))

        def config(port: int) -> str:
            text = replaced(
                documented("nginx"),
                listen=("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
                name=("server_name shadow.example.org;", "server_name localhost;"),
                certificate=("/etc/ssl/shadow.pem", str(certificate)),
                key=("/etc/ssl/shadow.key", str(key)),
                server=("http://127.0.0.1:8765", api.url),
            )
            below = {"location": ("location / {", f"location {path}/ {{"), "slash": (f"{api.url};", f"{api.url}/;")}
            return replaced(text, **below) if path else text

        (tmp_path / "nginx").mkdir()
        front = await stack.enter_async_context(nginx(tmp_path / "nginx", config))
        url = f"https://localhost:{front.port}"
        api.services.origins = Origins(allowed=frozenset({url}), secure=True)
        api.services.proxies = (ipaddress.ip_network("127.0.0.1"),)
        user = await api.accounts.first_user()
        _, code = await api.accounts.issue_code(user.id)
        token = (await api.accounts.log_in(code.secret, CredentialKind.TOKEN, name="test")).secret
        await api.add_task(TASK, owner=user.id, workspace_id=WORKSPACE)
        await tell(api, TaskCreated(instruction="x", repository="r", model="m"))
        trust = authority.trust
        connector = aiohttp.TCPConnector(ssl=trust, local_addr=("127.0.0.9", 0))
        session = await stack.enter_async_context(aiohttp.ClientSession(url, connector=connector))
        shadow = await stack.enter_async_context(Shadow(f"{url}{path}", token=token, tls=trust))
        yield Site(api=api, shadow=shadow, token=token, session=session, nginx=front)


async def tell(api: Api, *told: TaskCreated | StateChanged) -> None:
    async with api.database.write() as transaction:
        await events.append(transaction, TASK, told)


async def test_everything_passes_the_documented_nginx(tmp_path: Path) -> None:
    async with site(tmp_path) as at, asyncio.timeout(DEADLINE_S * 3):
        assert (await at.shadow.accounts.me()).name == "local"
        untouched = at.nginx.buffered_at()
        await _events_come_as_they_happen(at)
        await _a_terminal_is_typed_into(at.shadow)
        await _large_files_go_through_unbuffered(at)
        assert at.nginx.buffered_at() == untouched
        assert at.nginx.memory_bytes() < MAX_MEMORY_BYTES
        await _who_asks_is_known_by_address_and_site(at)
        async with at.session.get("/metrics", headers=at.bearer) as refused:
            assert (refused.status, refused.headers["Server"][:5]) == (404, "nginx")


async def _events_come_as_they_happen(at: Site) -> None:
    """By server-sent events and by WebSocket: while the stream is open, not at its end."""
    async with aclosing(at.shadow.events(TASK)) as socket:
        assert (await anext(socket)).seq == 1
        stream = f"/v1/tasks/{TASK}/events/stream?after=1"
        async with at.session.get(stream, headers=at.bearer) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            for seq in (2, 3):
                await tell(at.api, StateChanged(state="idle"))
                line = b""
                while not line.startswith(b"id: "):
                    line = await response.content.readline()
                assert line == b"id: %d\n" % seq
                recorded: Recorded = await anext(socket)
                assert recorded.seq == seq


async def _a_terminal_is_typed_into(shadow: Shadow) -> None:
    async with shadow.workspace(WORKSPACE) as workspace:
        spec = TerminalSpec(argv=("bash", "-c", "read line; echo got $line"))
        terminal = await workspace.create_terminal(spec)
        async with workspace.attach_terminal(terminal.id) as attachment:
            await attachment.write(b"this\r")
            shown = b"".join([one.data async for one in attachment if isinstance(one, TerminalOutput)])
        assert b"got this" in shown


async def _large_files_go_through_unbuffered(at: Site) -> None:
    piece = bytes(range(256)) * 4096
    url = f"/v1/workspaces/{WORKSPACE}/files?path=large"
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def body() -> AsyncGenerator[bytes]:
        for _ in range(FILE_BYTES // len(piece)):
            sent.update(piece)
            yield piece

    async with at.session.put(url, headers=at.bearer, data=body()) as response:
        assert response.status == 200, await response.text()
    async with at.session.get(url, headers=at.bearer) as response:
        async for part in response.content.iter_any():
            received.update(part)
    assert received.digest() == sent.digest()


async def _who_asks_is_known_by_address_and_site(at: Site) -> None:
    forged = {**at.bearer, "X-Forwarded-For": "192.0.2.66"}
    async with at.session.post("/v1/projects", headers=forged, json={"name": "Website"}) as made:
        assert made.status == 201
    async with at.api.database.read() as connection:
        entry = (await audit.page(connection, before=None, limit=1))[0]
    assert entry.content.source == "127.0.0.9"
    async with at.session.get("/v1/me", headers={**at.bearer, "Host": "evil.example"}) as refused:
        assert (refused.status, (await refused.json())["error"]["code"]) == (403, "denied")
    _, code = await at.api.accounts.issue_code((await at.api.accounts.first_user()).id)
    cookie = (await at.api.accounts.log_in(code.secret, CredentialKind.SESSION, name="browser")).secret
    own = f"https://localhost:{at.nginx.port}"
    for origin, status in ((own, 201), ("https://evil.example", 403)):
        browser = {"Cookie": f"{SECURE_COOKIE}={cookie}", "Origin": origin}
        async with at.session.post("/v1/projects", headers=browser, json={"name": origin}) as answered:
            assert answered.status == status, origin


async def test_below_a_path_of_a_site_the_client_works(tmp_path: Path) -> None:
    async with site(tmp_path, path="/shadow") as at, asyncio.timeout(DEADLINE_S):
        assert at.shadow.url.endswith("/shadow")
        assert await at.shadow.version()
        assert [task.id for task in await at.shadow.tasks.list()] == [TASK]
        async with aclosing(at.shadow.events(TASK)) as followed:
            assert (await anext(followed)).seq == 1
        await _a_terminal_is_typed_into(at.shadow)


def test_the_documented_timeouts_are_longer_than_the_silences() -> None:
    waits = [int(found) for found in re.findall(r"proxy_(?:read|send)_timeout (\d+)s;", documented("nginx"))]
    assert len(waits) == 2
    assert min(waits) > 2 * max(HEARTBEAT_S, PING_S)


def test_systemd_takes_the_documented_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "shadow.service"
    program = Path(sys.executable).with_name("shadow")
    unit.write_text(replaced(documented("ini"), program=("/opt/shadow/.venv/bin/shadow", str(program))))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=30, check=False
    )
    # It ends with 0 also where it left out a line that it did not understand.
    about = [line for line in verified.stderr.splitlines() if "shadow.service" in line]
    assert (verified.returncode, about) == (0, [])
