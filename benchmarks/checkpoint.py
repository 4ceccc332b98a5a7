"""CPU of a checkpoint after one file of 10,000 has changed: everything that works for it, against git's own two steps by hand."""

import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.result import Result
from shadow.execution.host.executor import open_host

FILES, FILE_BYTES = 10_000, 1_000
ROUNDS = 20
GOAL_MS = 80.0


def _git(directory: Path, *arguments: str, index: Path | None = None) -> None:
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    env = {**os.environ, **quiet, **({"GIT_INDEX_FILE": str(index)} if index is not None else {})}
    subprocess.run(["git", *who, *arguments], cwd=directory, check=True, env=env, capture_output=True)


def _make_repository(path: Path) -> None:
    path.mkdir()
    for number in range(FILES):
        directory = path / f"d{number % 100:02}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_text(f"{number}\n" * (FILE_BYTES // len(f"{number}\n")))
    (path / ".gitignore").write_text("*.o\nbuild/\n")
    _git(path, "init", "-q", "-b", "main")
    _git(path, "add", "-A")
    _git(path, "commit", "-qm", "first")


def _change(path: Path, number: int) -> None:
    with (path / "d05/f5").open("a") as file:
        file.write(f"change {number}\n")


def _cpu_ms() -> float:
    """Of this process and all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used) * 1e3


async def _checkpoints_ms(path: Path, state: Path, rounds: int) -> float:
    """A holder, two checkpoints to begin with, and ``rounds`` of what is measured."""
    before = _cpu_ms()
    async with open_host(path, state, base_env={"PATH": os.environ["PATH"], "HOME": str(state)}) as executor:
        for number in range(2 + rounds):
            _change(path, number)
            await executor.git_checkpoint(f"c{number}")
    return _cpu_ms() - before


def _by_hand_ms(path: Path, index: Path) -> float:
    shutil.copy2(path / ".git/index", index)
    _git(path, "add", "-A", index=index)
    before = _cpu_ms()
    for number in range(ROUNDS):
        _change(path, number)
        _git(path, "add", "-A", index=index)
        _git(path, "write-tree", index=index)
    return (_cpu_ms() - before) / ROUNDS


async def measure() -> Result:
    directory = Path(tempfile.mkdtemp(prefix="shadow-bench-"))
    try:
        path = directory / "repository"
        _make_repository(path)
        floor_ms = _by_hand_ms(path, directory / "index")
        start_ms = await _checkpoints_ms(path, directory / "state0", 0)
        ours_ms = (await _checkpoints_ms(path, directory / "state", ROUNDS) - start_ms) / ROUNDS
    finally:
        shutil.rmtree(directory)
    return Result(
        name="checkpoint",
        unit="ms of CPU, one file of 10,000 changed",
        ours=ours_ms,
        floor=floor_ms,
        floor_is="git add -A && git write-tree by hand, on a warm index of its own",
        better="lower",
        goal=f"at most {GOAL_MS:.0f} ms",
        reached=ours_ms <= GOAL_MS,
    )
