"""Git on the host executor where the contract cannot look: other owners, the environment, no git at all, cut-off callers."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec
from shadow.core.errors import Unsupported
from shadow.core.git import GitPerson
from shadow.execution.host.executor import HostExecutor, open_host
from shadow.execution.host.git_repository import without_hooks
from tests.support.local_workspaces import eventually, processes_with

pytestmark = pytest.mark.anyio

AGENT = GitPerson(name="Agent", email="agent@example.org")


def git(directory: Path, *arguments: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, env=environment)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / "a").write_text("1\n")
    return root


@pytest.fixture
async def executor(root: Path, tmp_path: Path) -> AsyncGenerator[HostExecutor]:
    async with open_host(root, tmp_path / "state") as executor:
        yield executor


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_files_of_another_owner_are_no_obstacle(executor: HostExecutor, root: Path) -> None:
    for directory, _, names in os.walk(root):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            os.chown(path, 12345, 12345)
    await executor.git_commit("first", author=AGENT)
    assert (await executor.git_status()).entries == ()
    assert len((await executor.git_log()).commits) == 1


async def test_git_variables_of_the_workspace_do_not_count(root: Path, tmp_path: Path) -> None:
    trap, canary = tmp_path / "trap", tmp_path / "canary"
    trap.write_text(f"#!/bin/sh\ntouch {canary}\n")
    trap.chmod(0o755)
    odd = {
        "GIT_DIR": "/nonexistent",
        "GIT_WORK_TREE": "/",
        "GIT_INDEX_FILE": "/nonexistent/index",
        "GIT_EXTERNAL_DIFF": str(trap),
        "GIT_PAGER": str(trap),
        "GIT_EDITOR": str(trap),
        "GIT_EXEC_PATH": str(tmp_path),
        "GIT_TRACE": str(canary),
        "GIT_AUTHOR_NAME": "Somebody",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": str(trap),
    }
    async with open_host(
        root, tmp_path / "state", base_env={"PATH": os.environ["PATH"], "HOME": str(root), **odd}
    ) as executor:
        await executor.git_commit("first", author=AGENT)
        (root / "a").write_text("2\n")
        assert b"+2" in (await executor.git_diff()).content
        assert len((await executor.git_status()).entries) == 1
        assert (await executor.git_log()).commits[0].author == AGENT
    assert not canary.exists()


async def test_without_git_every_call_is_unsupported(root: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "env"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    async with open_host(root, tmp_path / "state", base_env={"PATH": str(tools), "HOME": str(root)}) as executor:
        for call in (executor.git_status(), executor.git_diff(), executor.git_commit("x", author=AGENT)):
            with pytest.raises(Unsupported, match="git is not installed") as caught:
                await call
            assert caught.value.details["capability"] == "git"


async def test_a_caller_that_goes_away_leaves_no_git_behind(executor: HostExecutor, root: Path, tmp_path: Path) -> None:
    await executor.git_commit("first", author=AGENT)
    (root / ".gitattributes").write_text("a filter=slow\n")
    (root / "a").write_text("changed\n")
    git(root, "config", "filter.slow.clean", "sleep 9731; cat")
    asking = asyncio.create_task(executor.git_diff())
    await eventually(lambda: bool(processes_with("9731")), "the filter runs")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: not processes_with("9731"), "the filter is gone")
    assert os.listdir(tmp_path / "state" / "git") == []
    assert os.listdir(tmp_path / "state" / "commands") == []


async def test_git_does_not_push_commands_out_of_memory(executor: HostExecutor, tmp_path: Path) -> None:
    command = (await executor.run(CommandSpec(argv=("echo", "kept")))).command
    journal = tmp_path / "state" / "journal.jsonl"
    before = journal.read_bytes()
    for _ in range(3):
        await executor.git_status()
    assert [one.id for one in await executor.list_commands()] == [command.id]
    assert journal.read_bytes() == before


def test_each_configured_hook_is_disabled_by_its_own_name() -> None:
    names = "hook.a.command\0hook.a.event\0hook.b=c d.event\0hook.new\nline.x.command\0hook.plain\0"
    assert without_hooks(names) == {
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": "hook.a.enabled",
        "GIT_CONFIG_VALUE_0": "false",
        "GIT_CONFIG_KEY_1": "hook.b=c d.enabled",
        "GIT_CONFIG_VALUE_1": "false",
        "GIT_CONFIG_KEY_2": "hook.new\nline.x.enabled",
        "GIT_CONFIG_VALUE_2": "false",
    }
    assert without_hooks("") == {}
