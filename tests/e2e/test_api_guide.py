"""The examples of docs/api.md, run as they stand against a real server; and its table, against the kinds that there are."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from shadow.core.events import TaskEvent
from tests.e2e.test_server import FINISH, script
from tests.support.git_servers import make_repository
from tests.support.servers import running
from tests.support.shadow_cli import ShadowCli

pytestmark = pytest.mark.anyio

GUIDE = (Path(__file__).parents[2] / "docs/api.md").read_text()
ENDS_WITHIN_S = 110.0


def as_script(guide: str) -> str:
    """Its examples as one shell script, Python as what the shell feeds to it."""
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    assert {language for language, _ in blocks} == {"sh", "python"}
    parts = [code if language == "sh" else f"python3 - <<'END'\n{code}END\n" for language, code in blocks]
    return "set -euo pipefail\n" + "\n".join(parts)


async def test_the_examples_work(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    make_repository(home / "src/project", {"README.md": b"A parser.\n"})
    async with running(home, SHADOW_MODEL=script(tmp_path, FINISH)) as server:
        text = as_script(GUIDE).replace("http://127.0.0.1:8765", server.url).replace('"CODE"', f'"{server.code}"')
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8"}
        ran = subprocess.run(
            ["bash", "-c", text], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=ENDS_WITHIN_S
        )
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        for shown in ("event: end", " run_finished", "A parser.", "done Did it.", "term_", "Exited(code=0"):
            assert shown in ran.stdout, f"{shown}\n{ran.stdout}\n{ran.stderr}"
    # The server was ended before it had deleted the last task, whose workspace outlives it.
    cleaned = ShadowCli(home).run("workspace", "rm", "--all", "--yes")
    assert cleaned.returncode == 0, cleaned


def test_the_table_has_every_kind_of_event() -> None:
    table = GUIDE.partition("## Kinds of events")[2].partition("\n## ")[0]
    named = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    assert named - {"kind"} == {kind.__dataclass_fields__["kind"].default for kind in get_args(TaskEvent)}
