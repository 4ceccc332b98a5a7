"""The egress proxy of one workspace, as a process of its own: outside the sandbox, and alive as long as the workspace's holder.

It starts with a ``ProxyConfig`` on stdin, opens what it needs, and, where it was started by root, becomes the workspace's own
uid before it reads the first byte of anybody. It answers requests of the control plane on a socket that nobody else reaches.

Two processes: one that serves, and its parent, which starts another where it was killed, with the policy that was told last.
"""

import asyncio
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from shadow.core.egress_status import policy_from_json
from shadow.core.errors import Rejected
from shadow.egress.book import Book
from shadow.egress.carrying import BUFFER_BYTES
from shadow.egress.proxy import Proxy

CONTROL_SOCKET, EVENTS, COUNTERS = "control.sock", "events.jsonl", "counters.json"
MAX_CONTROL_BYTES = 1024 * 1024
_SAVE_EVERY_S = 5.0
_CONTROL_S = 10.0
_AGAIN_S = 0.1
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_IMPORTED_LATE = ("concurrent.futures.thread", "encodings.idna")
"""What the standard library imports only when a name is looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    workspace_id: str
    directory: str
    """Of the control plane: events, counters, the control socket."""
    listen_fd: int
    """A listening unix socket."""
    holder_pid: int
    """Whose end is ours."""
    uid: int | None
    """What to become; ``None``: stay who we are."""
    policy: object
    """As ``policy_to_json`` gives it."""
    revision: int
    """Of the policy; an older one is not taken later."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def proxy_argv(python: str = sys.executable) -> tuple[str, ...]:
    """How to start it: isolated, without ``site``, since it needs the standard library and Shadow alone."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from shadow.egress.main import main; main()"
    return (python, "-I", "-S", "-c", code, str(Path(__file__).resolve().parents[2]))


class Server:
    """The proxy and its control socket. Made once, by who may open the files; ``run`` in each process that serves."""

    def __init__(self, config: ProxyConfig) -> None:
        self._config = config
        directory = os.open(config.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._events_fd = os.open(EVENTS, flags | os.O_APPEND, 0o600, dir_fd=directory)
        self._counters_fd = os.open(COUNTERS, flags, 0o600, dir_fd=directory)
        self._control = socket.socket(socket.AF_UNIX)
        os.fchmod(self._control.fileno(), 0o600)
        if CONTROL_SOCKET in os.listdir(directory):
            os.unlink(CONTROL_SOCKET, dir_fd=directory)
        self._control.bind(f"/proc/self/fd/{directory}/{CONTROL_SOCKET}")  # an address is at most 107 bytes long
        self._control.listen(16)
        os.close(directory)
        self._holder_fd = os.pidfd_open(config.holder_pid)
        self._told_fd = os.memfd_create("policy", os.MFD_CLOEXEC)
        """The policy that was told last, for whoever serves next."""
        self._tell(config.policy, config.revision)

    def _tell(self, policy: object, revision: int) -> None:
        data = json.dumps({"policy": policy, "revision": revision}).encode()
        os.pwrite(self._told_fd, data.ljust(os.fstat(self._told_fd).st_size), 0)  # one write: the old, or the new

    def _prepare(self) -> None:
        told = json.loads(os.pread(self._told_fd, MAX_CONTROL_BYTES, 0))
        self._revision: int = told["revision"]
        self._book = Book(clock=time.time, events_fd=self._events_fd, counters_fd=self._counters_fd)
        self._proxy = Proxy(
            policy=policy_from_json(told["policy"]),
            book=self._book,
            how_to_allow=lambda rule: f"shadow workspace egress {self._config.workspace_id} --allow '{rule}'",
        )

    def is_over(self, *, within_s: float) -> bool:
        """Whether the holder has ended, or does within that time."""
        return bool(select.select([self._holder_fd], [], [], within_s)[0])

    async def run(self) -> None:
        """Until the holder has ended; then the process ends too."""
        self._prepare()
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(self._holder_fd, over.set)
        loop.add_signal_handler(signal.SIGTERM, over.set)
        listener = socket.socket(fileno=self._config.listen_fd)
        async with (
            await asyncio.start_unix_server(self._proxy.serve, sock=listener, limit=BUFFER_BYTES),
            await asyncio.start_unix_server(self._answer, sock=self._control, limit=MAX_CONTROL_BYTES),
        ):
            saving = asyncio.create_task(self._save_regularly())
            await over.wait()
            saving.cancel()
            await self._proxy.end()
            self._book.save()
            os._exit(0)  # nothing is left to do, and nothing may keep us: a thread may be resolving a name

    async def _save_regularly(self) -> None:
        moved = -1
        while True:
            await asyncio.sleep(_SAVE_EVERY_S if self._book.open else 60.0)
            if moved != self._book.total_bytes:
                moved = self._book.total_bytes
                self._book.save()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line in, one line out: ``{"policy", "revision"}`` or ``{}``; then ``{"revision", "holder_pid"}``."""
        try:
            async with asyncio.timeout(_CONTROL_S):
                request = cast("dict[str, object]", json.loads(await reader.readline()))
                if "policy" in request and int(str(request["revision"])) > self._revision:
                    policy, self._revision = policy_from_json(request["policy"]), int(str(request["revision"]))
                    self._tell(request["policy"], self._revision)
                    self._proxy.change(policy)
                self._book.save()
                answer = {"revision": self._revision, "holder_pid": self._config.holder_pid}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError, TypeError, KeyError, Rejected) as error:
            sys.stderr.write(f"egress: control: {error!r}\n")
        finally:
            writer.close()


def become(uid: int) -> None:
    """For good. From here on nothing can be imported or opened that this uid cannot reach: the interpreter, for one."""
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    with open("/proc/self/status", "rb") as status:
        capabilities = [line for line in status if line.startswith((b"CapPrm:", b"CapEff:", b"CapAmb:"))]
    if any(int(line.split()[1], 16) for line in capabilities):
        raise PermissionError("capabilities outlived the change of uid (securebits?)")


def main() -> None:
    data = sys.stdin.buffer.read()
    if not data:  # whoever started us is gone
        return
    config = ProxyConfig(**json.loads(data))
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    server = Server(config)
    if config.uid is not None:
        become(config.uid)
    while True:
        pid = os.fork()
        if pid == 0:
            _end_with_parent()
            asyncio.run(server.run())
        if os.waitpid(pid, 0)[1] == 0 or server.is_over(within_s=_AGAIN_S):
            return


def _end_with_parent() -> None:
    parent = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it was too late
        os._exit(1)
