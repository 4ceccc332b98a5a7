"""Every check of the contract, by name."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from shadow.execution.interface import WorkspaceManager
from shadow.testing import (
    capabilities,
    commands,
    directories,
    egress,
    endings,
    files,
    git,
    git_branches,
    git_checkpoints,
    git_commits,
    git_safety,
    hibernation,
    limits,
    lines,
    listings,
    metering,
    operations,
    output,
    paths,
    replacements,
    search,
    stdin,
    terminal_readers,
    terminals,
    trees,
    versions,
    watching,
    workspaces,
)
from shadow.testing.contract import Check
from shadow.testing.site import Site

EXECUTOR_MODULES: tuple[ModuleType, ...] = (
    files,
    lines,
    replacements,
    versions,
    directories,
    listings,
    paths,
    trees,
    watching,
    search,
    commands,
    stdin,
    output,
    endings,
    operations,
    terminals,
    terminal_readers,
    git,
    git_branches,
    git_checkpoints,
    git_commits,
    git_safety,
    capabilities,
)
MANAGER_MODULES: tuple[ModuleType, ...] = (workspaces, egress, limits, hibernation, metering)
PREFIX = "check_"


def checks() -> Sequence[Check[Site]]:
    """What every ``ToolExecutor`` must keep."""
    return [check for module in EXECUTOR_MODULES for check in _checks_of(module)]


def workspace_checks() -> Sequence[Check[WorkspaceManager]]:
    """What every ``WorkspaceManager`` must keep."""
    return [check for module in MANAGER_MODULES for check in _checks_of(module)]


def _checks_of(module: ModuleType) -> Iterator[Check[Any]]:
    """A module's functions ``check_…``; their first line of documentation is the rule."""
    needs: Mapping[object, tuple[str, ...]] = getattr(module, "NEEDS", {})
    alone: frozenset[object] = getattr(module, "ALONE", frozenset())
    noun = module.__name__.rpartition(".")[2]
    for name, function in vars(module).items():
        if name.startswith(PREFIX) and inspect.getmodule(function) is module:
            rule = (inspect.getdoc(function) or "").partition("\n")[0]
            if not rule:
                raise TypeError(f"{noun}.{name} does not say its rule")
            yield Check(
                name=f"{noun}.{name.removeprefix(PREFIX)}",
                rule=rule,
                function=function,
                needs=needs.get(function, ()),
                alone=function in alone,
            )
