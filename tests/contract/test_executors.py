"""Every executor keeps every rule of the contract."""

import asyncio

import pytest

from shadow.core.commands import CommandSpec
from shadow.execution.interface import ToolExecutor
from shadow.testing.contract import Check, CheckSkipped
from shadow.testing.registry import checks
from shadow.testing.runner import CHECK_TIMEOUT_S, apply_executor_check
from shadow.testing.site import Site
from tests.support.implementations import OpenWorkspace

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in checks()])
async def test_the_executor_keeps_the_rule(
    check: Check[Site], executor: ToolExecutor, open_workspace: OpenWorkspace
) -> None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            if check.alone:
                async with open_workspace() as own:
                    await apply_executor_check(check, own)
            else:
                await apply_executor_check(check, executor)
    except CheckSkipped as skip:
        pytest.skip(str(skip))


async def test_nothing_of_the_starters_environment_gets_in(
    open_workspace: OpenWorkspace, executor: ToolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOW_TEST_SECRET", "must-not-get-in")
    async with open_workspace() as own:
        line = "env; cat /proc/*/environ 2>/dev/null; true" if own.capabilities.programs else "env"
        result = await own.run(CommandSpec(argv=("bash", "-c", line)))
    assert b"PATH=" in result.stdout
    assert b"must-not-get-in" not in result.stdout
