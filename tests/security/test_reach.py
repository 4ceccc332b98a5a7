"""How far code in a sandbox reaches: other processes, kernel interfaces, files that somebody planted, other workspaces.

The judge stands outside: it looks at the processes, files and settings of the host after each attack.
"""

import asyncio
import ctypes
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Exited, shell
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.interface import ToolExecutor
from tests.support.holders import alive
from tests.support.local_workspaces import (
    DEADLINE_S,
    eventually,
    holder_pid,
    local_manager,
    processes_with,
    skip_without_sandbox,
    status_field,
)

pytestmark = pytest.mark.anyio

PYTHON = (sys.executable, "-I", "-S", "-c")
LIBC = "import ctypes, errno, json, os, socket, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant this")


@dataclass(frozen=True)
class Workspace:
    id: WorkspaceId
    executor: ToolExecutor
    directory: Path
    holder: int

    @property
    def files(self) -> Path:
        return self.directory / "files"

    async def probe(self, code: str, *arguments: object) -> object:
        """What a Python program inside prints as JSON."""
        spec = CommandSpec(argv=(*PYTHON, LIBC + code, *map(str, arguments)), timeout_s=DEADLINE_S)
        result = await self.executor.run(spec)
        assert result.ending == Exited(code=0), result.stderr.decode()
        return json.loads(result.stdout)

    async def shell(self, line: str) -> str:
        result = await self.executor.run(CommandSpec(argv=shell(line), timeout_s=DEADLINE_S))
        return (result.stdout + result.stderr).decode(errors="replace")


@dataclass(frozen=True)
class Place:
    one: Workspace
    other: Workspace


@pytest.fixture(scope="module")
async def place(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Place]:
    data_dir = tmp_path_factory.mktemp("reach") / "data"
    await skip_without_sandbox(data_dir)
    manager = local_manager(data_dir)
    made = [(await manager.create(WorkspaceSpec())).id for _ in range(2)]
    try:
        async with await manager.attach(made[0]) as first, await manager.attach(made[1]) as second:
            one, other = (
                Workspace(id_, executor, data_dir / "workspaces" / id_, holder_pid(data_dir, id_))
                for id_, executor in zip(made, (first, second), strict=True)
            )
            yield Place(one, other)
    finally:
        for id_ in made:
            await manager.destroy(id_)


# Other processes


async def test_nothing_of_ours_can_be_traced_read_or_robbed(place: Place) -> None:
    """Holder, sidecar and subreapers run as the same user as the commands: what closes them is that they are not dumpable."""
    code = """
got = []
ours = {os.getpid()}
for pid in sorted(int(name) for name in os.listdir('/proc') if name.isdigit()):
    if pid in ours: continue
    if libc.ptrace(0x4206, pid, 0, 0) == 0: got.append(f'seize {pid}')
    if libc.ptrace(16, pid, 0, 0) == 0: got.append(f'attach {pid}')
    local = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(local), 8)
    remote = (ctypes.c_void_p * 2)(0x400000, 8)
    if libc.process_vm_readv(pid, vector, 1, remote, 1, 0) > 0 or ctypes.get_errno() != errno.EPERM: got.append(f'read {pid}')
    if libc.process_vm_writev(pid, vector, 1, remote, 1, 0) > 0 or ctypes.get_errno() != errno.EPERM: got.append(f'write {pid}')
    try:
        fd = os.pidfd_open(pid)
        for number in range(16):
            if libc.syscall(438, fd, number, 0) >= 0: got.append(f'descriptor {number} of {pid}')
    except OSError: pass
    for name in ('mem', 'environ', 'auxv', 'maps', 'stack', 'syscall', 'pagemap', 'io', 'clear_refs', 'root/etc/hosts', 'exe'):
        try:
            open(f'/proc/{pid}/{name}', 'r+b' if name in ('mem', 'clear_refs') else 'rb').close()
            got.append(f'{name} of {pid}')
        except OSError: pass
print(json.dumps(got))
"""
    assert await place.one.probe(code) == []
    family = [place.one.holder, *children_of(place.one.holder)]
    assert len(family) > 1
    assert {status_field(pid, "TracerPid")[0] for pid in family} == {"0"}


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_processes_of_other_workspaces_cannot_be_named(place: Place) -> None:
    """Every number that a process can have is tried, with a signal that would end it."""
    marker = f"victim-{os.urandom(6).hex()}"
    command = await place.other.executor.start(CommandSpec(argv=("sh", "-c", "sleep 1000; :", marker), timeout_s=900.0))
    await eventually(lambda: bool(processes_with(marker)), "the victim runs")
    victims = processes_with(marker)
    code = """
hit = []
for pid in map(int, sys.argv[1:]):
    for what in (lambda: os.kill(pid, 9), lambda: os.killpg(pid, 9), lambda: os.pidfd_open(pid), lambda: os.getsid(pid),
                 lambda: os.setpriority(0, pid, 5), lambda: os.sched_setaffinity(pid, {0})):
        try:
            what()
            hit.append(pid)
        except OSError: pass
print(json.dumps(hit))
"""
    outside = [*victims, place.other.holder, os.getpid(), os.getppid()]
    inside = {int(pid) for pid in (await place.one.shell("ls /proc")).split() if pid.isdigit()}
    assert await place.one.probe(code, *(pid for pid in outside if pid not in inside)) == []
    assert all(map(alive, victims))
    await place.other.executor.kill(command.id)


