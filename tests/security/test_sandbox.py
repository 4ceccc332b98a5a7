"""The sandbox's walls: probes run inside, the judge stands outside."""

import json
import os
import socket
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Exited, shell
from shadow.core.ids import make_id
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.interface import ToolExecutor
from shadow.execution.local.seccomp import REFUSALS
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

SECRET = "a-secret-of-the-starter"
# The probes' interpreter: one that is certainly shown inside.
PYTHON = sys.executable


@dataclass(frozen=True)
class Place:
    """One sandbox for all probes, and where things are outside."""

    executor: ToolExecutor
    data_dir: Path
    directory: Path
    holder: int
    tools: Path

    async def probe(self, code: str, *arguments: object) -> object:
        """What a Python program inside prints as JSON."""
        spec = CommandSpec(argv=(PYTHON, "-I", "-S", "-c", code, *map(str, arguments)), timeout_s=DEADLINE_S)
        result = await self.executor.run(spec)
        assert result.ending == Exited(code=0), result.stderr.decode()
        return json.loads(result.stdout)

    async def shell(self, line: str) -> str:
        result = await self.executor.run(CommandSpec(argv=shell(line), timeout_s=DEADLINE_S))
        return (result.stdout + result.stderr).decode(errors="replace")


@pytest.fixture(scope="module")
async def place(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Place, None]:
    base = tmp_path_factory.mktemp("sandbox")
    await skip_without_sandbox(base / "data")
    tools = base / "tools"
    (tools / "bin").mkdir(parents=True)
    (tools / "bin" / "a-tool").write_text("#!/bin/sh\necho a tool\n")
    (tools / "bin" / "a-tool").chmod(0o755)
    secret_file = base / "secret"
    secret_file.write_text(SECRET)
    leaked = os.open(secret_file, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    patch = pytest.MonkeyPatch()
    patch.setenv("SHADOW_TEST_SECRET", SECRET)
    manager = local_manager(base / "data", toolchain_paths=(tools,))
    try:
        status = await manager.create(WorkspaceSpec())
        try:
            async with await manager.attach(status.id) as executor:
                yield Place(
                    executor=executor,
                    data_dir=base / "data",
                    directory=base / "data" / "workspaces" / status.id,
                    holder=holder_pid(base / "data", status.id),
                    tools=tools,
                )
        finally:
            await manager.destroy(status.id)
    finally:
        patch.undo()
        os.close(leaked)


# Identity and privileges


async def test_commands_are_an_ordinary_user_without_any_privilege(place: Place) -> None:
    assert await place.probe(
        "import json, os; s = dict(l.split(':', 1) for l in open('/proc/self/status'));"
        "print(json.dumps([os.getuid(), os.getgid(), os.getgroups(), *[int(s[n], 16) for n in"
        " ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')], int(s['NoNewPrivs']), int(s['Seccomp'])]))"
    ) in ([1000, 1000, [], 0, 0, 0, 0, 0, 1, 2], [1000, 1000, [1000], 0, 0, 0, 0, 0, 1, 2])
    assert (await place.shell("id -un; id -gn; hostname; echo $HOME")).split() == [
        "agent",
        "agent",
        "shadow",
        "/home/agent",
    ]


async def test_from_outside_it_is_a_uid_that_nobody_else_has(place: Place) -> None:
    """As root: a bubblewrap that starts as uid 0 stays uid 0, whatever it shows inside."""
    uids = {int(uid) for uid in status_field(place.holder, "Uid")}
    assert len(uids) == 1
    if os.geteuid() != 0:
        assert uids == {os.geteuid()}
        return
    assert uids.isdisjoint({0, 1000})
    assert status_field(place.holder, "Groups") in ([], [str(next(iter(uids)))])
    assert int(status_field(place.holder, "CapEff")[0], 16) == 0
    assert {(place.directory / name).stat().st_uid for name in ("files", "state")} == uids


async def test_no_privilege_can_be_gained(place: Place) -> None:
    for line in (
        "su -c id",
        "sudo -n id",
        "mount -t tmpfs x /workspace",
        "unshare -r id",
        "unshare -n id",
        "chroot / id",
    ):
        assert "uid=0" not in await place.shell(line), line
    said = await place.shell("cp /bin/bash s; chmod 4755 s; ./s -p -c 'id -u'; rm s")
    assert said.split()[0] == "1000"


# System calls


async def test_every_listed_system_call_is_refused(place: Place) -> None:
    column = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
    calls = {
        name: (numbers[column], refusal.error)
        for refusal in REFUSALS
        for name, numbers in refusal.calls.items()
        if numbers[column] is not None
    }
    code = (
        "import ctypes, json, sys; libc = ctypes.CDLL(None, use_errno=True); calls = json.loads(sys.argv[1]); wrong = {}\n"
        "for name, (number, error) in calls.items():\n"
        "    result = libc.syscall(number, -1, -1, -1, -1, -1, -1)\n"
        "    if (result, ctypes.get_errno()) != (-1, error): wrong[name] = [result, ctypes.get_errno()]\n"
        "print(json.dumps(wrong))"
    )
    assert await place.probe(code, json.dumps(calls)) == {}


async def test_arguments_of_system_calls_are_checked(place: Place) -> None:
    code = """
import ctypes, errno, fcntl, json, os, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
said = {}
for name, flag in dict(user=0x10000000, mount=0x20000, net=0x40000000, pid=0x20000000, time=0x80).items():
    said[name] = [libc.unshare(flag), ctypes.get_errno()]
for name, family in dict(vsock=40, alg=38, packet=17, bluetooth=31).items():
    try:
        socket.socket(family, socket.SOCK_RAW if family == 17 else socket.SOCK_STREAM).close()
        said[name] = None
    except OSError as error:
        said[name] = error.errno
try:
    fcntl.ioctl(os.openpty()[1], 0x5412, b"x")
    said["tiocsti"] = None
except OSError as error:
    said["tiocsti"] = error.errno
thread = threading.Thread(target=lambda: said.update(thread="ran")); thread.start(); thread.join()
socket.socketpair(); socket.socket(socket.AF_INET6).close()
print(json.dumps(said))
"""
    refused = [-1, 1]
    assert await place.probe(code) == {
        **dict.fromkeys(("user", "mount", "net", "pid", "time"), refused),
        **dict.fromkeys(("vsock", "alg", "packet", "bluetooth"), 97),
        "tiocsti": 1,
        "thread": "ran",
    }


async def test_another_call_table_is_refused(place: Place) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("only x86-64 has a second table for the same programs")
    code = (
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); print([l.syscall(0x40000000 | 39), ctypes.get_errno()])"
    )
    assert await place.probe(code) == [-1, 38]


