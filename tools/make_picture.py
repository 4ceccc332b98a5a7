"""Writes docs/demo.svg: what `shadow demo` really printed, as a picture of a terminal. Needs a host that can run workspaces."""

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
WIDTH = 100
PASSING_SHOWN = 3


def shadow(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", "from shadow.cli.main import main; main()", *arguments],
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ).stdout


def main() -> None:
    printed = shadow("demo")
    created = re.search(r"Workspace (\S+) on branch", printed)
    if created is not None:
        shadow("workspace", "rm", created[1])
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in ["$ make run", *_shortened(printed.splitlines())]:
        console.print(Text(line, style=_style(line), no_wrap=True, overflow="ellipsis"))
    svg = console.export_svg(title="Shadow", theme=DIMMED_MONOKAI, unique_id="demo")
    # A picture loads nothing from elsewhere: fonts are those of the reader.
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<!--.*?-->", "", svg)
    (ROOT / "docs/demo.svg").write_text(svg)


def _style(line: str) -> str:
    if line.startswith("$"):
        return "bold"
    if "FAIL" in line:
        return "red"
    return "green" if line.endswith("... ok") else ""


def _shortened(lines: list[str]) -> list[str]:
    """Without what repeats: the long names of tests, and most of those that pass."""
    kept: list[str] = []
    passing = 0
    for line in lines:
        passing += line.endswith("... ok")
        if line.endswith("... ok") and passing > PASSING_SHOWN:
            if passing == PASSING_SHOWN + 1:
                kept.append("…")
            continue
        kept.append(re.sub(r"^((?:FAIL: )?test_\S+) \(\S+\)", r"\1", line))
    return kept


if __name__ == "__main__":
    main()
