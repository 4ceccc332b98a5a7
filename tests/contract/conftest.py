"""One executor for each implementation, shared by all checks that a worker runs on it."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from shadow.core.errors import OutcomeUnknown, Unavailable, Unsupported
from shadow.execution.interface import ToolExecutor
from tests.support.implementations import OPENERS, OpenWorkspace


@pytest.fixture(scope="session", params=list(OPENERS))
def open_workspace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenWorkspace:
    """Opens one more workspace of the implementation."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[ToolExecutor, None]:
        directory: Path = tmp_path_factory.mktemp(request.param + secrets.token_hex(4))
        async with OPENERS[request.param](directory) as executor:
            yield executor

    return opened


class SharedWorkspace:
    """A workspace that is opened again when a check has broken it, so that the others can tell what is wrong with them."""

    def __init__(self, open_workspace: OpenWorkspace) -> None:
        self._open = open_workspace
        self._stack = AsyncExitStack()
        self._executor: ToolExecutor | None = None

    async def executor(self) -> ToolExecutor:
        if self._executor is not None:
            try:
                await self._executor.health()
            except (Unavailable, OutcomeUnknown):
                await self.aclose()
        if self._executor is None:
            self._executor = await self._stack.enter_async_context(self._open())
        return self._executor

    async def aclose(self) -> None:
        self._executor = None
        await self._stack.aclose()


@pytest.fixture(scope="session")
async def shared_workspace(open_workspace: OpenWorkspace, anyio_backend: str) -> AsyncGenerator[SharedWorkspace, None]:
    shared = SharedWorkspace(open_workspace)
    yield shared
    await shared.aclose()


@pytest.fixture
async def executor(shared_workspace: SharedWorkspace) -> ToolExecutor:
    try:
        return await shared_workspace.executor()
    except Unsupported as error:
        pytest.skip(f"this host cannot do it: {error}")