# Processes


async def test_no_process_of_the_host_is_seen(place: Place) -> None:
    said = await place.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "shadow.sidecar" in said
    assert "pytest" not in said


async def test_holder_and_sidecar_show_nothing_of_themselves(place: Place) -> None:
    code = """
import json, os
open_to_us = []
for pid in os.listdir('/proc'):
    if not pid.isdigit() or int(pid) in (os.getpid(), os.getppid()): continue
    for name in ('environ', 'mem', 'maps', 'fd'):
        path = f'/proc/{pid}/{name}'
        try:
            os.listdir(path) if name == 'fd' else open(path, 'rb').read(1)
            open_to_us.append(path)
        except OSError: pass
print(json.dumps(open_to_us))
"""
    assert await place.probe(code) == []


async def test_nothing_of_the_starters_environment_gets_in(place: Place) -> None:
    assert SECRET not in await place.shell("env; cat /proc/*/environ; set")
    if os.geteuid() == 0:
        assert Path(f"/proc/{place.holder}/environ").read_bytes() in (b"", b"PWD=/\0")


async def test_no_descriptor_of_the_starter_gets_in(place: Place) -> None:
    """Not even those that programs forgot to close on exec."""
    if os.geteuid() != 0:
        pytest.skip("only root can look at the holder's descriptors from outside")
    names = [os.readlink(f"/proc/{place.holder}/fd/{fd}") for fd in os.listdir(f"/proc/{place.holder}/fd")]
    allowed = (
        str(place.directory / "lock"),
        str(place.directory / "state"),
        "/dev/null",
        "socket:",
        "pipe:",
        "anon_inode:",
    )
    foreign = [name for name in names if not name.startswith((*allowed, "/run/shadow/", "/memfd:", "/null"))]
    assert foreign == []
    opened = await place.probe(
        "import json, os; print(json.dumps(sorted(int(fd) for fd in os.listdir('/proc/self/fd'))))"
    )
    assert opened == [0, 1, 2, 3]  # the last one is that of the listing


async def test_killing_everything_inside_does_not_end_the_workspace(place: Place) -> None:
    await place.executor.write_file("before", b"kept")
    await place.shell("kill -9 1; kill -9 -1")
    assert (await place.executor.read_file("before")).content == b"kept"
    assert "alive" in await place.shell("echo alive")
    assert Path(f"/proc/{place.holder}").exists()


async def test_a_crash_hands_no_memory_to_the_host(place: Place) -> None:
    """A limit of 0 would not keep the kernel from feeding a core to the host's crash handler; 1 does."""
    assert (await place.shell("ulimit -c; grep core /proc/self/limits")).split()[-3:-1] in (["1", "1"], ["0", "0"])


# Files


async def test_nothing_outside_the_workspace_can_be_written(place: Place) -> None:
    name = make_id("probe", entropy=os.urandom(12))
    code = f"""
import json, os, sys
written = []
for directory in sys.argv[1:]:
    try:
        open(os.path.join(directory, {name!r}), 'x').close()
        written.append(directory)
    except OSError: pass
print(json.dumps(written))
"""
    places = [
        "/",
        "/usr",
        "/usr/local/bin",
        "/etc",
        "/bin",
        "/lib",
        "/dev",
        "/home",
        "/run",
        "/var",
        "/proc",
        "/proc/sys/kernel",
    ]
    places += [sys.prefix, sys.base_prefix, str(place.tools), str(place.tools / "bin"), *sys.path[1:]]
    # Where Shadow itself lies below /tmp, the way to its mounts is part of the sandbox's own /tmp.
    assert [written for written in await place.probe(code, *places) if not written.startswith("/tmp/")] == []
    assert [outside for outside in places if os.path.exists(f"{outside}/{name}")] == []
    private = ["/workspace", "/tmp", "/var/tmp", "/home/agent", "/dev/shm"]
    assert await place.probe(code, *private) == private


