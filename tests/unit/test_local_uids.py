"""Leases of uids: never twice at once, given back, taken again after a crash, never somebody's who has a name."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shadow.core.errors import Conflict, Denied, LimitExceeded, SettingsRefused
from shadow.execution.local.failures import typed_failures
from shadow.execution.local.uids import UidLeases, choose_uids, is_mapped, removed_name

pytestmark = pytest.mark.anyio


@pytest.fixture
def leases(tmp_path: Path) -> UidLeases:
    return UidLeases(_three(), directory=tmp_path / "uids")


def _three() -> range:
    try:
        return choose_uids(None)[-3:]  # the far end: those of living workspaces begin at the other
    except SettingsRefused as refusal:
        pytest.skip(f"no free uids are mapped here: {refusal}")


def workspace(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


async def test_each_workspace_gets_a_uid_of_its_own(leases: UidLeases, tmp_path: Path) -> None:
    owners = [workspace(tmp_path, f"ws_{i}") for i in range(3)]
    uids = await asyncio.gather(*(leases.take(owner) for owner in owners))
    assert sorted(uids) == list(_three())
    with pytest.raises(LimitExceeded):
        await leases.take(workspace(tmp_path, "one_more"))


async def test_a_uid_given_back_is_free_again(leases: UidLeases, tmp_path: Path) -> None:
    owner = workspace(tmp_path, "ws_1")
    uid = await leases.take(owner)
    await leases.release(owner)
    await leases.release(owner)
    assert await leases.take(workspace(tmp_path, "ws_2")) == uid


async def test_a_lease_that_a_crash_left_is_taken_again(leases: UidLeases, tmp_path: Path) -> None:
    owners = [workspace(tmp_path, f"ws_{i}") for i in range(3)]
    uids = [await leases.take(owner) for owner in owners]
    owners[1].rmdir()
    assert await leases.take(workspace(tmp_path, "next")) == uids[1]


async def test_a_workspace_that_is_being_removed_keeps_its_uid(leases: UidLeases, tmp_path: Path) -> None:
    owners = [workspace(tmp_path, f"ws_{i}") for i in range(3)]
    for owner in owners:
        await leases.take(owner)
    owners[0].rename(removed_name(owners[0]))
    with pytest.raises(LimitExceeded):
        await leases.take(workspace(tmp_path, "next"))


async def test_a_lease_that_was_cut_short_is_taken_again(leases: UidLeases, tmp_path: Path) -> None:
    owners = [workspace(tmp_path, f"ws_{i}") for i in range(3)]
    uids = [await leases.take(owner) for owner in owners]
    (tmp_path / "uids" / str(uids[2])).write_bytes(b"")
    assert await leases.take(workspace(tmp_path, "next")) == uids[2]


async def test_a_uid_under_which_something_runs_is_not_taken_again(leases: UidLeases, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to run something under another uid")
    owners = [workspace(tmp_path, f"ws_{i}") for i in range(3)]
    uids = [await leases.take(owner) for owner in owners]
    script = "import os, sys; os.setresuid(*[int(sys.argv[1])] * 3); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(uids[0])], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        owners[0].rmdir()
        with pytest.raises(LimitExceeded):
            await leases.take(workspace(tmp_path, "next"))
        process.communicate()
    assert await leases.take(tmp_path / "next") == uids[0]


async def test_a_lease_is_kept_and_found_again(leases: UidLeases, tmp_path: Path) -> None:
    owner, other = workspace(tmp_path, "ws_1"), workspace(tmp_path, "ws_2")
    uid = await leases.take(owner)
    await leases.keep(uid, owner)
    with pytest.raises(Conflict):
        await leases.keep(uid, other)
    (tmp_path / "uids" / str(uid)).unlink()  # /var was cleaned
    await leases.keep(uid, other)


def test_uids_that_are_not_mapped_are_refused() -> None:
    assert is_mapped(range(1000, 2000), [(0, 1), (1000, 2000)])
    assert not is_mapped(range(1000, 2001), [(0, 1), (1000, 2000)])
    for asked in (range(10), range(10, 10), range(2**33, 2**33 + 5)):
        with pytest.raises(SettingsRefused):
            choose_uids(asked)


async def test_uids_with_a_name_are_left_alone(tmp_path: Path) -> None:
    """65534 is nobody's on every Linux: nobody's name."""
    with pytest.raises(LimitExceeded):
        await UidLeases(range(65534, 65535), directory=tmp_path / "uids").take(workspace(tmp_path, "ws_1"))


async def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Denied):
        await UidLeases(_three(), directory=tmp_path / "file" / "uids").take(workspace(tmp_path, "ws_1"))


@pytest.mark.parametrize(("number", "expected"), [(28, LimitExceeded), (13, Denied), (30, Denied), (24, LimitExceeded)])
def test_what_the_system_refuses_is_typed(number: int, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="Making it failed"), typed_failures("Making it"):
        raise OSError(number, os.strerror(number), "/some/file")
