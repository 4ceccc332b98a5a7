"""Launch a workspace's first process from an event loop, and learn which one it is before it may do anything."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn, cast

from shadow.core.errors import Broken
from shadow.execution.local import launcher
from shadow.execution.local.cgroups import scope_argv, systemd_environment
from shadow.execution.local.failures import host_limits, launch_failure, typed_failures
from shadow.execution.local.process import ProcessHandle, ProcessIdentity, identify
from shadow.execution.local.readiness import wait_writable

_MAX_ERROR_BYTES = 16 * 1024
_LAUNCH_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """The control groups of the commands: those that are there, or what to make in a scope of systemd."""

    procs: Sequence[str] = ()
    oom: str | None = None
    scope: Mapping[str, Mapping[str, str]] | None = None
    """By controller, file and content."""
    limits_cpu: bool = False
    """Whether they surely limit it."""
    root: str = ""
    """For a scope: where version 2 is mounted."""

    @property
    def count(self) -> int:
        return len(self.procs) if self.scope is None else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    argv: Sequence[str]
    data: Sequence[bytes] = ()
    """Files in memory that ``argv`` refers to, from descriptor ``DATA_FD`` on."""
    announce: bool
    """The launcher itself says which pid it is; bubblewrap says it of its child."""
    uid: int | None = None
    """Drop to this uid; the sources to stage for it below ``stage_dir``."""
    stage_dir: str | None = None
    stage: Sequence[str] = ()
    cgroups: GroupPlan = field(default_factory=GroupPlan)


class Pipe:
    """The reading end of a pipe: keeps the first bytes, reads on past them, so that no writer has to wait."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_fd, False)
        self.data = bytearray()
        self._news = asyncio.Event()
        self.ended = False
        asyncio.get_running_loop().add_reader(self.read_fd, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = os.read(self.read_fd, 65536)
        except BlockingIOError:
            return
        self.data += data[: _MAX_ERROR_BYTES - len(self.data)]
        if not data:
            self.ended = True
            asyncio.get_running_loop().remove_reader(self.read_fd)
        self._news.set()

    async def line(self) -> bytes:
        """The first line; what there is at the end of file without one."""
        while b"\n" not in self.data and not self.ended:
            self._news.clear()
            await self._news.wait()
        return bytes(self.data)

    async def end(self) -> None:
        """Until nobody can write to it any more."""
        while not self.ended:
            self._news.clear()
            await self._news.wait()

    def drain(self) -> bytes:
        """What was written up to now."""
        before = -1
        while not self.ended and len(self.data) != before:
            before = len(self.data)
            self._on_readable()
        return bytes(self.data)

    def close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        self.close_write()
        asyncio.get_running_loop().remove_reader(self.read_fd)
        os.close(self.read_fd)


class Launched:
    """A first process that waits for its configuration; without one it ends by itself."""

    def __init__(self, identity: ProcessIdentity, handle: ProcessHandle, errors: Pipe, config_fd: int) -> None:
        self.identity = identity
        self.handle = handle
        self._errors = errors
        self._config_fd = config_fd

    async def configure(self, config: bytes) -> None:
        try:
            await _write_all(self._config_fd, config)
        except BrokenPipeError:
            await self.handle.wait()  # the reason stands in its errors
        finally:
            self._close_config()

    def failure_text(self) -> str:
        return self._errors.drain().decode(errors="replace")

    def close(self) -> None:
        """Let go; the process lives on."""
        self._close_config()
        self._errors.close()
        self.handle.close()

    def _close_config(self) -> None:
        if self._config_fd >= 0:
            os.close(self._config_fd)
            self._config_fd = -1


async def launch(plan: LaunchPlan, *, lock_fd: int | None, listen_fd: int | None) -> Launched:
    """Raises: Unsupported: the host forbids what a sandbox needs. Broken: anything else kept it from starting."""
    with typed_failures("Starting the workspace"):
        status, errors = Pipe(), Pipe()
        config_read, config_write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(config_write, False)
        handle: ProcessHandle | None = None
        try:
            await _run_launcher(
                plan, lock_fd=lock_fd, listen_fd=listen_fd, status=status, errors=errors, config=config_read
            )
            pid = await _announced_pid(status, errors)
            identity = identify(pid)
            handle = None if identity is None else ProcessHandle.open(identity)
            if identity is None or handle is None:
                await _fail(errors)
            launched = Launched(identity, handle, errors, config_write)
        except BaseException:
            errors.close()
            os.close(config_write)
            raise
        finally:
            status.close()
            os.close(config_read)
        return launched


async def _run_launcher(
    plan: LaunchPlan, *, lock_fd: int | None, listen_fd: int | None, status: Pipe, errors: Pipe, config: int
) -> None:
    passed = {
        "lock": lock_fd,
        "listen": listen_fd,
        "status": status.write_fd,
        "status_reader": None if plan.announce else status.read_fd,
        "config": config,
    }
    content = json.dumps(
        {
            "argv": list(plan.argv),
            "data": [base64.b64encode(data).decode("ascii") for data in plan.data],
            "announce": plan.announce,
            "uid": plan.uid,
            "stage_dir": plan.stage_dir,
            "stage": list(plan.stage),
            "scope": plan.cgroups.scope,
            "groups": {"procs": list(plan.cgroups.procs), "oom": plan.cgroups.oom, "root": plan.cgroups.root},
            "fds": passed,
        }
    )
    plan_fd = os.memfd_create("plan", os.MFD_CLOEXEC)
    try:
        os.write(plan_fd, content.encode())
        os.lseek(plan_fd, 0, os.SEEK_SET)
        in_scope = plan.cgroups.scope is not None
        process = await asyncio.create_subprocess_exec(
            *(*(scope_argv() if in_scope else ()), sys.executable, "-I", "-S", launcher.__file__),
            stdin=plan_fd,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors.write_fd,
            pass_fds=[fd for fd in passed.values() if fd is not None],
            env=systemd_environment() or {} if in_scope else {},
            cwd="/",
        )
    finally:
        os.close(plan_fd)
    status.close_write()
    errors.close_write()
    async with asyncio.timeout(_LAUNCH_TIMEOUT_S):
        await process.wait()


async def _announced_pid(status: Pipe, errors: Pipe) -> int:
    try:
        async with asyncio.timeout(_LAUNCH_TIMEOUT_S):
            line = await status.line()
    except TimeoutError as error:
        said = errors.drain().decode(errors="replace")
        raise Broken("The workspace's first process did not start in time.", details={"stderr": said}) from error
    if b"\n" not in line:
        await _fail(errors)
    try:
        announcement: object = json.loads(line.splitlines()[0])
    except ValueError:
        announcement = None
    pid = cast("dict[str, object]", announcement).get("child-pid") if isinstance(announcement, dict) else None
    if not isinstance(pid, int):
        raise Broken(f"bubblewrap said something unexpected: {line[:200]!r}.")
    return pid


async def _fail(errors: Pipe) -> NoReturn:
    """With the last words of a process that is gone, or about to be."""
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await errors.end()
    raise launch_failure(errors.drain().decode(errors="replace"), host_limits())


async def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await wait_writable(fd)
