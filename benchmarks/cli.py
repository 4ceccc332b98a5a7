"""`shadow --help`, against a Python that does nothing."""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.result import Result, median

ROUNDS = 10
GOAL_S = 0.3


def _run_s(*argv: str) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


async def measure() -> Result:
    shadow = str(Path(sys.executable).with_name("shadow"))
    _run_s(shadow, "--help")
    ours: list[float] = []
    floor: list[float] = []
    imports: list[float] = []
    for _ in range(ROUNDS):
        ours.append(_run_s(shadow, "--help"))
        floor.append(_run_s(sys.executable, "-c", "pass"))
        imports.append(_run_s(sys.executable, "-c", "import shadow.cli.main"))
    import_s = median(imports) - median(floor)
    return Result(
        name="cli",
        unit="s, median, shadow --help",
        ours=median(ours),
        floor=median(floor),
        floor_is="python -c pass",
        better="lower",
        goal=f"importing the CLI takes at most {GOAL_S} s",
        reached=import_s <= GOAL_S,
        details={"import_s": import_s},
    )
