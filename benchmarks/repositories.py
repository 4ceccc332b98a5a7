"""A workspace of a repository with 10,000 files and 100 MB, the first time and again, against plain `git clone` of its mirror.

Nothing is removed before the last round: for some time after many files were deleted, ext4 is ten to thirty times slower at
making new ones (it looks at every inode that was freed lately), and that would be all that is measured.
"""

import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.result import Result, median
from shadow.bootstrap import make_manager, make_repositories
from shadow.core.repositories import parse_repository
from shadow.core.workspaces import WorkspaceSpec
from shadow.settings import Settings

FILES, FILE_BYTES = 10_000, 10_000
ROUNDS = 3
GOAL = 0.25


def _git(directory: Path, *arguments: str) -> None:
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(
        ["git", *who, *arguments], cwd=directory, check=True, env={**os.environ, **quiet}, capture_output=True
    )


def _make_repository(path: Path) -> None:
    path.mkdir()
    chance = random.Random(7)
    for number in range(FILES):
        directory = path / f"d{number % 100:02}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_bytes(chance.randbytes(FILE_BYTES))
    _git(path, "init", "-q", "-b", "main")
    _git(path, "add", "-A")
    _git(path, "commit", "-qm", "first")


async def _workspace_s(settings: Settings, source: Path) -> float:
    manager, repositories = make_manager(settings), make_repositories(settings)
    started = time.perf_counter()
    async with repositories.opened(parse_repository(str(source), local_user=True)) as found:
        status = await manager.create(WorkspaceSpec(checkout=found.checkout))
        async with await manager.attach(status.id) as executor:
            await repositories.fill(executor, found)
    return time.perf_counter() - started


async def _destroy_all(settings: Settings) -> None:
    manager = make_manager(settings)
    for status in await manager.list():
        await manager.destroy(status.id)


async def measure() -> Result:
    directory = Path(tempfile.mkdtemp(prefix="shadow-bench-"))
    try:
        source = directory / "source"
        _make_repository(source)
        settings = Settings(data_dir=directory / "data")
        first = await _workspace_s(settings, source)
        again = [await _workspace_s(settings, source) for _ in range(ROUNDS)]
        (mirror,) = (path.parent for path in (directory / "data/mirrors").glob("*/HEAD"))
        local: list[float] = []
        transport: list[float] = []
        for times, option in ((local, "--local"), (transport, "--no-local")):
            for number in range(ROUNDS):
                started = time.perf_counter()
                _git(directory, "clone", "-q", option, "-b", "main", str(mirror), f"clone{option}{number}")
                times.append(time.perf_counter() - started)
        await _destroy_all(settings)
    finally:
        shutil.rmtree(directory)
    second = median(again)
    return Result(
        name="repositories",
        unit="s, second workspace of a repository with 10,000 files and 100 MB",
        ours=second,
        floor=median(local),
        floor_is="git clone --local of the mirror: hard links and a checkout, no sandbox",
        better="lower",
        goal=f"the second at most {GOAL} of the first",
        reached=second <= GOAL * first,
        details={"first_s": first, "second_of_first": second / first, "clone_without_links_s": median(transport)},
    )
