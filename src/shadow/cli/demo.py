"""``shadow demo`` (and ``make run``): the main job on a small example, with what to type next."""

import sys
import time

from shadow.cli import execution
from shadow.cli.example import EXAMPLE, example_repository
from shadow.cli.opening import NO_WALL, open_manager
from shadow.cli.outcome import DONE, FAILED, say
from shadow.cli.repositories import RepositoryOptions, create_with_repository
from shadow.cli.text import printable
from shadow.core.commands import CommandSpec, Exited, Killed
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution.interface import ToolExecutor
from shadow.settings import load_settings

WHERE = """
import os, platform, pwd
user = pwd.getpwuid(os.getuid()).pw_name
seen = sum(name.isdecimal() for name in os.listdir("/proc"))
interfaces = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
print(f"Python {platform.python_version()}, user {user}, directory {os.getcwd()}, {seen} processes in sight, "
      f"network interfaces: {', '.join(interfaces) or 'none'}.")
"""
TESTS = ("python3", "-m", "unittest", "-v")


async def show() -> int:
    manager = open_manager()
    repository = await example_repository(load_settings().data_dir)
    began = time.monotonic()
    workspace = await create_with_repository(manager, WorkspaceSpec(name=EXAMPLE), RepositoryOptions(str(repository)))
    took_ms = (time.monotonic() - began) * 1000
    assert workspace.checkout is not None
    if workspace.isolation is Isolation.NONE:
        say(NO_WALL, style="yellow")
    print(f"Repository {repository}, an example, cloned into a workspace.")
    print(f"Workspace {workspace.id} on branch {workspace.checkout.branch}: ready in {took_ms:.0f} ms.")
    try:
        async with await manager.attach(workspace.id) as executor:
            await _tell_where(executor)
            print(f"\n$ {' '.join(TESTS)}", flush=True)
            command, code = await execution.run(
                manager, workspace.id, executor, CommandSpec(argv=TESTS, timeout_s=120), execution.Live()
            )
    except BaseException:
        await manager.destroy(workspace.id)
        raise
    if isinstance(command.ending, Killed):  # interrupted
        await manager.destroy(workspace.id)
        return code
    print()
    if command.ending == Exited(code=1):
        print("One test fails, as it should: the example has a bug for you to find. The workspace stays. Try:\n")
    else:
        say(f"The example's tests should have ended with code 1, not {command.ending}.", style="red")
    _tell_next(workspace.id)
    return DONE if command.ending == Exited(code=1) else FAILED


async def _tell_where(executor: ToolExecutor) -> None:
    result = await executor.run(CommandSpec(argv=("python3", "-c", WHERE), timeout_s=60))
    say_where = (result.stdout or result.stderr).decode(errors="replace").strip()
    print(f"Inside it: {printable(say_where)}")


def _tell_next(workspace_id: str) -> None:
    program = _program()
    print(f"  {program} workspace exec {workspace_id} -- cat openhours/week.py")
    print(f"  {program} workspace exec {workspace_id} -c 'python3 -m unittest 2>&1 | tail -3'")
    print(f"  {program} workspace cp {workspace_id}:openhours/week.py .   # mend it, then copy it back")
    print(f"  {program} workspace deliver {workspace_id} --commit 'Mend the night'")
    print(f"  {program} workspace show {workspace_id}")
    print(f"  {program} workspace rm {workspace_id}")


def _program() -> str:
    """How this program was called, so that the lines can be pasted."""
    called = sys.argv[0]
    return called if "/" in called else "shadow"
