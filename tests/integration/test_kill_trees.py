"""Killing what is hard to kill: processes that are traced, or that wait where only SIGKILL reaches them."""

import sys
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Killed, Output
from shadow.core.terminals import TerminalOutput, TerminalSpec
from shadow.execution.host.executor import open_host
from tests.support.holders import gone

pytestmark = pytest.mark.anyio

TRACED = """
import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
pid = os.fork()
if pid == 0:
    if libc.ptrace(0, 0, 0, 0) != 0:  # PTRACE_TRACEME
        os._exit(9)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
_, status = os.waitpid(pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), status
print(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0], os.getpid(), pid, flush=True)
time.sleep(1000)
"""
"""Its child stands in a tracing stop (state t)."""

SUSPENDED = """
import ctypes, os, time
parent = os.getpid()
if ctypes.CDLL(None).vfork() == 0:
    time.sleep(0.2)
    state = open(f"/proc/{parent}/stat").read().rpartition(")")[2].split()[0]
    os.write(1, f"{state} {parent} {os.getpid()}\\n".encode())
    time.sleep(1000)
"""
"""It waits for its child without a way to interrupt it (state D)."""


@pytest.mark.parametrize(("program", "state"), [(TRACED, "t"), (SUSPENDED, "D")], ids=["traced", "uninterruptible"])
async def test_a_kill_takes_it(tmp_path: Path, program: str, state: str) -> None:
    (tmp_path / "root").mkdir()
    argv = (sys.executable, "-I", "-S", "-c", program)
    async with open_host(tmp_path / "root", tmp_path / "state") as executor:
        command = await executor.start(CommandSpec(argv=argv))
        told = b""
        async for piece in executor.read_output(command.id):
            told += piece.data if isinstance(piece, Output) else b""
            if b"\n" in told:
                break
        found, *pids = told.decode().split()
        assert found == state
        killed = await executor.kill(command.id)
        assert (killed.ending, killed.descendants, killed.survivors) == (Killed(), 0, ())
        for pid in pids:
            await gone(int(pid))


async def test_a_terminal_takes_it_too(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    async with open_host(tmp_path / "root", tmp_path / "state") as executor:
        terminal = await executor.create_terminal(TerminalSpec(argv=(sys.executable, "-I", "-S", "-c", TRACED)))
        told = b""
        async with executor.attach_terminal(terminal.id) as attachment:
            async for event in attachment:
                told += event.data if isinstance(event, TerminalOutput) else b""
                if b"\n" in told:
                    break
        killed = await executor.kill_terminal(terminal.id)
        assert (killed.ending, killed.descendants) == (Killed(), 0)
        for pid in told.decode().split()[1:]:
            await gone(int(pid))