# The kernel


NAMESPACE_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x10020000)


async def test_no_way_into_a_new_namespace(place: Place) -> None:
    """By clone, clone3, unshare and setns; from outside every process is seen to be in the namespaces of the holder."""
    code = """
import signal, subprocess, time
made = []
for flags in map(int, sys.argv[2:]):
    if os.uname().machine == 'x86_64':
        child = libc.syscall(56, flags | signal.SIGCHLD, 0, 0, 0, 0)
        if child == 0: time.sleep(1000)
        if child > 0: made.append(f'clone {flags:x}')
    arguments = (ctypes.c_uint64 * 11)(flags, 0, 0, 0, signal.SIGCHLD)
    child = libc.syscall(435, arguments, ctypes.sizeof(arguments))
    if child == 0: time.sleep(1000)
    if child > 0: made.append(f'clone3 {flags:x}')
    if libc.unshare(flags) == 0: made.append(f'unshare {flags:x}')
for name in os.listdir('/proc/self/ns'):
    fd = os.open(f'/proc/self/ns/{name}', os.O_RDONLY)
    if libc.setns(fd, 0) == 0: made.append(f'setns {name}')
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)', sys.argv[1]])
print(json.dumps(made))
"""
    marker = f"namespaces-{os.urandom(6).hex()}"
    assert await place.one.probe(code, marker, *NAMESPACE_FLAGS) == []
    found = processes_with(marker)
    assert found
    if os.geteuid() == 0:
        for name in ("user", "mnt", "pid", "net", "ipc", "uts"):
            assert {os.stat(f"/proc/{pid}/ns/{name}").st_ino for pid in found} == {
                os.stat(f"/proc/{place.one.holder}/ns/{name}").st_ino
            }, name
    await place.one.shell(f"pkill -9 -f {marker}")


SETTINGS = tuple(
    f"/proc/sys/{name}"
    for name in (
        "fs/file-max",
        "vm/overcommit_memory",
        "net/ipv4/ip_forward",
        "net/core/somaxconn",
        "user/max_user_namespaces",
    )
)
VARYING = ("ns_last_pid", "random", "pty", "sched_domain")
OF_ITS_OWN = r"/proc/sys/(fs/mqueue/.*|kernel/(msg|sem|shm|auto_msgmni|ns_last_pid|pid_max).*)|/proc/pressure/.*"
SHOW_SETTINGS = "grep -s . /proc/sys/fs/mqueue/* /proc/sys/kernel/{msg,sem,shm,pid_max}*"


async def test_no_setting_of_the_kernel_can_be_written(place: Place) -> None:
    """Everything below /proc that is no process, and /sys if it were there. What can be opened belongs to the sandbox's own
    ipc and pid namespaces, or asks to be told of pressure: nothing changes for the host, nor for a neighbour."""
    before, nearby = settings(), await place.other.shell(SHOW_SETTINGS)
    code = """
opened = []
for top in ('/proc', '/sys'):
    for parent, directories, files in os.walk(top):
        if parent == '/proc': directories[:] = [d for d in directories if not d.isdigit() and d not in ('self', 'thread-self')]
        for name in files:
            path = os.path.join(parent, name)
            try:
                fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                opened.append(path)
                os.write(fd, b'|/workspace/evil %p\\n' if name == 'core_pattern' else b'1\\n')
            except OSError: pass
print(json.dumps(opened))
"""
    opened = await place.one.probe(code)
    assert isinstance(opened, list)
    assert [path for path in opened if not re.fullmatch(OF_ITS_OWN, path)] == []
    assert (settings(), await place.other.shell(SHOW_SETTINGS)) == (before, nearby)


