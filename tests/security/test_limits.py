"""Hogs: each is ended for the limit that it reached; holder, neighbours and the host feel nothing. The judge stands outside."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from shadow.core.commands import Command, CommandSpec, Ending, Exited, LimitReached, Signalled, TimedOut, shell
from shadow.core.errors import LimitExceeded
from shadow.core.ids import CommandId, make_id
from shadow.core.limits import LimitKind, Limits
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution.interface import ToolExecutor
from shadow.execution.local.cgroups import CONTROLLERS, PARENT, Mechanism, find_cgroups
from tests.support.holders import alive
from tests.support.local_workspaces import (
    DEADLINE_S,
    eventually,
    holder_pid,
    local_manager,
    processes_with,
    skip_without_sandbox,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")

MIB = 1024**2
LIMITS = Limits(
    memory_bytes=192 * MIB,
    processes=150,
    cpus=1.0,
    open_files=256,
    file_size_bytes=24 * MIB,
    workspace_bytes=32 * MIB,
    workspace_files=1000,
)
ANSWERS_WITHIN_S = 15.0
"""Far above what it takes, which is below a second on two cores: what must not happen is that nothing answers."""


async def answer_of(call: Awaitable[T]) -> T:
    async with asyncio.timeout(ANSWERS_WITHIN_S):
        return await call


@dataclass(frozen=True)
class Place:
    """A workspace with limits and a command in it that harms nobody, and another workspace."""

    executor: ToolExecutor
    other: ToolExecutor
    neighbour: CommandId
    files: Path
    holder: int
    sidecar: int

    async def suffer(self, *argv: str, timeout_s: float = DEADLINE_S) -> Ending | None:
        """Run a hog; all the while holder and both workspaces answer, and afterwards nothing of it is left."""
        marker = make_id("hog", entropy=os.urandom(12))
        spec = CommandSpec(argv=(*argv, marker), env={"MARKER": marker}, timeout_s=timeout_s)
        command: Command = await answer_of(self.executor.start(spec))
        while command.ending is None:
            await answer_of(self.executor.health())
            elsewhere = await answer_of(self.other.run(CommandSpec(argv=("true",))))
            assert elsewhere.ending == Exited(code=0)
            await asyncio.sleep(0.05)
            command = await answer_of(self.executor.get_command(command.id))
        assert alive(self.holder)
        assert alive(self.sidecar), "the sidecar was killed"
        assert (await self.executor.get_command(self.neighbour)).ending is None, "a neighbour was ended"
        if not isinstance(command.ending, Exited):
            await eventually(lambda: not any(map(alive, processes_with(marker))), "nothing of the hog is left")
        again = await answer_of(self.executor.run(CommandSpec(argv=("true",))))
        assert again.ending == Exited(code=0), "commands can run again"
        return command.ending

    async def python(self, code: str, *, timeout_s: float = DEADLINE_S) -> Ending | None:
        return await self.suffer(sys.executable, "-I", "-S", "-c", code, timeout_s=timeout_s)

    async def shell(self, line: str) -> Ending | None:
        return await self.suffer(*shell(line))


@asynccontextmanager
async def opened(data_dir: Path, isolation: Isolation) -> AsyncGenerator[Place, None]:
    manager = local_manager(data_dir, isolation)
    status = await manager.create(WorkspaceSpec(limits=LIMITS))
    try:
        async with manager.open(WorkspaceSpec(limits=LIMITS)) as other, await manager.attach(status.id) as executor:
            neighbour = await executor.start(CommandSpec(argv=("sleep", "1000"), timeout_s=900.0))
            holder = holder_pid(data_dir, status.id)
            sidecars = [pid for pid in processes_with("shadow.sidecar.main") if parent_of(pid) == holder]
            yield Place(
                executor=executor,
                other=other,
                neighbour=neighbour.id,
                files=data_dir / "workspaces" / status.id / "files",
                holder=holder,
                sidecar=sidecars[0],
            )
    finally:
        await manager.destroy(status.id)
    assert not [path for path in groups_of_the_host() if path.name == status.id], "its control groups are gone"


def parent_of(pid: int) -> int:
    """0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def groups_of_the_host() -> list[Path]:
    found = find_cgroups() if os.geteuid() == 0 else None
    return [path for root in found.roots.values() for path in (root / PARENT).glob("*")] if found else []


@pytest.fixture(scope="module")
async def place(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Place, None]:
    data_dir = tmp_path_factory.mktemp("limits") / "data"
    await skip_without_sandbox(data_dir)
    async with opened(data_dir, Isolation.SANDBOX) as place:
        yield place


PROCESSES = LimitReached(limit=LimitKind.PROCESSES)
MEMORY = LimitReached(limit=LimitKind.MEMORY)


# Processes


async def test_a_fork_bomb_is_ended(place: Place) -> None:
    assert await place.shell(":(){ :|:& };:; sleep 1000") == PROCESSES


