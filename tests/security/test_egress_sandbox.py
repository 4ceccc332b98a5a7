"""Egress of real sandboxes: real programs reach what rules name and nothing else; the judge stands outside."""

import asyncio
import hashlib
import http.server
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, shell
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.egress_status import EgressEventKind
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.holder.kernel import children
from shadow.execution.interface import ToolExecutor
from shadow.execution.local.directory import Workspaces
from shadow.execution.local.manager import LocalWorkspaceManager
from shadow.execution.local.manifest import PROXY, read_holder
from tests.support.holders import alive
from tests.support.local_workspaces import (
    DEADLINE_S,
    eventually,
    holder_pid,
    leftovers,
    local_manager,
    processes_with,
    skip_without_sandbox,
    status_field,
)
from tests.support.programs import needs_curl

pytestmark = [pytest.mark.anyio, needs_curl]

# Programs inside take loopback addresses for their own, as NO_PROXY says; the hosts of the tests are loopback addresses.
THROUGH = "unset NO_PROXY no_proxy; "


def policy(*rules: str) -> EgressPolicy:
    return EgressPolicy(rules=parse_rules(rules))


async def ended(pid: int) -> None:
    await eventually(lambda: not alive(pid), f"{pid} has ended")


@dataclass(frozen=True)
class Place:
    manager: LocalWorkspaceManager
    id: WorkspaceId
    executor: ToolExecutor
    data_dir: Path

    async def run(self, line: str) -> tuple[int | None, str]:
        spec = CommandSpec(argv=shell(THROUGH + line), timeout_s=DEADLINE_S)
        result = await self.executor.run(spec)
        return result.exit_code, (result.stdout + result.stderr).decode(errors="replace")

    async def allow(self, *rules: str) -> None:
        await self.manager.set_egress(self.id, policy(*rules))

    def serving_pid(self) -> int:
        """The one that serves, a child of the proxy's first process."""
        return children(self.proxy_pid())[0]

    def proxy_pid(self) -> int:
        with Workspaces(self.data_dir).open(self.id) as directory:
            proxy = read_holder(directory.fd, name=PROXY)
        assert proxy is not None
        return proxy.pid


@pytest.fixture(scope="module")
async def place(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Place]:
    data_dir = tmp_path_factory.mktemp("egress")
    await skip_without_sandbox(data_dir)
    manager = local_manager(data_dir)
    status = await manager.create(WorkspaceSpec())
    try:
        async with await manager.attach(status.id) as executor:
            yield Place(manager, status.id, executor, data_dir)
    finally:
        await manager.destroy(status.id)


@dataclass
class Web:
    """A web server of the host, on a loopback address."""

    port: int
    asked: list[str] = field(default_factory=list[str])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def web(root: Path) -> Iterator[Web]:
    seen = Web(0)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
            seen.asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root))) as server:
        seen.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "file").write_text("a file of the host")
    with web(tmp_path / "site") as server:
        yield server


# Without a policy


async def test_without_a_policy_programs_are_refused_at_once_and_told_why(place: Place) -> None:
    code, said = await place.run("timeout 5 curl -sS https://example.org/")
    assert (code, "403" in said) == (56, True)
    code, said = await place.run("timeout 5 curl -sS http://example.org/")
    assert f"shadow workspace egress {place.id} --allow" in said
    assert not (await place.manager.egress(place.id)).running
    assert processes_with(str(place.data_dir / "workspaces" / place.id / "egress")) == []


# Real programs


@pytest.mark.parametrize(
    "line",
    [
        "curl -sSf {url}",
        "curl -sSf -p {url}",
        f"{sys.executable} -c 'import urllib.request as r; print(r.urlopen(\"{{url}}\").read().decode())'",
        "wget -qO- {url}",
        "node -e 'fetch(\"{url}\").then(r => r.ok ? r.text() : process.exit(1)).then(console.log)'",
    ],
    ids=["curl", "curl-tunnel", "python", "wget", "node"],
)
async def test_programs_reach_what_a_rule_names_and_nothing_else(line: str, place: Place, site: Web) -> None:
    program = Path(line.split()[0]).name
    if shutil.which(program) is None and not line.startswith(sys.executable):
        pytest.skip(f"this host has no {program}")
    if program == "node" and int(subprocess.check_output(["node", "-p", "parseInt(process.versions.node)"])) < 24:
        pytest.skip("node takes proxies from its environment from version 24 on")
    await place.allow(f"127.0.0.1:{site.port}")
    code, said = await place.run(line.format(url=f"{site.url}/file"))
    assert (code, "a file of the host" in said) == (0, True), said
    await place.allow("example.org")
    asked = len(site.asked)
    code, said = await place.run(line.format(url=f"{site.url}/file"))
    assert code != 0, said
    assert len(site.asked) == asked
    event = (await place.manager.egress(place.id)).events[-1]
    assert (event.kind, event.host, event.port) == (EgressEventKind.REFUSED, "127.0.0.1", site.port)
    assert event.rule == f"127.0.0.1:{site.port}"


