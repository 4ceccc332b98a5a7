"""Start one workspace's first process, cut off from whoever asked: a script, run as ``python -I -S launcher.py``.

It reads a plan (JSON) on stdin and forks; the parent ends at once, so that nobody but init is left to wait for the child. The
child keeps the descriptors below and no other, and nothing of its starter's environment, session, signals or directory.
As root it also drops to the workspace's own uid. Since that uid may not be allowed to walk to the sources of the sandbox's
mounts (an interpreter below a 0700 home), each is opened while it is still root and mounted, in a mount namespace of its own,
below a place that everybody can reach. Standard library only, and little of it: this is part of every start.
"""

import base64
import json
import os
import resource
import signal

TYPE_CHECKING = False  # importing typing for the constant would cost each start milliseconds
if TYPE_CHECKING:
    from typing import Any

# What the started process gets. 0 is the pipe that its configuration comes through, 1 is /dev/null, 2 a pipe for errors.
LOCK_FD = 3
LISTEN_FD = 4
STATUS_FD = 5
"""A pipe: ``{"child-pid": N}`` once there is a process; end-of-file without it means that nothing was started."""
STATUS_READER_FD = 6
"""The other end of that pipe: whoever should read it may be killed, and a writer that the kernel ends for it in the middle
of making a sandbox would leave a half-made one that waits for ever. The first process closes it."""
OOM_FD = 7
"""A file that counts what the kernel killed for want of memory among the commands; not always there, as the next ones."""
CGROUP_FD = 8
"""The first of up to three ``cgroup.procs``, open for writing: where commands go."""
DATA_FD = 11
"""The first of the files in memory that the plan asks for."""

_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_SLAVE = 0x2, 0x4, 0x1000, 0x4000, 0x80000
_OUT_OF_THE_WAY = 500


def main() -> None:
    with open(0, "rb", closefd=False) as stdin:
        plan: dict[str, Any] = json.load(stdin)
    if os.fork():
        os._exit(0)
    try:
        start(plan)
    except OSError as error:
        os.write(2, f"launcher: {error}\n".encode(errors="replace"))
        os._exit(1)


def start(plan: "dict[str, Any]") -> None:
    os.setsid()
    os.umask(0o022)
    os.chdir("/")
    reset_signals()
    if not plan["announce"]:
        dump_no_core()
    if plan["scope"] is not None:
        divide_scope(plan["scope"], plan["groups"])
    arrange_descriptors(plan["fds"], [base64.b64decode(text) for text in plan["data"]], open_groups(plan["groups"]))
    if plan["uid"] is not None:
        stage(plan["stage_dir"], plan["stage"])
        drop_to(plan["uid"])
    if plan["announce"]:
        os.write(STATUS_FD, json.dumps({"child-pid": os.getpid()}).encode() + b"\n")
        os.close(STATUS_FD)
    os.execve(plan["argv"][0], plan["argv"], {})


def reset_signals() -> None:
    """Ignored and blocked signals outlive exec: a child of ``nohup`` would never notice a hang-up, nor one of Python SIGPIPE."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def dump_no_core() -> None:
    """The kernel hands the memory of a crashed sandboxed program to a program of the host; with a limit of 1 it does not."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def divide_scope(settings: "dict[str, dict[str, str]]", groups: "dict[str, Any]") -> None:
    """In a scope of systemd: ourselves into one group, another for the commands. ``groups`` hears where that is."""
    with open("/proc/self/cgroup") as file:
        own = next(line.rstrip("\n").partition("::")[2] for line in file if line.startswith("0::"))
    scope = groups["root"] + own
    for name in ("holder", "commands"):
        os.mkdir(f"{scope}/{name}")
    write(f"{scope}/holder/cgroup.procs", "0")
    with open(f"{scope}/cgroup.controllers") as file:
        there = file.read().split()
    for controller, files in settings.items():
        if controller in there:
            write(f"{scope}/cgroup.subtree_control", f"+{controller}")
            for name, content in files.items():
                if os.path.exists(f"{scope}/commands/{name}"):
                    write(f"{scope}/commands/{name}", content)
    groups["procs"] = [f"{scope}/commands/cgroup.procs"]
    groups["oom"] = f"{scope}/commands/memory.events"


def write(path: str, content: str) -> None:
    with open(path, "w") as file:
        file.write(content)


def open_groups(groups: "dict[str, Any]") -> "dict[int, int]":
    """Number wanted by descriptor had. What counts kills may not be there: then nobody counts them."""
    opened = {CGROUP_FD + i: os.open(path, os.O_WRONLY) for i, path in enumerate(groups["procs"])}
    opened[OOM_FD] = os.open(groups["oom"] if os.path.exists(groups["oom"] or "") else os.devnull, os.O_RDONLY)
    return opened


def arrange_descriptors(given: "dict[str, int | None]", data: "list[bytes]", groups: "dict[int, int]") -> None:
    wanted: dict[int, int] = dict(groups)
    numbers = {
        "config": 0,
        "lock": LOCK_FD,
        "listen": LISTEN_FD,
        "status": STATUS_FD,
        "status_reader": STATUS_READER_FD,
    }
    for name, number in numbers.items():
        fd = given[name]
        if fd is not None:
            wanted[number] = fd
    wanted[1] = os.open(os.devnull, os.O_WRONLY)
    wanted[2] = 2
    for index, content in enumerate(data):
        memory = os.memfd_create("shadow")
        os.write(memory, content)
        os.lseek(memory, 0, os.SEEK_SET)
        wanted[DATA_FD + index] = memory
    # Two rounds: a target number may be the source of another.
    for source in wanted.values():
        os.dup2(source, _OUT_OF_THE_WAY + source, inheritable=False)
    for target, source in wanted.items():
        os.dup2(_OUT_OF_THE_WAY + source, target, inheritable=True)
    keep = sorted(wanted)
    for before, after in zip(keep, [*keep[1:], 1 << 20], strict=True):
        if before + 1 < after:  # closerange(0, 0) closes everything
            os.closerange(before + 1, after)


def stage(stage_dir: str, sources: "list[str]") -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")

    check(libc.unshare(_CLONE_NEWNS), "cannot make a mount namespace")
    check(libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "cannot detach the mounts from the host's")
    # Opened by descriptor before the place is covered: a source may lie below it.
    opened = [os.open(source, os.O_PATH) for source in sources]
    place = os.fsencode(stage_dir)
    check(libc.mount(b"tmpfs", place, b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=0755"), f"cannot mount on {stage_dir}")
    for index, source_fd in enumerate(opened):
        target = b"%s/%d" % (place, index)
        if os.path.isdir(f"/proc/self/fd/{source_fd}"):
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))
        link = b"/proc/self/fd/%d" % source_fd
        check(libc.mount(link, target, None, _MS_BIND | _MS_REC, None), f"cannot bind {sources[index]}")
        os.close(source_fd)


def drop_to(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # From here on nothing can be imported: the interpreter may lie where this uid cannot go.
    with open("/proc/self/status", "rb") as status:
        capabilities = [line for line in status if line.startswith((b"CapPrm:", b"CapEff:", b"CapAmb:"))]
    if any(int(line.split()[1], 16) for line in capabilities):
        raise PermissionError("capabilities outlived the change of uid (securebits?)")


if __name__ == "__main__":
    main()
