"""The local manager with real holders: what outlives whom, what a crash leaves, and that everything goes in the end."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Exited, Lost, shell
from shadow.core.errors import Broken, Denied, LimitExceeded, NotFound, StaleEpoch, Unsupported
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import Isolation, Mode, WorkspaceSpec, WorkspaceState
from shadow.execution.local.directory import Workspaces
from shadow.execution.local.manifest import MANIFEST
from shadow.execution.local.sandbox import Bwrap
from shadow.execution.local.uids import UID_LEASES_DIRECTORY
from shadow.execution.registry import make_manager
from tests.support.local_workspaces import (
    eventually,
    holder_pid,
    leftovers,
    local_manager,
    processes_with,
    skip_without_sandbox,
)

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("isolation", [Isolation.SANDBOX, Isolation.NONE])

CREATE = """
import asyncio, os, sys, time
from pathlib import Path
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution.local.manager import LocalWorkspaceManager

async def main():
    manager = LocalWorkspaceManager(data_dir=Path(sys.argv[1]), isolation=Isolation(sys.argv[2]),
        default_lease_s=float(sys.argv[3]), clock=time.time, entropy=os.urandom)
    print("starting", flush=True)
    print((await manager.create(WorkspaceSpec())).id, flush=True)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
async def sandbox_or_skip(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    await skip_without_sandbox(tmp_path_factory.mktemp("try"))


def uid_leases_of(data_dir: Path) -> list[str]:
    if not UID_LEASES_DIRECTORY.is_dir() or os.geteuid() != 0:
        return []
    return [p.name for p in UID_LEASES_DIRECTORY.glob("[0-9]*") if str(data_dir).encode() in p.read_bytes()]


def is_running(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def kill_holder(data_dir: Path, workspace_id: WorkspaceId) -> None:
    pid = holder_pid(data_dir, workspace_id)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not is_running(pid), "the holder is gone")


@BOTH
async def test_a_workspace_outlives_its_starter(isolation: Isolation, tmp_path: Path) -> None:
    started = subprocess.run(
        [sys.executable, "-c", CREATE, tmp_path, isolation.value, "60"], capture_output=True, text=True, check=True
    )
    workspace_id = WorkspaceId(started.stdout.split()[-1])
    manager = local_manager(tmp_path, isolation)
    try:
        async with await manager.attach(workspace_id) as executor:
            assert (await executor.run(CommandSpec(argv=("echo", "here")))).stdout == b"here\n"
    finally:
        await manager.destroy(workspace_id)
    assert leftovers(tmp_path) == []
    assert uid_leases_of(tmp_path) == []


@BOTH
async def test_attaching_starts_a_dead_workspace_again(isolation: Isolation, tmp_path: Path) -> None:
    manager = local_manager(tmp_path, isolation)
    status = await manager.create(WorkspaceSpec(env={"KEPT": "yes"}))
    async with await manager.attach(status.id) as executor:
        await executor.write_file("file", b"kept")
        running = await executor.start(CommandSpec(argv=shell("echo said; sleep 1000")))
        await executor.wait(running.id, timeout_s=0.2)
        await kill_holder(tmp_path, status.id)
    assert (await manager.status(status.id)).state is WorkspaceState.STOPPED
    other = local_manager(tmp_path, isolation)
    one, two = await asyncio.gather(manager.attach(status.id), other.attach(status.id))
    async with one, two:
        assert (await one.read_file("file")).content == b"kept"
        assert (await one.run(CommandSpec(argv=shell("echo $KEPT")))).stdout == b"yes\n"
        assert isinstance((await two.get_command(running.id)).ending, Lost)
    assert (await manager.status(status.id)).state is WorkspaceState.READY
    await manager.destroy(status.id)
    assert leftovers(tmp_path) == []


async def test_a_workspace_without_a_wall_is_started_again_as_such(tmp_path: Path) -> None:
    """The isolation is the workspace's, not that of the manager that finds it."""
    status = await local_manager(tmp_path, Isolation.NONE).create(WorkspaceSpec())
    await kill_holder(tmp_path, status.id)
    manager = local_manager(tmp_path, Isolation.SANDBOX)
    async with await manager.attach(status.id) as executor:
        assert executor.capabilities.isolation is Isolation.NONE
        assert (await executor.run(CommandSpec(argv=("pwd",)))).stdout.decode().strip() == str(
            tmp_path / "workspaces" / status.id / "files"
        )
    await manager.destroy(status.id)


async def test_taking_over_reaches_a_workspace_that_was_started_again(tmp_path: Path) -> None:
    manager = local_manager(tmp_path)
    async with manager.open(WorkspaceSpec()) as first:
        [status] = await manager.list()
        async with await manager.attach(status.id, take_over=True) as second:
            assert second.epoch == first.epoch + 1
            await kill_holder(tmp_path, status.id)
            async with await manager.attach(status.id) as third:
                assert third.epoch == second.epoch
                await third.write_file("file", b"")
                with pytest.raises(StaleEpoch):
                    await first.write_file("file", b"")


async def test_it_ends_with_its_lease_and_is_reaped(tmp_path: Path) -> None:
    manager = local_manager(tmp_path)
    status = await manager.create(WorkspaceSpec(lease_s=1.0))
    holder = holder_pid(tmp_path, status.id)
    assert await manager.list_orphans() == []
    await eventually(lambda: not is_running(holder), "the holder has ended itself")
    while status.id in [s.id for s in await manager.list()]:
        await asyncio.sleep(0.05)
    with pytest.raises(NotFound):
        await manager.attach(status.id)
    assert leftovers(tmp_path) == []
    assert uid_leases_of(tmp_path) == []


async def test_a_renewed_lease_keeps_it(tmp_path: Path) -> None:
    manager = local_manager(tmp_path)
    status = await manager.create(WorkspaceSpec(lease_s=1.5))
    await manager.renew(status.id, lease_s=100)
    renewed = await manager.status(status.id)
    assert renewed.lease_expires_at is not None
    assert renewed.lease_expires_at > time.time() + 50
    async with await manager.attach(status.id) as executor:
        remaining = (await executor.health()).lease_remaining_s
        assert remaining is not None
        assert remaining > 50
    await manager.destroy(status.id)


@BOTH
@pytest.mark.parametrize("round_", range(4))
async def test_a_killed_creator_leaves_nothing_after_the_lease(
    isolation: Isolation, round_: int, tmp_path: Path
) -> None:
    """SIGKILL at any instant, early ones above all: that is where the directory is only half there."""
    pick = random.Random(round_)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", CREATE, tmp_path, isolation.value, "1.5"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as creator:
            assert creator.stdout is not None
            creator.stdout.readline()
            await asyncio.sleep(pick.choice((0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3)) * pick.random())
            creator.kill()
    manager = local_manager(tmp_path, isolation)
    marker = str(tmp_path) if isolation is Isolation.NONE else None
    end = time.monotonic() + 30
    while leftovers(tmp_path):
        assert time.monotonic() < end, leftovers(tmp_path)
        await manager.reap()
        await asyncio.sleep(0.05)
    assert uid_leases_of(tmp_path) == []
    assert marker is None or processes_with(f"{marker}/workspaces") == []


async def test_many_may_list_attach_and_destroy_at_once(tmp_path: Path) -> None:
    managers = [local_manager(tmp_path) for _ in range(3)]
    statuses = await asyncio.gather(*(manager.create(WorkspaceSpec()) for manager in managers))

    async def use(manager_index: int, workspace_id: WorkspaceId) -> None:
        try:
            async with await managers[manager_index].attach(workspace_id) as executor:
                await executor.stat(".")
        except NotFound:
            pass

    work = [manager.destroy(status.id) for status in statuses for manager in managers]
    work += [use(i, status.id) for i, status in enumerate(statuses)]
    looks = [manager.list() for manager in managers] + [manager.reap() for manager in managers]
    outcomes = await asyncio.gather(*work, *looks, return_exceptions=True)
    unexpected = [o for o in outcomes if isinstance(o, BaseException) and "reach" not in str(o)]
    assert unexpected == []
    assert leftovers(tmp_path) == []
    assert uid_leases_of(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 500, b'{"id": "ws_other"}'])
