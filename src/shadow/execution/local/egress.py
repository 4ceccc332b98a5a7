"""The egress proxy of a local workspace: started where a policy allows anything, told of changes, asked how it stands.

The manifest has the policy; the proxy has the one that it was started with or told last. ``make_sure`` brings them together
and may be repeated at any time, by anybody: attach does, so what a crash left in between lasts until the next attach.
"""

import asyncio
import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from signal import SIGKILL
from typing import cast

from shadow.core.egress_status import (
    EgressCounters,
    EgressEvent,
    EgressStatus,
    counters_from_json,
    event_from_json,
    policy_to_json,
)
from shadow.core.errors import Broken, Unavailable
from shadow.egress.main import CONTROL_SOCKET, COUNTERS, EVENTS, ProxyConfig, proxy_argv
from shadow.execution.local import launcher
from shadow.execution.local.directory import DOOR, EGRESS, PROXYING, WorkspaceDirectory
from shadow.execution.local.failures import typed_failures
from shadow.execution.local.launch import Launched, LaunchPlan, launch
from shadow.execution.local.manifest import PROXY, Manifest, read_holder, write_holder
from shadow.execution.local.process import ProcessHandle, is_alive
from shadow.execution.local.sandbox import EGRESS_SOCKET
from shadow.storage.locks import try_lock

MAX_EVENTS_SHOWN = 200
_WITHIN_S = 20.0
_ANSWER_S = 5.0
_POLL_S = 0.01
_BACKLOG = 512
_MAX_FILE_BYTES = 4 * 1024 * 1024


async def make_sure(directory: WorkspaceDirectory) -> None:
    """The proxy of a workspace that runs has the manifest's policy; there is none where no policy was ever set.

    One that allows nothing has a proxy too: what is refused is told.

    Raises: Unavailable: somebody else has been at it for too long. Broken: it does not start.
    """
    try:
        async with asyncio.timeout(_WITHIN_S):
            while True:
                manifest = directory.manifest()
                holder = read_holder(directory.fd)
                if manifest.egress_revision == 0 or holder is None or not is_alive(holder):
                    return
                if not directory.is_held(PROXYING):
                    if await _start(directory, manifest, holder_pid=holder.pid):
                        return
                elif await _is_told(directory, manifest, holder_pid=holder.pid):
                    return
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Unavailable("The egress proxy of the workspace does not answer.", mend="Try again.") from error


async def _is_told(directory: WorkspaceDirectory, manifest: Manifest, *, holder_pid: int) -> bool:
    """``False`` where it is on its way up or down. One that belongs to an earlier holder, or does not answer, is killed."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            answer = await _ask(
                directory, {"policy": policy_to_json(manifest.egress), "revision": manifest.egress_revision}
            )
    except (FileNotFoundError, ConnectionError, ValueError):
        return False
    except TimeoutError:
        answer = {}
    if answer.get("holder_pid") == holder_pid and cast("int", answer["revision"]) >= manifest.egress_revision:
        return True
    proxy = read_holder(directory.fd, name=PROXY)
    handle = None if proxy is None else ProcessHandle.open(proxy)
    if handle is not None:
        with handle:
            handle.send(SIGKILL)
            await handle.wait()
    return False


async def _ask(directory: WorkspaceDirectory, request: dict[str, object]) -> dict[str, object]:
    """Raises: OSError, ValueError: it is not there, or going."""
    reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory.fd}/{EGRESS}/{CONTROL_SOCKET}")
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        answer: object = json.loads(await reader.readline())
    finally:
        writer.close()
    if not isinstance(answer, dict):
        raise ValueError("the proxy's answer is not an object")  # noqa: TRY004 - the caller waits for one kind
    return cast("dict[str, object]", answer)


async def _start(directory: WorkspaceDirectory, manifest: Manifest, *, holder_pid: int) -> bool:
    """``False`` where somebody else is at it. Returns when it serves."""
    with typed_failures("Starting the egress proxy"):
        lock_fd = directory.open_lock()
        try:
            if not try_lock(lock_fd, PROXYING):
                return False
            with _listener(directory, manifest.uid) as listener:
                config = ProxyConfig(
                    workspace_id=manifest.id,
                    directory=str(directory.path / EGRESS),
                    listen_fd=launcher.LISTEN_FD,
                    holder_pid=holder_pid,
                    uid=manifest.uid,
                    policy=policy_to_json(manifest.egress),
                    revision=manifest.egress_revision,
                )
                plan = LaunchPlan(argv=proxy_argv(), announce=True)
                process = await launch(plan, lock_fd=lock_fd, listen_fd=listener.fileno())
        finally:
            os.close(lock_fd)  # the proxy has its own
        try:
            # Recorded before it may do anything: from here on, whoever destroys the workspace finds it.
            write_holder(directory.fd, process.identity, name=PROXY)
            await process.configure(config.to_json())
            await _first_answer(directory, process)
        except BaseException:
            process.handle.send(SIGKILL)
            raise
        finally:
            process.close()
    return True


async def _first_answer(directory: WorkspaceDirectory, process: Launched) -> None:
    while is_alive(process.identity):
        with suppress(OSError, ValueError):
            await _ask(directory, {})
            return
        await asyncio.sleep(_POLL_S)
    raise Broken(f"The egress proxy did not start: {process.failure_text().strip()}")


def _listener(directory: WorkspaceDirectory, uid: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        door = os.open(DOOR, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
        try:
            with suppress(FileNotFoundError):
                os.unlink(EGRESS_SOCKET, dir_fd=door)
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(f"/proc/self/fd/{door}/{EGRESS_SOCKET}")  # an address is at most 107 bytes long
            if uid is not None:
                os.chown(EGRESS_SOCKET, uid, uid, dir_fd=door, follow_symlinks=False)
        finally:
            os.close(door)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


async def read_status(directory: WorkspaceDirectory) -> EgressStatus:
    """What it has counted and told so far; of one that does not run, what it left."""
    manifest = directory.manifest()
    running = directory.is_held(PROXYING)
    if running:
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                await _ask(directory, {})  # it writes down what it has counted
    lines = _read(directory, EVENTS).splitlines()[-MAX_EVENTS_SHOWN:]
    return EgressStatus(
        policy=manifest.egress, counters=_counters(directory), events=tuple(_events(lines)), running=running
    )


def _counters(directory: WorkspaceDirectory) -> EgressCounters:
    try:
        return counters_from_json(json.loads(_read(directory, COUNTERS) or b"{}"))
    except (ValueError, TypeError):  # cut short by a crash of the host
        return EgressCounters()


def _events(lines: Sequence[bytes]) -> Sequence[EgressEvent]:
    events: list[EgressEvent] = []
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):  # the last one may be cut short
            events.append(event_from_json(json.loads(line)))
    return events


def _read(directory: WorkspaceDirectory, name: str) -> bytes:
    with typed_failures("Reading what the egress proxy has told"):
        try:
            fd = os.open(f"{EGRESS}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
        except FileNotFoundError:
            return b""
        with open(fd, "rb") as file:
            return file.read(_MAX_FILE_BYTES)