def settings() -> dict[str, bytes | None]:
    found = [*map(str, Path("/proc/sys/kernel").iterdir()), *map(str, Path("/proc/sys/fs/mqueue").glob("*"))]
    return {path: content(Path(path)) for path in (*found, *SETTINGS) if not path.endswith(VARYING)}


def content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


async def test_keyrings_of_the_host_are_out_of_reach(place: Place) -> None:
    """They are divided by user alone. The host's session has a key while the attack runs."""
    code = """
said = []
numbers = {'x86_64': (248, 249, 250), 'aarch64': (217, 218, 219)}[os.uname().machine]
said.append(libc.syscall(numbers[0], b'user', b'shadow-evil', b'x', 1, -3))
said.append(libc.syscall(numbers[1], b'user', b'shadow-canary', 0, -3))
for ring in range(-8, 0): said.append(libc.syscall(numbers[2], 0, ring, 1, 0, 0))
try: said.append('shadow-canary' in open('/proc/keys').read())
except OSError: said.append(False)
print(json.dumps(sorted(map(str, set(said)))))
"""
    libc = ctypes.CDLL(None, use_errno=True)
    add, unlink = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    key = libc.syscall(add, b"user", b"shadow-canary", b"secret", 6, -4)  # of the user
    try:
        assert key < 0 or "shadow-canary" in Path("/proc/keys").read_text(), "the probe would see it from here"
        assert await place.one.probe(code) == ["-1", "False"]
        if key > 0:
            assert "shadow-evil" not in Path("/proc/keys").read_text()
    finally:
        if key > 0:
            libc.syscall(unlink, 9, key, -4)


# Files


@root_only
async def test_a_setuid_program_of_root_gives_nothing(place: Place) -> None:
    """However it came there: mounts are nosuid, and no_new_privs is set."""
    planted = place.one.files / "setuid"
    shutil.copy("/usr/bin/id", planted)
    os.chown(planted, 0, 0)
    planted.chmod(0o6755)
    assert (await place.one.shell("./setuid -u; ./setuid -g")).split() == ["1000", "1000"]
    shutil.copy("/usr/bin/touch", planted)
    os.chown(planted, 0, 0)
    planted.chmod(0o6755)
    await place.one.shell("./setuid made")
    assert (place.one.files / "made").stat().st_uid == int(status_field(place.one.holder, "Uid")[0]) != 0