async def test_git_clones_through_the_proxy(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "site" / "source"
    for line in (
        f"git init -q {source}",
        f"git -C {source} -c user.name=a -c user.email=a@b.example commit -q --allow-empty -m first",
        f"git -C {source} update-server-info",
    ):
        subprocess.run(line.split(), check=True)
    with web(tmp_path / "site") as server:
        await place.allow(f"127.0.0.1:{server.port}")
        code, said = await place.run(f"rm -rf c && git clone -q {server.url}/source/.git c && git -C c log --oneline")
        assert (code, "first" in said) == (0, True), said
        await place.allow("example.org")
        code, said = await place.run(f"git clone -q {server.url}/source/.git d")
        assert (code, "403" in said) == (128, True), said


async def test_pip_installs_from_an_index_that_a_rule_names(place: Place, tmp_path: Path) -> None:
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_example.py", "ANSWER = 42\n")
        archive.writestr(
            "tiny_example-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-example\nVersion: 1.0\n"
        )
        archive.writestr("tiny_example-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_example-1.0.dist-info/RECORD", "")
    name = "tiny_example-1.0-py3-none-any.whl"
    index = tmp_path / "site" / "simple" / "tiny-example"
    index.mkdir(parents=True)
    (index / name).write_bytes(wheel.getvalue())
    digest = hashlib.sha256(wheel.getvalue()).hexdigest()
    (index / "index.html").write_text(f'<!DOCTYPE html><a href="{name}#sha256={digest}">{name}</a>')
    if subprocess.run([sys.base_prefix + "/bin/python3", "-m", "pip", "--version"], check=False).returncode != 0:
        pytest.skip("the host's Python has no pip")
    with web(tmp_path / "site") as server:
        await place.allow(f"private:localhost:{server.port}")
        pip = f"{sys.base_prefix}/bin/python3 -m pip install -q --retries 0 --target t --index-url"
        code, said = await place.run(
            f"{pip} http://localhost:{server.port}/simple tiny-example && cat t/tiny_example.py"
        )
        assert (code, "ANSWER = 42" in said) == (0, True), said
        await place.allow("example.org")
        asked = len(server.asked)
        code, said = await place.run(f"{pip.replace(' t ', ' u ')} http://localhost:{server.port}/simple tiny-example")
        assert code != 0, said
        assert len(server.asked) == asked
        assert (await place.manager.egress(place.id)).events[-1].rule == f"localhost:{server.port}"


# Ways around


async def test_there_is_no_dns_and_no_way_but_the_proxy(place: Place, site: Web) -> None:
    await place.allow(f"127.0.0.1:{site.port}", "*")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.bind(("127.0.0.1", 0))
        dns.setblocking(False)
        code = f"""
import socket
said = []
for host in ("example.org", "secret.evil.example"):
    try: said.append(socket.getaddrinfo(host, 443))
    except OSError: pass
for address in (("127.0.0.1", {dns.getsockname()[1]}), ("8.8.8.8", 53), ("169.254.169.254", 80)):
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.3); s.sendto(b"x", address); said.append(s.recv(10))
    except OSError: pass
for address in (("127.0.0.1", {site.port}), ("169.254.169.254", 80), ("1.1.1.1", 443), ("10.0.0.1", 80)):
    try: socket.create_connection(address, timeout=0.5).close(); said.append(address)
    except OSError: pass
print(said)
"""
        status, said = await place.run(f"{sys.executable} -I -S -c '{code}'")
        assert (status, said) == (0, "[]\n")
        with pytest.raises(BlockingIOError):
            dns.recv(10)


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "127.0.0.2", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[fe80::1]", "0.0.0.0", "localhost"],
)
async def test_a_rule_for_every_host_reaches_nothing_inside(host: str, place: Place) -> None:
    await place.allow("*:*")
    code, said = await place.run(f"curl -sS --max-time 5 http://{host}/")
    assert "Shadow's egress policy refuses" in said, said
    assert code == 0


async def test_one_workspace_cannot_use_the_proxy_of_another(place: Place, site: Web) -> None:
    await place.allow("example.org")
    other = await place.manager.create(WorkspaceSpec(egress=policy(f"127.0.0.1:{site.port}")))
    try:
        door = place.data_dir / "workspaces" / other.id / "door"
        for path in (door / "proxy.sock", door.parent / "egress" / "control.sock"):
            code, _ = await place.run(f"curl -sS --max-time 5 --unix-socket {path} {site.url}/file")
            assert code == 7
        assert os.listdir(door) == ["proxy.sock"]
        code, said = await place.run(
            "ls -A /run/egress; touch /run/egress/x; rm -f /run/egress/proxy.sock; ls -A /run/egress"
        )
        assert said.split().count("proxy.sock") >= 2, said
        assert not (place.data_dir / "workspaces" / place.id / "door" / "x").exists()
    finally:
        await place.manager.destroy(other.id)
    assert site.asked == []


