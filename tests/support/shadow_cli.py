"""The real ``shadow`` in a process of its own, with a data directory of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0


@dataclass(frozen=True)
class ShadowCli:
    home: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def argv(self) -> tuple[str, ...]:
        return (sys.executable, "-c", "from shadow.cli.main import main; main()")

    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHADOW_", "AGENT_MODE", "XDG_"))}
        return inherited | {"HOME": str(self.home), "SHADOW_DATA_DIR": str(self.home / "data")} | dict(self.env)

    def start(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.argv, *arguments],
            env=self.environment(),
            cwd=self.home,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    def run(self, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        process = self.start(*arguments, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        with process:
            out, err = process.communicate(stdin, timeout=DEADLINE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def create(self, *arguments: str) -> str:
        done = self.run("workspace", "create", *arguments)
        assert done.returncode == 0, done
        return done.stdout.decode().strip()
