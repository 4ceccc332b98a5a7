"""A pytest plugin: workspaces in memory for tests of what works in them. ``docs/mock.md`` shows it.

In a ``conftest.py``::

    pytest_plugins = ["shadow.execution.mock.fixtures"]

``mock_plan`` and ``mock_time`` are there to be overridden; ``mock_manager`` makes workspaces by them. A test opens one within
its own event loop: ``async with mock_manager.open(WorkspaceSpec()) as executor``.
"""

import pytest

from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.mock.plan import MockPlan
from shadow.execution.mock.times import Time, VirtualTime


@pytest.fixture
def mock_plan() -> MockPlan:
    """Nothing takes time and nothing fails."""
    return MockPlan()


@pytest.fixture
def mock_time() -> Time:
    """Virtual: hours pass in milliseconds."""
    return VirtualTime()


@pytest.fixture
def mock_manager(mock_plan: MockPlan, mock_time: Time) -> MockWorkspaceManager:
    return MockWorkspaceManager(mock_plan, time=mock_time)