@root_only
async def test_a_device_gives_nothing(place: Place) -> None:
    """Neither made inside nor planted: mounts are nodev. The devices are harmless ones, with ways of the dangerous ones."""
    planted = place.one.files / "zero"
    os.mknod(planted, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    planted.chmod(0o666)
    code = """
got = []
for path in ('/workspace/zero',):
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        try: got.append(os.read(os.open(path, flags), 1).hex())
        except OSError as error: got.append(error.errno)
for directory in ('/workspace', '/tmp', '/dev/shm', '/home/agent'):
    for kind in (0o020666, 0o060666):
        try:
            os.mknod(f'{directory}/device', kind, os.makedev(1, 5))
            got.append(f'made {directory}')
        except OSError: pass
print(json.dumps(got))
"""
    try:
        assert await place.one.probe(code) == [13, 13, 13]
        assert not (place.one.files / "device").exists()
    finally:
        planted.unlink()


async def test_hard_links_lead_to_nothing_of_the_host(place: Place) -> None:
    """Between mounts there are none, and what is shown read-only stays as it is."""
    said = await place.one.shell("ln /etc/passwd p; ln /usr/bin/env e; ln /run/shadow/holder.log h; ls")
    assert not {"p", "e", "h"} & set(said.split("\n"))
    assert [path for path in place.one.files.iterdir() if path.is_file() and path.stat().st_nlink > 1] == []


# Other workspaces, other ports


async def test_another_workspace_is_nowhere(place: Place) -> None:
    secret = f"secret-{os.urandom(8).hex()}"
    await place.other.executor.write_file("secret", secret.encode())
    ways = [place.other.directory, place.other.files / "secret", place.other.directory / "sidecar.sock"]
    ways += [Path(f"/workspace/../{place.other.id}/files/secret"), Path(f"/proc/1/root{place.other.directory}")]
    code = "print(json.dumps([path for path in sys.argv[1:] if os.path.lexists(path)]))"
    assert await place.one.probe(code, *ways) == []
    assert secret not in await place.one.shell("grep -rs secret- /workspace /run /home /dev/shm")
    assert str(place.other.directory) not in await place.one.shell("cat /proc/net/unix; cat /proc/mounts")


@root_only
async def test_the_uid_of_a_workspace_is_of_no_use_on_the_host(place: Place) -> None:
    """Somebody who broke out would be a user that owns nothing but its own workspace, and cannot even get there."""
    uids = {int(status_field(workspace.holder, "Uid")[0]) for workspace in (place.one, place.other)}
    assert len(uids) == 2
    secret = place.other.files / "secret-of-uid"
    secret.write_text("secret")
    os.chown(secret, place.other.files.stat().st_uid, -1)
    escaped = int(status_field(place.one.holder, "Uid")[0])
    code = """
import os, socket, sys
holder, *paths = sys.argv[1:]
got = []
for path in paths:
    for what in (lambda: open(path).read(), lambda: os.listdir(path), lambda: socket.socket(socket.AF_UNIX).connect(path)):
        try:
            what()
            got.append(path)
        except OSError: pass
try:
    os.kill(int(holder), 0)
    got.append(holder)
except OSError: pass
print(got)
"""
    paths = [
        secret,
        place.other.directory,
        place.other.directory / "sidecar.sock",
        place.other.directory / "manifest.json",
    ]
    paths += [place.other.directory.parent, Path("/etc/shadow")]
    process = await asyncio.create_subprocess_exec(
        "setpriv", f"--reuid={escaped}", f"--regid={escaped}", "--clear-groups", "python3", "-I", "-S", "-c", code,
        str(place.other.holder), *map(str, paths), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, out.strip()) == (0, b"[]"), err


async def test_the_hosts_ports_and_the_metadata_address_hear_nothing(place: Place) -> None:
    """The servers are of this test: nothing arrives at them, by any name of this host."""
    with socket.create_server(("0.0.0.0", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("0.0.0.0", 0))
        for server in (tcp, udp):
            server.setblocking(False)
        addresses = {
            "127.0.0.1",
            "0.0.0.0",
            "localhost",
            socket.gethostname(),
            "169.254.169.254",
            "::1",
            "::ffff:127.0.0.1",
        }
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
            try:
                route.connect(("192.0.2.1", 9))
                addresses.add(route.getsockname()[0])
            except OSError:
                pass
        code = """
got = []
tcp, udp, *hosts = sys.argv[1:]
for host in hosts:
    try:
        socket.create_connection((host, int(tcp)), timeout=1).close()
        got.append(f'tcp {host}')
    except OSError: pass
    try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (host, int(udp)))
    except OSError: pass
for family, kind, protocol in ((2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 0), (16, 3, 15)):
    try:
        s = socket.socket(family, kind, protocol)
        if family != 16: got.append(f'raw {family}')
    except OSError: pass
print(json.dumps(got))
"""
        arguments = (tcp.getsockname()[1], udp.getsockname()[1], *sorted(addresses))
        assert await place.one.probe(code, *arguments) == []
        with pytest.raises(BlockingIOError):
            tcp.accept()
        with pytest.raises(BlockingIOError):
            udp.recv(1)


async def test_names_in_the_abstract_belong_to_one_workspace(place: Place) -> None:
    """A name that one takes is free in the other, and on the host."""
    name = f"shadow-{os.urandom(6).hex()}"
    code = """
import time
s = socket.socket(socket.AF_UNIX)
s.bind('\\0' + sys.argv[1])
s.listen()
print('bound', flush=True)
time.sleep(1000)
"""
    started = await place.one.executor.start(CommandSpec(argv=(*PYTHON, LIBC + code, name), timeout_s=900.0))
    async for _ in place.one.executor.read_output(started.id):
        break
    connect = "print(json.dumps(socket.socket(socket.AF_UNIX).connect_ex('\\0' + sys.argv[1])))"
    assert await place.one.probe(connect, name) == 0
    assert await place.other.probe(connect, name) == 111
    with socket.socket(socket.AF_UNIX) as host:
        assert host.connect_ex("\0" + name) == 111
    await place.one.executor.kill(started.id)