async def test_a_fork_bomb_that_leaves_its_session_is_ended(place: Place) -> None:
    code = (
        "import os\nwhile True:\n    try:\n        if os.fork() == 0:\n            os.setsid()\n"
        "            if os.fork(): os._exit(0)\n    except OSError: pass"
    )
    assert await place.python(code) == PROCESSES


async def test_zombies_count(place: Place) -> None:
    code = (
        "import os, time\nfor i in range(5000):\n    try:\n        if os.fork() == 0: os._exit(0)\n"
        "    except OSError: time.sleep(0.01)\ntime.sleep(1000)"
    )
    assert await place.python(code) == PROCESSES


async def test_threads_count(place: Place) -> None:
    code = (
        "import threading, time\nfor i in range(10000):\n"
        "    try: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        "    except RuntimeError: time.sleep(0.01)\ntime.sleep(1000)"
    )
    assert await place.python(code) == PROCESSES


async def test_stopped_processes_count(place: Place) -> None:
    assert await place.shell("for i in {1..400}; do sleep 1000 & kill -STOP $!; done; wait") == PROCESSES


# Memory


async def test_one_process_that_takes_all_memory_is_ended(place: Place) -> None:
    code = "import mmap\nfor i in range(0, len(x := bytearray(2 << 30)), mmap.PAGESIZE): x[i] = 1"
    assert await place.python(code) == MEMORY


async def test_many_processes_that_take_all_memory_together_are_ended(place: Place) -> None:
    code = (
        "import os, time\nfor i in range(12):\n    if os.fork() == 0:\n        x = bytearray(40 << 20)\n"
        "        for i in range(0, len(x), 4096): x[i] = 1\n        time.sleep(1000)\ntime.sleep(1000)"
    )
    assert await place.python(code) == MEMORY


async def test_slowly_growing_memory_is_ended(place: Place) -> None:
    code = "import time\nx = []\nwhile True:\n    x.append(b'x' * (4 << 20))\n    time.sleep(0.02)"
    assert await place.python(code) == MEMORY


async def test_memory_that_nobody_asks_to_be_killed_for_first_is_ended(place: Place) -> None:
    """A process may take back that it is to go first; then its size alone speaks."""
    code = (
        "open('/proc/self/oom_score_adj', 'w').write('0')\n"
        "x = bytearray(1 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1"
    )
    assert await place.python(code) == MEMORY


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm", "/var/tmp", "/home/agent"])
async def test_files_in_memory_take_a_part_of_it_at_most(place: Place, directory: str) -> None:
    """The program hears of it as of a full disk, and memory is left for commands, whatever stays there."""
    fill = f"for i in {{1..10}}; do head -c 20M /dev/zero > {directory}/hog$i || full=1; done"
    most = 48 * 1024  # kibibytes: a quarter
    line = f"{fill}; (( full && $(du -sk --total {directory}/hog* | tail -n 1 | cut -f 1) <= {most} )) && exit 7"
    assert await place.shell(line) == Exited(code=7)
    assert await place.python("x = bytearray(64 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1") == Exited(code=0)
    assert await place.shell(f"rm {directory}/hog*") == Exited(code=0)


async def test_empty_files_in_memory_are_memory_too(place: Place) -> None:
    code = "import os, time\nfor i in range(1000000): os.close(os.open(f'/tmp/empty{i}', os.O_CREAT))\ntime.sleep(1000)"
    assert await place.python(code) == MEMORY
    assert await place.shell("find /tmp -maxdepth 1 -name 'empty*' -delete") == Exited(code=0)


async def test_a_mapped_file_in_memory_cannot_grow_past_that(place: Place) -> None:
    code = (
        "import mmap, os\nf = os.open('/dev/shm/mapped', os.O_RDWR | os.O_CREAT)\nos.unlink('/dev/shm/mapped')\n"
        "os.ftruncate(f, 1 << 30)\nm = mmap.mmap(f, 1 << 30)\nfor i in range(0, 1 << 30, 4096): m[i] = 1"
    )
    assert await place.python(code) in (Signalled(signal=7), Exited(code=1), LimitReached(limit=LimitKind.FILE_SIZE))


# Disk


async def test_who_fills_the_disk_is_ended_and_writes_are_refused(place: Place) -> None:
    line = "for i in {1..10000}; do head -c 1M /dev/zero > fill$i; done; sleep 1000"
    assert await place.shell(line) == LimitReached(limit=LimitKind.WORKSPACE_BYTES)
    with pytest.raises(LimitExceeded, match="workspace_bytes"):
        await answer_of(place.executor.write_file("more", b"more"))
    assert await place.shell("rm fill*") == Exited(code=0)
    await answer_of(place.executor.write_file("more", b"more"))
    await place.executor.delete("more")


