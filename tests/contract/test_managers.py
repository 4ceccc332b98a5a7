"""Every workspace manager keeps every rule of the contract."""

import asyncio

import pytest

from shadow.core.errors import Unsupported
from shadow.core.workspaces import Isolation, Mode, WorkspaceSpec
from shadow.execution.interface import WorkspaceManager
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.testing.contract import Check, CheckSkipped
from shadow.testing.registry import workspace_checks
from shadow.testing.runner import CHECK_TIMEOUT_S, apply_check
from tests.support.implementations import local_manager

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session", params=[Isolation.SANDBOX, Isolation.NONE, Mode.MOCK], ids=str)
async def manager(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> WorkspaceManager:
    if request.param is Mode.MOCK:
        return MockWorkspaceManager()
    manager = local_manager(tmp_path_factory.mktemp("data"), request.param)
    try:
        async with manager.open(WorkspaceSpec()):
            return manager
    except Unsupported as error:
        pytest.skip(f"this host cannot do it: {error}")


@pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in workspace_checks()])
async def test_the_manager_keeps_the_rule(check: Check[WorkspaceManager], manager: WorkspaceManager) -> None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await apply_check(check, manager, manager.capabilities)
    except CheckSkipped as skip:
        pytest.skip(str(skip))
    assert await manager.list() == []
