"""The one place that wires things: settings become managers, managers become workspaces to work in.

As a library::

    async with open_workspace() as workspace:
        result = await workspace.run(CommandSpec(argv=shell("echo hello > greeting; ls")))
        greeting = await workspace.read_file("greeting")
"""

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution import registry
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.settings import LogFormat, Settings, load_settings


def make_manager(settings: Settings, *, isolation: Isolation | None = None) -> WorkspaceManager:
    """The manager that ``settings`` ask for. Raises: Unsupported: for a mode or an isolation that this version lacks."""
    uids = settings.sandbox_uids
    return registry.make_manager(
        settings.mode,
        isolation or settings.isolation,
        data_dir=settings.data_dir,
        default_lease_s=settings.lease_s,
        default_egress=EgressPolicy(rules=parse_rules(settings.egress)),
        toolchain_paths=settings.toolchain_paths,
        sandbox_uids=range(uids.first, uids.last + 1) if uids else None,
    )


@asynccontextmanager
async def open_workspace(
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    allow: Sequence[str] | None = None,
    isolation: Isolation | None = None,
    settings: Settings | None = None,
) -> AsyncGenerator[ToolExecutor]:
    """A workspace for the length of a block: made, kept alive, removed.

    ``allow``: egress rules and presets, see ``shadow.core.egress``; ``None`` takes the setting. Raises: Rejected.
    """
    egress = None if allow is None else EgressPolicy(rules=parse_rules(allow))
    manager = make_manager(settings or load_settings(), isolation=isolation)
    async with manager.open(WorkspaceSpec(name=name, env=env or {}, egress=egress)) as executor:
        yield executor


def start_logging(settings: Settings) -> None:
    """Log as the settings say. For programs; a library leaves it to its host."""
    from shadow.observability import logs  # not above: as a library, Shadow needs no structlog

    as_lines = settings.log_format is LogFormat.CONSOLE or (
        settings.log_format is LogFormat.AUTO and sys.stderr.isatty()
    )
    logs.configure(level=settings.log_level.value, json=not as_lines)