async def test_who_fills_the_disk_without_writing_is_ended(place: Place) -> None:
    line = "for i in {1..10000}; do fallocate -l 20M fill$i; done; sleep 1000"
    assert await place.shell(line) == LimitReached(limit=LimitKind.WORKSPACE_BYTES)
    assert await place.shell("rm fill*") == Exited(code=0)


async def test_who_uses_up_files_is_ended(place: Place) -> None:
    assert await place.shell("i=0; while :; do : > many$((i++)); done") == LimitReached(limit=LimitKind.WORKSPACE_FILES)
    assert await place.shell("find . -name 'many*' -delete") == Exited(code=0)


async def test_who_uses_up_files_by_directories_and_links_is_ended(place: Place) -> None:
    line = "mkdir deep; cd deep; i=0; while :; do mkdir d$i; ln -s x l$i; cd d$i; i=$((i+1)); done"
    assert await place.shell(line) == LimitReached(limit=LimitKind.WORKSPACE_FILES)
    await answer_of(place.executor.delete("deep", recursive=True))


async def test_a_file_beyond_its_size_ends_the_command(place: Place) -> None:
    for line in ("exec head -c 1G /dev/zero > large", "head -c 1G /dev/zero > large"):
        assert await place.shell(line) == LimitReached(limit=LimitKind.FILE_SIZE)
        assert (place.files / "large").stat().st_size <= LIMITS.file_size_bytes  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(LimitExceeded):
        await place.executor.write_file("large", b"\0" * (25 * MIB))
    await place.executor.delete("large")


# CPU


async def test_cpu_beyond_the_limit_makes_slow_and_harms_nobody(place: Place) -> None:
    """Four busy loops use what one CPU gives, by the clock of the host's kernel, not by their own."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one CPU has no more to give")
    code = "import os\nfor i in range(3): os.fork()\nwhile True: pass"
    before = time.monotonic()
    marker = make_id("busy", entropy=os.urandom(12))
    command = await place.executor.start(CommandSpec(argv=(sys.executable, "-c", code, marker), timeout_s=900.0))
    await eventually(lambda: len(processes_with(marker)) == 8, "eight loops run")
    spent, began = ticks_of(processes_with(marker)), time.monotonic()
    await asyncio.sleep(2.0)
    await answer_of(place.executor.health())
    used = (ticks_of(processes_with(marker)) - spent) / os.sysconf("SC_CLK_TCK")
    took_s = time.monotonic() - began
    assert used <= 1.3 * took_s, f"{used} s of CPU in {took_s} s"
    await answer_of(place.executor.kill(command.id))
    assert time.monotonic() - before < DEADLINE_S


def ticks_of(pids: list[int]) -> int:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields)


# What is around it


async def test_the_time_limit_of_a_command_of_its_own_goes_first(place: Place) -> None:
    assert isinstance(await place.python("while True: pass", timeout_s=0.5), TimedOut)


async def test_commands_are_in_control_groups_and_holder_and_sidecar_are_not(place: Place) -> None:
    found = find_cgroups()
    if found is None or found.mechanism is Mechanism.SCOPE:
        pytest.skip("this user may make no control groups here")
    pid = int((await place.executor.get_command(place.neighbour)).pid or 0)
    outside = next(p for p in processes_with("sleep\x001000") if inner_pid(p) == pid and below(p, place.holder))
    for controller in found.roots:
        assert f"/{PARENT}/" in group_of(outside, controller)
        assert f"/{PARENT}/" not in group_of(place.holder, controller)
        assert f"/{PARENT}/" not in group_of(place.sidecar, controller)


async def test_control_groups_are_out_of_reach_from_inside(place: Place) -> None:
    assert await place.shell("ls /sys/fs/cgroup && exit 1; mount -t cgroup x /tmp && exit 2; exit 5") == Exited(code=5)
    line = "for f in /proc/[0-9]*/fd/*; do case $(readlink $f) in *cgroup*) exit 1;; esac; done; exit 5"
    assert await place.shell(line) == Exited(code=5)


async def test_limits_cannot_be_raised_from_inside(place: Place) -> None:
    assert await place.shell("ulimit -f unlimited || ulimit -u 100000 || ulimit -n 100000 || exit 5") == Exited(code=5)


def inner_pid(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:"))
    return int(line.split()[-1])


def below(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        pid = parent_of(pid)
    return pid == ancestor


def group_of(pid: int, controller: str) -> str:
    assert controller in CONTROLLERS
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return next((path for _, names, path in lines if controller in names.split(",")), lines[-1][2])


# Without a wall


async def test_without_a_sandbox_hogs_are_ended_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "data", Isolation.NONE) as place:
        assert await place.shell("for i in {1..400}; do sleep 1000 & done; wait") == PROCESSES
        assert await place.python("x = []\nwhile True: x.append(b'x' * (1 << 20))") == MEMORY
