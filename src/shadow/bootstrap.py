"""The one place that wires things: settings become managers, managers become workspaces to work in.

As a library::

    async with open_workspace() as workspace:
        result = await workspace.run(CommandSpec(argv=shell("echo hello > greeting; ls")))
        greeting = await workspace.read_file("greeting")
"""

import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.errors import SettingsRefused
from shadow.core.limits import Limits
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution import registry
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.settings import LogFormat, Settings, load_settings

if TYPE_CHECKING:
    from shadow.scm.repositories import Repositories


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
        default_limits=default_limits(settings),
        sandbox_uids=range(uids.first, uids.last + 1) if uids else None,
    )


def make_repositories(settings: Settings) -> "Repositories":
    """Where repositories come from and work goes to, as ``settings`` say. Raises: SettingsRefused."""
    from shadow.scm.access import Tokens
    from shadow.scm.filling import Identity
    from shadow.scm.repositories import Repositories

    try:
        tokens = Tokens.parse(settings.git_tokens.get_secret_value())
    except ValueError as error:
        raise SettingsRefused(f"SHADOW_GIT_TOKENS cannot be understood: {error}.") from error
    return Repositories(
        data_dir=settings.data_dir,
        tokens=tokens,
        identity=Identity(name=settings.agent_name, email=settings.agent_email),
        repository_limit_bytes=settings.repository_limit_bytes,
        delivery_limit_bytes=settings.delivery_limit_bytes,
        entropy=os.urandom,
        egress=parse_rules(settings.git_egress),
        proxy=settings.git_proxy,
    )


def default_limits(settings: Settings) -> Limits:
    """Of workspaces that ask for nothing else."""
    return Limits(
        memory_bytes=settings.limit_memory_bytes,
        processes=settings.limit_processes,
        cpus=settings.limit_cpus,
        open_files=settings.limit_open_files,
        file_size_bytes=settings.limit_file_size_bytes,
        workspace_bytes=settings.limit_workspace_bytes,
        workspace_files=settings.limit_workspace_files,
        command_time_s=settings.limit_command_time_s,
    )


@asynccontextmanager
async def open_workspace(
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    allow: Sequence[str] | None = None,
    isolation: Isolation | None = None,
    limits: Limits | None = None,
    settings: Settings | None = None,
) -> AsyncGenerator[ToolExecutor]:
    """A workspace for the length of a block: made, kept alive, removed.

    ``allow``: egress rules and presets, see ``shadow.core.egress``; ``None`` takes the setting. Raises: Rejected.
    """
    egress = None if allow is None else EgressPolicy(rules=parse_rules(allow))
    manager = make_manager(settings or load_settings(), isolation=isolation)
    spec = WorkspaceSpec(name=name, env=env or {}, egress=egress, limits=limits or Limits())
    async with manager.open(spec) as executor:
        yield executor


def start_logging(settings: Settings) -> None:
    """Log as the settings say. For programs; a library leaves it to its host."""
    from shadow.observability import logs  # not above: as a library, Shadow needs no structlog

    as_lines = settings.log_format is LogFormat.CONSOLE or (
        settings.log_format is LogFormat.AUTO and sys.stderr.isatty()
    )
    logs.configure(level=settings.log_level.value, json=not as_lines)
