"""One process per command that adopts and reaps whatever the command leaves: forked from the holder, used again when clean.

Why a process: an orphan goes to the nearest subreaper, so that "everything below this process" stays the exact answer to
"what did this command start", whatever it did with sessions, process groups and double forks. It costs nothing on the way
of a command, since one is always forked ahead. Holder and subreaper talk over a socket of packets:
to it: ``R`` with the descriptors of the request and stdin, stdout, stderr; from it: ``P pid`` (started),
``F errno program|directory`` (not started), ``X status`` (the command's own process ended), ``C`` (nothing is left of it).
"""

import errno
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from shadow.execution.holder.kernel import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    kill_descendants,
    prctl,
)

OOM_SCORE_ADJ = b"500"
"""Of commands: the kernel picks one before the holder, the sidecar or a subreaper."""
_DIRECTORY = "the working directory"
_RESET_SIGNALS = [s for s in signal.valid_signals() if s not in {signal.SIGKILL, signal.SIGSTOP}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a subreaper does to itself before its first command, so that all below it is under it."""

    rlimits: Mapping[int, int]
    """By resource: for good, soft and hard; no more than there is already."""
    cgroup_fds: tuple[int, ...] = ()
    """``cgroup.procs`` of the control groups to enter."""
    cpus: tuple[int, ...] = ()
    """CPUs to keep to; none: all."""


UNCONFINED = Confinement(rlimits={})


class Subreaper:
    """The holder's handle. ``spawn`` needs a clean one; ``on_message`` gets each message, ``on_closed`` the end."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel

    @staticmethod
    def fork(confinement: Confinement = UNCONFINED) -> "Subreaper":
        """Raises: OSError where the system has no room for another process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            _child(theirs, parent, confinement)
        theirs.close()
        ours.setblocking(False)
        return Subreaper(pid, ours)

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, *, stdio: Sequence[int], tty: str | None = None
    ) -> None:
        """Ask for a command; the answer is a message. Never blocks, also where the process was stopped.

        ``tty`` is the path of the terminal that all of ``stdio`` are: the command gets it as its controlling one.
        """
        request = json.dumps({"argv": list(argv), "env": dict(env), "cwd": cwd, "tty": tty}).encode("ascii")
        memory = os.memfd_create("request")
        try:
            view = memoryview(request)
            while view:
                view = view[os.write(memory, view) :]
            socket.send_fds(self.channel, [b"R"], [memory, *stdio])
        finally:
            os.close(memory)

    def receive(self, on_message: Callable[[list[str]], None]) -> bool:
        """Hand over what has arrived; ``False`` where the process is gone."""
        while self.channel.fileno() >= 0:  # a message may lead to our closing it
            try:
                packet = self.channel.recv(65536)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            if not packet:
                return False
            on_message(packet.decode("utf-8", "replace").split(" ", 2))
        return False


def find_program(argv0: str, path: str) -> str:
    """The first executable file of that name on ``path``; a name with a slash is taken as it is. Raises: OSError."""
    if "/" in argv0:
        return argv0
    denied = False
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", argv0)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            denied = True
    raise PermissionError(errno.EACCES, "not executable") if denied else FileNotFoundError(errno.ENOENT, "not found")


def _child(channel: socket.socket, parent: int, confinement: Confinement) -> NoReturn:
    """The forked process: only system calls from here on, and it never returns into the holder's code."""
    status = 1
    try:
        _prepare(channel, parent, confinement)
        while _serve(channel):
            pass
        status = 0
    except BaseException as error:  # noqa: BLE001 - the holder's code must not run twice, whatever happens here
        with suppress(BaseException):
            sys.stderr.write(f"subreaper: {error!r}\n")
            sys.stderr.flush()
    finally:
        os._exit(status)


def _prepare(channel: socket.socket, parent: int, confinement: Confinement) -> None:
    for cgroup in confinement.cgroup_fds:
        os.write(cgroup, b"0")
    if confinement.cpus:
        os.sched_setaffinity(0, confinement.cpus)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    fd = channel.fileno()
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Without a pid namespace a killed holder must not leave commands behind: they go with their subreaper.
    signal.signal(signal.SIGTERM, _end_everything)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(0)
    for number, wanted in confinement.rlimits.items():
        hard = resource.getrlimit(number)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(number, (limit, limit))


def _end_everything(_number: int, _frame: object) -> NoReturn:
    while kill_descendants(os.getpid(), passes=100):
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    os._exit(0)


def _serve(channel: socket.socket) -> bool:
    """One command from its request until nothing of it is left."""
    try:
        packet, fds, _, _ = socket.recv_fds(channel, 16, 4)
    except ConnectionResetError:
        return False
    if not packet:
        return False
    for fd in fds:
        os.set_inheritable(fd, False)  # received descriptors are; the command gets three, by number
    if len(fds) != 4:
        raise OSError(errno.EMFILE, "descriptors did not fit")
    try:
        request = json.loads(_read_all(fds[0]))
        main = _spawn(request, fds[1:])
    except OSError as error:
        channel.send(f"F {error.errno} {'directory' if error.filename == _DIRECTORY else 'program'}".encode())
        return True
    finally:
        for fd in fds:
            os.close(fd)
        os.chdir("/")
    channel.send(f"P {main}".encode())
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            break
        if pid == main:
            channel.send(f"X {status}".encode())
    channel.send(b"C")
    return True


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    data = bytearray()
    while len(data) < size:
        data += os.pread(fd, size - len(data), len(data))
    return bytes(data)


def _spawn(request: dict[str, Any], stdio: Sequence[int]) -> int:
    """Raises: OSError with the name of what was wrong."""
    argv: list[str] = request["argv"]
    env: dict[str, str] = request["env"]
    try:
        os.chdir(request["cwd"])
    except OSError as error:
        raise OSError(error.errno, error.strerror, _DIRECTORY) from error
    program = find_program(argv[0], env.get("PATH", os.defpath))
    tty: str | None = request["tty"]
    if tty is not None:
        # The first terminal that the leader of a new session opens becomes its controlling one.
        stdin = [(os.POSIX_SPAWN_OPEN, 0, tty, os.O_RDWR, 0)]
        actions = [*stdin, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    else:
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(stdio)]
    with _as_first_to_go():
        return os.posix_spawn(
            program,
            argv,
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_RESET_SIGNALS,
        )


@contextmanager
def _as_first_to_go() -> Generator[None]:
    """What is forked now the kernel kills first where memory runs out; the subreaper itself only for that moment."""
    try:
        score = os.open("/proc/self/oom_score_adj", os.O_RDWR)
    except OSError:
        yield
        return
    try:
        own = os.read(score, 16)
        with suppress(OSError):  # it may not be lowered, where the host's is higher
            os.pwrite(score, OOM_SCORE_ADJ, 0)
        try:
            yield
        finally:
            with suppress(OSError):
                os.pwrite(score, own, 0)
    finally:
        os.close(score)
