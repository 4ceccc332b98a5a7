"""Fixtures and options of every test."""

import os
import signal

import pytest
from hypothesis import settings

from tests.support.databases import database, place, shared_place

__all__ = ["database", "place", "shared_place"]  # fixtures

# A loaded machine is no failure of a property.
settings.register_profile("shadow", deadline=None)
settings.load_profile("shadow")


# Whoever is started in the background by a shell ignores it, and so do the programs that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait for other processes."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow as well")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes long; runs with --slow only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: runs with --slow"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