async def test_a_damaged_manifest_is_told_and_can_be_destroyed(damage: bytes, tmp_path: Path) -> None:
    manager = local_manager(tmp_path)
    status = await manager.create(WorkspaceSpec())
    holder = holder_pid(tmp_path, status.id)
    (tmp_path / "workspaces" / status.id / MANIFEST).write_bytes(damage)
    [listed] = await manager.list()
    assert (listed.id, listed.state) == (status.id, WorkspaceState.BROKEN)
    assert listed.error
    assert await manager.list_orphans() == []
    with pytest.raises(Broken):
        await manager.attach(status.id)
    await manager.destroy(status.id)
    assert not is_running(holder)
    assert leftovers(tmp_path) == []
    assert uid_leases_of(tmp_path) == []


async def test_strangers_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    manager = local_manager(tmp_path)
    workspaces = tmp_path / "workspaces"
    workspaces.mkdir()
    (workspaces / "a_file").touch()
    (workspaces / "a_link").symlink_to("/etc")
    (workspaces / "Not An Id").mkdir()
    (workspaces / "an_empty_directory").mkdir()
    [listed] = await manager.list()
    assert (listed.id, listed.state) == ("an_empty_directory", WorkspaceState.BROKEN)
    assert await manager.reap() == []
    assert len(leftovers(tmp_path)) == 4


async def test_an_interrupted_removal_is_finished(tmp_path: Path) -> None:
    manager = local_manager(tmp_path)
    status = await manager.create(WorkspaceSpec())
    holder = holder_pid(tmp_path, status.id)
    Workspaces(tmp_path).hide(status.id)  # whoever did this died right after it
    assert await manager.list() == []
    assert not is_running(holder)
    assert leftovers(tmp_path) == []
    assert uid_leases_of(tmp_path) == []


