"""Process identities and locks between processes: both tell the living from the dead without touching anybody."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shadow.core.errors import Broken, Unavailable, Unsupported
from shadow.execution.local.directory import ALIVE, CHANGES
from shadow.execution.local.failures import launch_failure, namespace_mend
from shadow.execution.local.process import ProcessHandle, identify, is_alive, is_first_of_namespace
from shadow.storage.locks import is_locked, lock, open_lock, try_lock

pytestmark = pytest.mark.anyio


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_a_living_process_is_known_by_its_identity(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identify(sleeper.pid)
    assert identity is not None
    assert is_alive(identity)
    assert not is_first_of_namespace(sleeper.pid)


def test_another_process_with_its_pid_is_not_it(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identify(sleeper.pid)
    assert identity is not None
    for other in (replace(identity, start_ticks=identity.start_ticks + 1), replace(identity, boot_id="another boot")):
        assert not is_alive(other)
        assert ProcessHandle.open(other) is None


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identify(sleeper.pid)
    assert identity is not None
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(identity)
    assert ProcessHandle.open(identity) is None
    sleeper.wait()
    assert identify(sleeper.pid) is None


async def test_a_handle_kills_and_waits(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identify(sleeper.pid)
    assert identity is not None
    handle = ProcessHandle.open(identity)
    assert handle is not None
    with handle:
        handle.send(signal.SIGKILL)
        async with asyncio.timeout(10):
            await handle.wait()
        sleeper.wait()
        handle.send(signal.SIGKILL)  # gone: nothing happens
    assert sleeper.returncode == -signal.SIGKILL


def test_a_lock_is_seen_without_being_taken(tmp_path: Path) -> None:
    ours, theirs = open_lock(tmp_path / "lock"), open_lock(tmp_path / "lock")
    assert try_lock(ours, ALIVE)
    assert is_locked(theirs, ALIVE)
    assert not is_locked(theirs, CHANGES)
    assert not try_lock(theirs, ALIVE)
    assert try_lock(theirs, CHANGES)
    os.close(ours)
    assert not is_locked(theirs, ALIVE)
    os.close(theirs)


def test_a_lock_lives_as_long_as_the_last_copy_of_its_descriptor(tmp_path: Path) -> None:
    ours, probe = open_lock(tmp_path / "lock"), open_lock(tmp_path / "lock")
    assert try_lock(ours, ALIVE)
    with subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=[ours], stdin=subprocess.PIPE) as child:
        os.close(ours)
        assert is_locked(probe, ALIVE)
        child.kill()
        child.wait()
    assert not is_locked(probe, ALIVE)
    os.close(probe)


async def test_waiting_for_a_lock_ends(tmp_path: Path) -> None:
    ours, theirs = open_lock(tmp_path / "lock"), open_lock(tmp_path / "lock")
    await lock(ours, CHANGES)
    with pytest.raises(Unavailable):
        await lock(theirs, CHANGES, timeout_s=0.05)
    os.close(ours)
    await lock(theirs, CHANGES)
    os.close(theirs)


@pytest.mark.parametrize(
    ("text", "facts", "mend"),
    [
        (
            "bwrap: setting up uid map: Permission denied",
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "AppArmor",
        ),
        (
            "bwrap: No permissions to create a new namespace",
            {"kernel.unprivileged_userns_clone": "0"},
            "userns_clone=1",
        ),
        ("bwrap: Creating new namespace failed: x", {"user.max_user_namespaces": "0"}, "max_user_namespaces"),
        ("launcher: [Errno 1] cannot make a mount namespace", {"container": "yes"}, "seccomp=unconfined"),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", {}, "Allow this user"),
    ],
)
def test_a_host_that_forbids_namespaces_is_told_the_way_out(text: str, facts: dict[str, str], mend: str) -> None:
    error = launch_failure(text, facts)
    assert isinstance(error, Unsupported)
    assert text in error.message
    assert mend in str(error.mend)
    assert "'none'" in str(error.mend)
    assert error.details["capability"] == "sandbox"


def test_other_failures_are_faults_with_their_text() -> None:
    error = launch_failure("Traceback: boom\n", {})
    assert isinstance(error, Broken)
    assert "boom" in error.message
    assert launch_failure("", {}).message.endswith("without a word")
    assert namespace_mend({})
