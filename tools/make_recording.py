"""Writes docs/terminal-survives.cast and .svg: a terminal that outlives `kill -9` of its sidecar and of its client.

It all happens, on a host that can run workspaces and has pkill.
"""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from shadow.core.terminals import TerminalSize
from shadow.terminal.recording import Asciicast
from shadow.terminal.screen import Screen

if TYPE_CHECKING:
    from avt._avt import Line, Pen

ROOT = Path(__file__).parents[1]
SIZE = TerminalSize(columns=84, rows=30)
DEADLINE_S = 60.0
KEY_S = 0.04


class Recorder:
    """A shell on a terminal of its own: what is typed into it, and what it shows, with the times."""

    def __init__(self, env: dict[str, str], cwd: Path) -> None:
        self.cast = Asciicast()
        self.lines = [self.cast.header(SIZE, started_at=time.time(), argv=("bash",), env={"TERM": "xterm-256color"})]
        self.screen = Screen(SIZE, scrollback_lines=200)
        self._began = time.monotonic()
        self._seen = b""
        self._master, terminal = os.openpty()
        termios.tcsetwinsize(terminal, (SIZE.rows, SIZE.columns))
        self.shell = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--norc", "--noprofile"],
            env=env,
            cwd=cwd,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        os.set_blocking(self._master, False)

    def type(self, line: str) -> None:
        for key in line + "\r":
            os.write(self._master, key.encode())
            self.watch(KEY_S)

    def mark(self, label: str) -> None:
        self.lines.append(self.cast.marker(time.monotonic() - self._began, label))

    def watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                data = os.read(self._master, 65536)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            except OSError:
                return
            self._seen += data
            self.screen.feed(data)
            self.lines.append(self.cast.output(time.monotonic() - self._began, data))

    def until(self, text: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while text.encode() not in self._seen:
            if time.monotonic() > end:
                sys.exit(f"never seen: {text}: {self._seen!r}")
            self.watch(0.02)
        self._seen = self._seen.partition(text.encode())[2]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        env = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": directory,
            "SHADOW_DATA_DIR": f"{directory}/data",
            "PS1": "$ ",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
        subprocess.run(["shadow", "workspace", "create", "--name", "play"], env=env, check=True, stdout=subprocess.PIPE)
        try:
            recorder = Recorder(env, Path(directory))
            play(recorder)
        finally:
            subprocess.run(["shadow", "workspace", "rm", "play"], env=env, check=True, stdout=subprocess.PIPE)
    (ROOT / "docs/terminal-survives.cast").write_bytes(b"".join([*recorder.lines, recorder.cast.finish()]))
    (ROOT / "docs/terminal-survives.svg").write_text(picture(recorder.screen))


def play(recorder: Recorder) -> None:
    recorder.until("$ ")
    recorder.type("shadow terminal play --env 'PS1=play> ' -- bash --norc")
    recorder.until("--norc")
    recorder.until("play> ")
    recorder.type("kept=$RANDOM; echo $kept          # known to this shell alone")
    recorder.until("play> ")
    recorder.mark("kill -9 of the sidecar")
    recorder.type("pkill -9 -f shadow.sidecar         # what serves this terminal dies")
    recorder.until("play> ")
    recorder.watch(0.5)
    recorder.type("for i in $(seq 12); do echo step $i of 12; sleep 0.4; done")
    recorder.until("step 4 of")
    (client,) = (
        int(pid) for pid in Path(f"/proc/{recorder.shell.pid}/task/{recorder.shell.pid}/children").read_text().split()
    )
    recorder.mark("kill -9 of the client")
    os.kill(client, signal.SIGKILL)
    recorder.until("$ ")
    recorder.watch(1.0)
    recorder.type("# The client was killed. Another one:")
    recorder.type("shadow terminal play --last")
    recorder.until("step 12 of")
    recorder.until("play> ")
    recorder.type("echo $kept")
    recorder.until("play> ")
    recorder.type("exit")
    recorder.watch(1.5)


def picture(screen: Screen) -> str:
    console = Console(
        record=True, width=screen.size.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    lines = [*screen.scrolled, *screen.lines]
    while lines and not lines[-1].text.strip():
        lines.pop()
    for line in lines:
        console.print(_text(line), no_wrap=True, crop=False)
    svg = console.export_svg(title="shadow terminal", theme=DIMMED_MONOKAI, unique_id="survives")
    # A picture loads nothing from elsewhere: fonts are those of the reader.
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)
    return re.sub(r"\s*<!--.*?-->", "", svg)


def _text(line: "Line") -> Text:
    text = Text()
    for style, cells in groupby((cell for cell in line.cells if cell.width), lambda cell: _style(cell.pen)):
        text.append("".join(cell.char for cell in cells), style)
    text.rstrip()
    return text


def _style(pen: "Pen") -> Style:
    def colour(value: object) -> Color | None:
        found = re.fullmatch(r"Color\.(?:Indexed\((\d+)\)|RGB\((\d+), (\d+), (\d+)\))", repr(value))
        if found is None:
            return None
        return Color.from_ansi(int(found[1])) if found[1] else Color.from_rgb(*map(int, found.groups()[1:]))

    return Style(
        color=colour(pen.foreground), bgcolor=colour(pen.background), bold=pen.bold, dim=pen.faint, italic=pen.italic,
        underline=pen.underline, reverse=pen.inverse, strike=pen.strikethrough,
    )  # fmt: skip


if __name__ == "__main__":
    main()
