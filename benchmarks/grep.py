"""Searching 10,000 files through the workspace, against ripgrep run bare on the same tree."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.result import Result, median
from benchmarks.workspaces import workspace
from shadow.core.commands import CommandSpec, shell
from shadow.core.search import GrepQuery

FILES = 10_000
ROUNDS = 10
GOAL = 3.0
WORDS = [
    "lease",
    "holder",
    "epoch",
    "offset",
    "segment",
    "marker",
    "branch",
    "commit",
    "window",
    "buffer",
    "socket",
    "reader",
]


def _make_tree(root: Path) -> None:
    chance = random.Random(7)
    for number in range(FILES):
        directory = root / f"d{number % 100:02}"
        directory.mkdir(exist_ok=True)
        lines = [" ".join(chance.choices(WORDS, k=10)) for _ in range(20)]
        if number % 50 == 0:
            lines[10] += " needle"
        (directory / f"f{number}.txt").write_text("\n".join(lines) + "\n")


async def measure() -> Result:
    ours: list[float] = []
    fuzzy: list[float] = []
    floor: list[float] = []
    ripgrep = str(Path(sys.executable).with_name("rg"))
    if not Path(ripgrep).exists():
        ripgrep = shutil.which("rg") or "rg"
    async with workspace() as (executor, directory):
        root = directory / "files"
        _make_tree(root)
        found = await executor.run(CommandSpec(argv=shell("ls -R | wc -l")))
        for number in range(ROUNDS + 1):
            started = time.perf_counter()
            result = await executor.grep(GrepQuery(pattern="needl[e]"))
            grepped = time.perf_counter()
            await executor.search_files("d42f1042")
            searched = time.perf_counter()
            bare = subprocess.run(
                [ripgrep, "--json", "--hidden", "needl[e]", "."], cwd=root, stdout=subprocess.PIPE, check=True
            )
            ended = time.perf_counter()
            if len(result.lines) != FILES // 50 or bare.stdout.count(b'"type":"match"') != FILES // 50:
                raise RuntimeError(f"found {len(result.lines)} of {FILES // 50} lines in {found.stdout!r}")
            if number:
                ours.append((grepped - started) * 1e3)
                fuzzy.append((searched - grepped) * 1e3)
                floor.append((ended - searched) * 1e3)
    return Result(
        name="grep",
        unit="ms, median, 10,000 files, 200 matches",
        ours=median(ours),
        floor=median(floor),
        floor_is="rg --json on the same tree, outside",
        better="lower",
        goal=f"ratio at most {GOAL}",
        reached=median(ours) / median(floor) <= GOAL,
        details={"file_search_ms": median(fuzzy)},
    )
