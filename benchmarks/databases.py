"""The databases that are measured."""

import pytest

from tests.support.databases import cluster


def postgresql() -> str | None:
    """The URL of a new database of the tests' own server; ``None``: it is not installed."""
    try:
        return cluster().make_database()
    except pytest.skip.Exception:
        return None
