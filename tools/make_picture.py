"""Writes docs/demo.svg: what `shadow demo` really printed, as a picture of a terminal. Needs a host that can run workspaces."""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
WIDTH = 118
STYLES = {
    "→": "cyan",
    "✓": "dim",
    "✗": "red",
    "  │": "dim",
    "+": "green",
    "-": "red",
    "@@": "cyan",
    "Task:": "bold",
    "Done": "green",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        printed = subprocess.run(
            [sys.executable, "-c", "from shadow.cli.main import main; main()", "demo"],
            cwd=ROOT,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": directory, "SHADOW_DATA_DIR": str(data)},
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ).stdout
    printed = printed.replace(str(data), "~/.local/share/shadow").replace(f"{ROOT}/", "")
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
    return next((style for start, style in STYLES.items() if line.startswith(start)), "")


def _shortened(lines: list[str]) -> list[str]:
    """Without the advice at the end, and with no more than a few lines of each output."""
    kept: list[str] = []
    shown = 0
    for line in lines:
        if line.startswith("The branch is in "):
            break
        shown = shown + 1 if line.startswith("  │") else 0
        if shown <= 4:
            kept.append(re.sub(sys.executable.rpartition("/")[0] + "/", "", line))
    return kept


if __name__ == "__main__":
    main()