async def test_the_policy_is_out_of_reach_and_the_proxy_runs_without_privileges(place: Place) -> None:
    await place.allow("example.org")
    pid = place.serving_pid()
    uids = {int(uid) for process in (pid, place.proxy_pid()) for uid in status_field(process, "Uid")}
    assert uids == {int(uid) for uid in status_field(holder_pid(place.data_dir, place.id), "Uid")}
    assert 0 not in uids
    if os.geteuid() == 0:  # an ordinary user may have capabilities that we did not give
        assert {int(status_field(pid, name)[0], 16) for name in ("CapEff", "CapPrm", "CapAmb")} == {0}
        assert status_field(pid, "Groups") == []
    directory = place.data_dir / "workspaces" / place.id
    assert {(directory / name).stat().st_uid for name in ("manifest.json", "egress/events.jsonl")} == {os.geteuid()}
    _, said = await place.run(
        f"cat {directory}/manifest.json {directory}/egress/* /run/egress/*; kill -9 {pid}; ls /proc"
    )
    assert "example.org" not in said
    assert str(pid) not in said.split()


# Life


async def test_a_change_applies_to_open_connections_at_once(place: Place) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def keep(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        await place.allow(f"127.0.0.1:{port}")
        line = (
            "exec 3<>/dev/tcp/127.0.0.1/3128; "
            f"printf 'CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n' >&3; cat <&3"
        )
        command = await place.executor.start(CommandSpec(argv=shell(line), timeout_s=DEADLINE_S))

        async def is_open() -> bool:
            return (await place.manager.egress(place.id)).counters.open == 1

        async with asyncio.timeout(DEADLINE_S):
            while not await is_open():
                await asyncio.sleep(0.02)
        await place.allow("example.org")
        assert (await place.executor.wait(command.id, timeout_s=5.0)).ending is not None
        assert not await is_open()
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_the_relay_is_there_when_it_is_used(tmp_path: Path) -> None:
    await skip_without_sandbox(tmp_path)
    async with local_manager(tmp_path).open(WorkspaceSpec()) as executor:
        for line, running in (("true", "0"), ("curl -sS http://example.org/ > /dev/null", "1")):
            look = f"{line}; cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c 'holder[.]relay import'"
            result = await executor.run(CommandSpec(argv=shell(look), timeout_s=DEADLINE_S))
            assert result.stdout.decode().strip() == running


async def test_killed_proxies_and_relays_come_back(place: Place, site: Web) -> None:
    await place.allow("example.org")
    await place.allow(f"127.0.0.1:{site.port}")  # told to a proxy that runs: the next one must know of it
    line = f"curl -sSf --retry 3 --retry-all-errors --retry-delay 1 {site.url}/file"
    for _ in range(2):
        assert (await place.run(line))[0] == 0
        await place.run("pkill -9 -f holder.relay; true")
        assert (await place.run(line))[0] == 0
        os.kill(place.serving_pid(), signal.SIGKILL)
        assert (await place.run(line))[0] == 0
        earlier = place.proxy_pid()
        before = (await place.manager.egress(place.id)).counters.connections
        os.kill(earlier, signal.SIGKILL)
        await ended(earlier)
        assert (await place.run(f"curl -sS {site.url}/file"))[1].startswith("This workspace may reach no host")
        async with await place.manager.attach(place.id):
            assert (await place.run(line))[0] == 0
        assert place.proxy_pid() != earlier
        assert (await place.manager.egress(place.id)).counters.connections == before + 1


async def test_a_proxy_that_hangs_is_replaced_by_the_next_change(place: Place, site: Web) -> None:
    await place.allow("example.org")
    stopped = place.serving_pid()
    os.kill(stopped, signal.SIGSTOP)
    await place.allow(f"127.0.0.1:{site.port}")
    assert not alive(stopped)
    assert (await place.run(f"curl -sSf {site.url}/file"))[0] == 0


@pytest.mark.parametrize("how", ["destroy", "holder killed"])
async def test_the_proxy_ends_with_its_workspace_and_leaves_nothing(how: str, tmp_path: Path) -> None:
    await skip_without_sandbox(tmp_path)
    manager = local_manager(tmp_path)
    status = await manager.create(WorkspaceSpec(egress=policy("example.org")))
    place = Place(manager, status.id, None, tmp_path)  # type: ignore[arg-type]
    try:
        first = place.proxy_pid()
        if how == "holder killed":
            os.kill(holder_pid(tmp_path, status.id), signal.SIGKILL)
            await ended(first)
            await (await manager.attach(status.id)).aclose()
            assert place.proxy_pid() != first
            assert (await manager.egress(status.id)).running
        pid = place.proxy_pid()
    finally:
        await manager.destroy(status.id)
    assert not alive(pid)
    assert leftovers(tmp_path) == []


async def test_a_policy_outlives_everybody(tmp_path: Path) -> None:
    await skip_without_sandbox(tmp_path)
    status = await local_manager(tmp_path, default_egress=policy("pypi")).create(WorkspaceSpec())
    manager = local_manager(tmp_path)
    try:
        assert (await manager.egress(status.id)).policy == policy("pypi")
        await manager.set_egress(status.id, policy("example.org:8443=GET"))
        assert (await local_manager(tmp_path).egress(status.id)).policy == policy("example.org:8443=GET")
    finally:
        await manager.destroy(status.id)
