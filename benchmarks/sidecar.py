"""What an idle workspace costs: import of the sidecar, memory of holder and sidecar, against a bare Python."""

import subprocess
import sys
import time

from benchmarks.memory import kib_of, workspace_pids
from benchmarks.result import Result, median
from benchmarks.workspaces import workspace
from shadow.core.commands import CommandSpec

ROUNDS = 8
GOAL_MIB = 40.0
GOAL_IMPORT_S = 0.4


def _python_s(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    return time.perf_counter() - started


async def measure() -> Result:
    bare = [_python_s("pass") for _ in range(ROUNDS)]
    imports = [_python_s("import shadow.sidecar.main") for _ in range(ROUNDS)]
    import_s = median(imports) - median(bare)
    async with workspace() as (executor, directory):
        await executor.run(CommandSpec(argv=("/bin/true",)))
        kib, kind = kib_of(workspace_pids(directory))
        holder_kib, _ = kib_of(workspace_pids(directory)[:1])
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]) as process:
        time.sleep(0.5)
        floor_kib, _ = kib_of([process.pid])
        process.kill()
    return Result(
        name="sidecar",
        unit=f"MiB {kind}, holder and sidecar, idle",
        ours=kib / 1024,
        floor=floor_kib / 1024,
        floor_is="one sleeping Python without imports",
        better="lower",
        goal=f"at most {GOAL_MIB:.0f} MiB and {GOAL_IMPORT_S} s of imports",
        reached=kib / 1024 <= GOAL_MIB and import_s <= GOAL_IMPORT_S,
        details={"import_s": import_s, "holder_mib": holder_kib / 1024, "sidecar_mib": (kib - holder_kib) / 1024},
    )