async def test_private_places_are_not_the_hosts(place: Place, tmp_path: Path) -> None:
    (tmp_path / "of-the-host").touch()
    await place.shell("touch /tmp/inside /var/tmp/inside /dev/shm/inside")
    assert not any(Path(directory, "inside").exists() for directory in ("/tmp", "/var/tmp", "/dev/shm"))
    assert "of-the-host" not in await place.shell(f"ls {tmp_path} /tmp")


async def test_the_hosts_secrets_are_not_there(place: Place) -> None:
    names = [
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/sudoers",
        "/etc/ssh",
        "/etc/ssl/private",
        "/etc/machine-id",
        "/etc/pip.conf",
    ]
    names += [
        "/sys",
        "/boot",
        "/var/lib",
        "/run/systemd",
        str(place.data_dir),
        str(Path.home() / ".ssh"),
        "/root/.bashrc",
    ]
    code = "import json, os, sys; print(json.dumps([p for p in sys.argv[1:] if os.path.lexists(p)]))"
    assert await place.probe(code, *names) == []
    assert "agent:x:1000" in await place.shell("cat /etc/passwd")
    assert (await place.shell("wc -l < /etc/passwd")).strip() == "3"


async def test_the_listening_socket_is_out_of_reach(place: Place) -> None:
    """In a directory that the guest may write, it could be swapped for a link to another socket of the host."""
    assert (place.directory / "sidecar.sock").stat().st_mode & 0o777 == 0o600
    assert (await place.shell("find /workspace /run /tmp /home -type s 2>/dev/null")).strip() == ""


async def test_tools_below_closed_directories_work_inside(place: Place) -> None:
    """Its directory is below one with mode 0700, and below /tmp, which is private inside."""
    assert (await place.shell("a-tool")).strip() == "a tool"
    assert str(place.tools / "bin") in (await place.shell("echo $PATH"))


async def test_common_tools_work(place: Place) -> None:
    for line in ("awk 'BEGIN {print 42}'", "python3 -c 'print(42)'", "bash -lc 'echo 42'", "sh -c 'echo 4\"\"2'"):
        assert (await place.shell(line)).strip() == "42", line


async def test_devices_are_harmless(place: Place) -> None:
    assert (
        await place.shell("head -c 3 /dev/zero | wc -c; echo x > /dev/null; head -c 4 /dev/urandom | wc -c")
    ).split() == [
        "3",
        "4",
    ]
    listed = set((await place.shell("ls /dev")).split())
    usual = [
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "fd",
        "stdin",
        "stdout",
        "stderr",
        "pts",
        "ptmx",
        "shm",
    ]
    assert listed <= {*usual, "core", "console"}


# Network


async def test_there_is_no_network_but_its_own_loopback(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = """
import json, socket, sys
said = [[name for _, name in socket.if_nameindex()]]
for address in (('127.0.0.1', int(sys.argv[1])), ('1.1.1.1', 53)):
    try:
        socket.create_connection(address, timeout=2).close(); said.append('connected')
    except OSError: said.append('refused')
with socket.create_server(('127.0.0.1', 0)) as own: socket.create_connection(own.getsockname()).close()
print(json.dumps(said))
"""
        assert await place.probe(code, server.getsockname()[1]) == [["lo"], "refused", "refused"]


async def test_abstract_sockets_of_the_host_are_out_of_reach(place: Place) -> None:
    name = f"\0shadow-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        code = (
            "import json, socket, sys\nwith socket.socket(socket.AF_UNIX) as s:\n"
            "    print(json.dumps(s.connect_ex('\\0' + sys.argv[1])))"
        )
        assert await place.probe(code, name[1:]) != 0


# The end


@pytest.mark.parametrize(
    "line", ["setsid {0} &", "nohup {0} &", "({0} & {0} &) & exit", "setsid sh -c '{0} & {0}' & sleep 99"]
)
async def test_destroying_leaves_no_process(line: str, tmp_path: Path) -> None:
    await skip_without_sandbox(tmp_path)
    manager = local_manager(tmp_path)
    marker = f"86400.{os.getpid()}"
    status = await manager.create(WorkspaceSpec())
    async with await manager.attach(status.id) as executor:
        await executor.start(CommandSpec(argv=shell(line.format(f"sleep {marker}"))))
        await eventually(lambda: bool(processes_with(f"sleep\0{marker}")), "the process runs")
    holder = holder_pid(tmp_path, status.id)
    await manager.destroy(status.id)
    assert processes_with(f"sleep\0{marker}") == []
    assert not Path(f"/proc/{holder}").exists() or status_field(holder, "State")[0] == "Z"
    assert not any(str(tmp_path) in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
    assert os.listdir(tmp_path / "workspaces") == [".lock"]
