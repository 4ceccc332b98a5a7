"""An nginx of our own, as an ordinary process that keeps to one directory."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

STARTS_WITHIN_S = 20.0
PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
BUFFERS = ("body", "proxy", "fastcgi", "uwsgi", "scgi")
"""Where it would put what it does not pass on at once."""


@dataclass(frozen=True)
class Nginx:
    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    def buffered_at(self) -> list[int]:
        """When something was last put into, or taken out of, its directories for that."""
        return [(self.directory / name).stat().st_mtime_ns for name in BUFFERS]

    def memory_bytes(self) -> int:
        """The most that any of its processes ever had."""
        pid = self.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        stats = [Path(f"/proc/{one}/status").read_text() for one in (pid, *workers)]
        return max(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in stats)


@asynccontextmanager
async def nginx(directory: Path, config: Callable[[int], str]) -> AsyncGenerator[Nginx]:
    """``config``: what stands in its ``http { }``, by the port of 127.0.0.1 that it is to listen on."""
    if PROGRAM is None:
        pytest.skip("nginx is not installed")
    # Bound as long as it runs, and never listening: nobody else is given the port, and nginx may bind it too.
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        for name in BUFFERS:
            (directory / name).mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {directory / name};" for kind, name in zip(kinds, BUFFERS, strict=True))
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(
            f"daemon off; {user} worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;\n"
            f"events {{ }}\nhttp {{\naccess_log off; {paths}\n{config(port)}\n}}\n"
        )
        started = [
            PROGRAM,
            "-p",
            str(directory),
            "-e",
            str(directory / "error.log"),
            "-c",
            str(directory / "nginx.conf"),
        ]
        with subprocess.Popen(started, stdin=subprocess.DEVNULL) as process:
            try:
                await _listens(process, directory, port)
                yield Nginx(directory, port, process)
            finally:
                process.terminate()


async def _listens(process: subprocess.Popen[bytes], directory: Path, port: int) -> None:
    async with asyncio.timeout(STARTS_WITHIN_S):
        while True:
            assert process.poll() is None, (directory / "error.log").read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return