async def test_a_cancelled_create_leaves_nothing(tmp_path: Path) -> None:
    manager = local_manager(tmp_path)
    for delay_s in (0.0, 0.01, 0.05, 0.15):
        task = asyncio.create_task(manager.create(WorkspaceSpec()))
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert leftovers(tmp_path) == []
    assert uid_leases_of(tmp_path) == []


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_both_transports_work_in_deep_directories(transport: str, tmp_path: Path) -> None:
    """The address of a unix socket is at most 107 bytes long."""
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    manager = local_manager(deep, transport=transport)
    async with manager.open(WorkspaceSpec()) as executor:
        assert (await executor.run(CommandSpec(argv=("true",)))).ending == Exited(code=0)
    assert leftovers(deep) == []


# What can be wrong with the host


def fake_bwrap(directory: Path, script: str) -> Bwrap:
    directory.mkdir(exist_ok=True)
    (directory / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "bwrap").chmod(0o755)
    return Bwrap(directory=str(directory), program="bwrap")


FORBIDDEN = "echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1"
FORBIDDEN_LATE = "exec 3>&-; echo '{\"child-pid\": '$$'}' >&5; " + FORBIDDEN


@pytest.mark.parametrize("script", [FORBIDDEN, FORBIDDEN_LATE])
async def test_a_host_without_namespaces_is_refused_with_the_way_out(script: str, tmp_path: Path) -> None:
    manager = local_manager(tmp_path / "data", bwraps=[fake_bwrap(tmp_path / "fake", script)])
    with pytest.raises(Unsupported, match="uid map") as refusal:
        await manager.create(WorkspaceSpec())
    assert "'none'" in str(refusal.value.mend)
    assert leftovers(tmp_path / "data") == []
    assert uid_leases_of(tmp_path) == []


@pytest.mark.parametrize("script", [FORBIDDEN, FORBIDDEN_LATE])
async def test_another_bubblewrap_is_tried(script: str, tmp_path: Path) -> None:
    from shadow.execution.local.host_facts import find_bwraps

    manager = local_manager(tmp_path / "data", bwraps=[fake_bwrap(tmp_path / "fake", script), *find_bwraps()])
    for _ in range(2):
        status = await manager.create(WorkspaceSpec())
        assert status.state is WorkspaceState.READY
        await manager.destroy(status.id)


@pytest.mark.parametrize(
    "script", ["exit 3", "kill -9 $$", "echo nonsense >&5", "echo '{\"child-pid\": 999999999}' >&5"]
)
async def test_a_bubblewrap_that_fails_otherwise_is_a_fault(script: str, tmp_path: Path) -> None:
    manager = local_manager(tmp_path / "data", bwraps=[fake_bwrap(tmp_path / "fake", script)])
    with pytest.raises(Broken):
        await manager.create(WorkspaceSpec())
    assert leftovers(tmp_path / "data") == []


async def test_a_data_directory_that_cannot_be_is_denied(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Denied, match="data directory"):
        await local_manager(tmp_path / "file" / "data").create(WorkspaceSpec())
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(Denied):
            await local_manager(tmp_path / "closed" / "data").create(WorkspaceSpec())


async def test_a_data_directory_of_somebody_else_is_denied(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    (tmp_path / "workspaces").mkdir()
    os.chown(tmp_path / "workspaces", 12345, 12345)
    with pytest.raises(Denied, match="another user"):
        await local_manager(tmp_path).create(WorkspaceSpec())


@pytest.mark.parametrize("limit", ["size=24k", "nr_inodes=9", "nr_inodes=4"])
async def test_a_full_disk_is_a_typed_error_and_leaves_nothing(limit: str, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", limit, "tmpfs", tmp_path], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode()}")
    try:
        filler = tmp_path / "filler"
        fill(filler)
        with pytest.raises(LimitExceeded):
            await local_manager(tmp_path).create(WorkspaceSpec())
        filler.unlink()
        assert set(os.listdir(tmp_path)) <= {"workspaces"}
        assert not (tmp_path / "workspaces").exists() or leftovers(tmp_path) == []
        assert uid_leases_of(tmp_path) == []
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def fill(path: Path) -> None:
    """Until the disk is full; where its size is not limited, its inodes are."""
    with path.open("wb", buffering=0) as file:
        for _ in range(64):
            try:
                file.write(b"x" * 4096)
            except OSError:
                return


async def test_paths_that_cannot_be_shown_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", Path("relative"), Path("/tmp")):
        with pytest.raises(Exception, match=r"shown|not there") as refusal:
            await local_manager(tmp_path / "data", toolchain_paths=(path,)).create(WorkspaceSpec())
        assert getattr(refusal.value, "mend", None)
    assert not (tmp_path / "data").exists()


def make(isolation: Isolation, mode: Mode = Mode.LOCAL) -> Callable[[Path], object]:
    return lambda path: make_manager(mode, isolation, data_dir=path, default_lease_s=60)


@pytest.mark.parametrize(
    "factory",
    [
        make(Isolation.CONTAINER),
        make(Isolation.MICROVM),
        make(Isolation.SANDBOX, Mode.REMOTE),
    ],
)
def test_what_does_not_exist_yet_is_unsupported_with_a_mend(factory: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as refusal:
        factory(tmp_path)
    assert refusal.value.mend
    assert refusal.value.details["capability"]
