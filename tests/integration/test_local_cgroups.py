"""Control groups: what is written for which limit, where groups are, and that a removal waits for the dead."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.core.ids import make_id
from shadow.core.limits import Limits
from shadow.execution.holder.running import OWN_PROCESSES
from shadow.execution.local import launcher
from shadow.execution.local.cgroups import (
    CONTROLLERS,
    Cgroups,
    Mechanism,
    find_cgroups,
    groups,
    hierarchies,
    make_groups,
    remove_groups,
    settings,
)
from shadow.execution.local.starting import chosen_cpus

LIMITS = Limits(memory_bytes=1000, processes=7, cpus=1.5)


def test_each_version_has_its_files() -> None:
    assert settings(LIMITS, version=2) == {
        "memory": {"memory.max": "1000", "memory.swap.max": "0"},
        "pids": {"pids.max": str(7 + OWN_PROCESSES)},
        "cpu": {"cpu.max": "150000 100000"},
    }
    assert settings(LIMITS, version=1) == {
        "memory": {"memory.limit_in_bytes": "1000", "memory.memsw.limit_in_bytes": "1000"},
        "pids": {"pids.max": str(7 + OWN_PROCESSES)},
        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"},
    }


@pytest.mark.parametrize("version", [1, 2])
def test_without_limits_nothing_is_written(version: int) -> None:
    assert settings(Limits(), version=version) == {name: {} for name in CONTROLLERS}


def test_files_that_a_kernel_lacks_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "pids.max").write_text("max")
    make_groups({"pids": tmp_path, "memory": tmp_path}, LIMITS, version=2)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"pids.max": str(7 + OWN_PROCESSES)}


def test_hierarchies_are_found_by_controller() -> None:
    mountinfo = (
        "30 24 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs ro,mode=755\n"
        "31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"
        "33 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct\n"
        "34 30 0:31 /docker/x /sys/fs/cgroup/memory rw shared:13 - cgroup cgroup rw,memory\n"
    )
    assert {name: path for name, path in hierarchies(mountinfo).items() if name in ("", *CONTROLLERS)} == {
        "": Path("/sys/fs/cgroup/unified"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "memory": Path("/sys/fs/cgroup/memory"),
    }


def test_a_scope_is_placed_by_systemd() -> None:
    assert groups(Cgroups(mechanism=Mechanism.SCOPE, roots={"": Path("/x")}), "ws_1") == {}
    assert groups(Cgroups(mechanism=Mechanism.V2, roots={"pids": Path("/x")}), "ws_1") == {
        "pids": Path("/x/shadow/ws_1")
    }


def test_cpus_are_whole_ones_and_the_same_for_one_workspace() -> None:
    available = len(os.sched_getaffinity(0))
    assert chosen_cpus(None, "ws_1") == ()
    assert chosen_cpus(available, "ws_1") == ()
    chosen = chosen_cpus(0.5, "ws_1")
    assert chosen == chosen_cpus(0.5, "ws_1")
    assert len(chosen) == (1 if available > 1 else 0) or chosen == tuple(os.sched_getaffinity(0))


@pytest.fixture
def made() -> Iterator[tuple[str, dict[str, Path]]]:
    found = find_cgroups() if os.geteuid() == 0 else None
    if found is None:
        pytest.skip("only root makes groups directly, and only where they are mounted and writable")
    name = make_id("test", entropy=os.urandom(12))
    places = groups(found, name)
    make_groups(
        places, Limits(memory_bytes=64 << 20, processes=20), version=2 if found.mechanism is Mechanism.V2 else 1
    )
    yield name, places
    remove_groups(name)


def test_groups_can_be_made_twice_and_with_less(made: tuple[str, dict[str, Path]]) -> None:
    _, places = made
    for memory_bytes in (64 << 20, 32 << 20, 128 << 20):
        for version in (1, 2):  # the other one's files are not there
            make_groups(places, Limits(memory_bytes=memory_bytes), version=version)
        limit = next(f for f in ("memory.max", "memory.limit_in_bytes") if (places["memory"] / f).exists())
        assert int((places["memory"] / limit).read_text()) == memory_bytes


def test_a_removal_ends_who_is_left(made: tuple[str, dict[str, Path]]) -> None:
    name, places = made
    with subprocess.Popen(["sleep", "1000"]) as process:
        for place in places.values():
            (place / "cgroup.procs").write_text(str(process.pid))
        remove_groups(name)
        assert process.wait(timeout=10) == -9
    assert not any(place.exists() for place in places.values())
    remove_groups(name)


def test_a_scope_is_divided_into_holder_and_commands(tmp_path: Path) -> None:
    """In a group of version 2 that stands for a scope of systemd; its controllers may be others than on the user's host."""
    unified = hierarchies(Path("/proc/self/mountinfo").read_text()).get("")
    if unified is None or os.geteuid() != 0 or not os.access(unified, os.W_OK):
        pytest.skip("there is no cgroup v2 that we may write to")
    scope = unified / make_id("scope", entropy=os.urandom(12))
    scope.mkdir()
    code = (
        f"import json, sys; sys.path.insert(0, {str(Path(launcher.__file__).parent)!r}); import launcher\n"
        f"open({str(scope / 'cgroup.procs')!r}, 'w').write('0')\n"
        f"groups = {{'root': {str(unified)!r}}}\n"
        "launcher.divide_scope({'memory': {'memory.max': '1000000000'}, 'pids': {'pids.max': '50'}}, groups)\n"
        "opened = launcher.open_groups(groups)\n"
        "print(json.dumps([open('/proc/self/cgroup').read(), groups, sorted(opened)]))"
    )
    try:
        out = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30
        ).stdout
        assert f"{scope.name}/holder" in out
        assert str(scope / "commands" / "cgroup.procs") in out
        assert f"[{launcher.OOM_FD}, {launcher.CGROUP_FD}]" in out
    finally:
        for name in ("holder", "commands", "."):
            if (scope / name).exists():
                (scope / name).resolve().rmdir()
