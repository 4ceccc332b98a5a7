"""``shadow workspace create|list|show|renew|rm``."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import typer

from shadow.cli import copying
from shadow.cli.endings import state
from shadow.cli.limits import limits_of, shown_limits
from shadow.cli.opening import NO_WALL, find, manager_of, open_manager, seconds, variables
from shadow.cli.outcome import DONE, FAILED, WrongUsage, exit_code, print_json, report, say
from shadow.cli.references import choose
from shadow.cli.repositories import RepositoryOptions, create_with_repository
from shadow.cli.tables import print_table
from shadow.cli.text import size, span
from shadow.core.commands import Command
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.errors import ShadowError
from shadow.core.workspaces import Health, Isolation, WorkspaceSpec, WorkspaceState, WorkspaceStatus
from shadow.settings import load_settings
from shadow.terminal.neutral import printable


async def create(
    *,
    name: str | None,
    source: str | None,
    repository: RepositoryOptions | None,
    isolation: str | None,
    lease: str | None,
    env: Sequence[str],
    allow: Sequence[str] | None,
    limits: Mapping[str, str | None],
    as_json: bool,
) -> int:
    spec = WorkspaceSpec(
        name=name,
        lease_s=seconds(lease, option="--lease"),
        env=variables(env),
        egress=None if allow is None else EgressPolicy(rules=parse_rules(allow)),
        limits=limits_of(limits),
    )
    if source is not None and repository is not None:
        raise WrongUsage("--from and --repo both fill the workspace.", mend="Give one of them.")
    directory = copying.local_directory(source) if source is not None else None
    manager = open_manager(isolation=isolation, here_for="`workspace create`")
    if repository is not None:
        status = await create_with_repository(manager, spec, repository)
    else:
        status = await manager.create(spec)
    if status.isolation is Isolation.NONE:
        say(NO_WALL, style="yellow")
    copied = copying.Copied()
    if directory is not None:
        try:
            async with await manager.attach(status.id) as executor:
                copied = await copying.upload_content(executor, directory)
        except BaseException:
            # Nobody was told of it yet.
            await manager.destroy(status.id)
            raise
    if as_json:
        print_json({"workspace": asdict(status), "copied": copied.document()})
    else:
        copying.tell(copied)
        print(status.id)
    return DONE


async def list_all(*, as_json: bool) -> int:
    manager = open_manager()
    statuses = await manager.list()
    if as_json:
        print_json({"workspaces": [asdict(status) for status in statuses]})
        return DONE
    if not statuses:
        makes = "shadow task create" if manager.is_at_server else "shadow workspace create"
        say(f"There is no workspace. `{makes}` makes one.")
        return DONE
    now = time.time()
    rows = [
        (s.id, s.name or "", s.state.value, s.isolation.value, span(now - s.created_at) + " ago", _lease(s, now))
        for s in statuses
    ]
    print_table(("ID", "NAME", "STATE", "ISOLATION", "MADE", "LEASE"), rows)
    for status in statuses:
        if status.error:
            say(f"{status.id}: {status.error}", style="yellow")
    return DONE


def _lease(status: WorkspaceStatus, now: float) -> str:
    if status.lease_expires_at is None:
        return "none"
    left = status.lease_expires_at - now
    return f"{span(left)} left" if left > 0 else "over"


async def show(reference: str, *, as_json: bool) -> int:
    manager, found = await find(reference)
    status = await manager.status(found.id, measure=True)
    health: Health | None = None
    commands: Sequence[Command] = ()
    unreachable: ShadowError | None = None
    if status.state is WorkspaceState.READY:  # to look at one that has stopped must not start it
        try:
            async with await manager.attach(status.id) as executor:
                if not manager.is_at_server:  # of its sidecar a server tells nothing
                    health = await executor.health()
                commands = await executor.list_commands()
        except ShadowError as error:
            unreachable = error
    if as_json:
        document: dict[str, object] = {
            "workspace": asdict(status),
            "health": asdict(health) if health else None,
            "commands": [asdict(command) for command in commands],
        }
        if unreachable:
            document["error"] = {"code": unreachable.code, "message": unreachable.message, "mend": unreachable.mend}
        print_json(document)
    else:
        _print_workspace(status, health, commands)
        if unreachable:
            report(unreachable)
    return exit_code(unreachable) if unreachable else DONE


def _print_workspace(status: WorkspaceStatus, health: Health | None, commands: Sequence[Command]) -> None:
    now = time.time()
    facts = {
        "workspace": status.id,
        "name": status.name or "",
        "state": status.state.value,
        "isolation": status.isolation.value,
        "made": span(now - status.created_at) + " ago",
        "lease": _lease(status, now),
        "size": size(status.size_bytes) if status.size_bytes is not None else "",
        "limits": shown_limits(status.limits),
        "error": status.error or "",
    }
    if status.checkout is not None:
        facts["repository"] = status.checkout.repository
        facts["branch"] = (
            f"{status.checkout.branch}, from {status.checkout.base_branch or status.checkout.base_commit[:12]}"
        )
    if health:
        facts["up"] = f"{span(health.uptime_s)}, version {health.version}"
        facts["commands"] = f"{health.commands_running} running"
        facts["restarts"] = f"{health.sidecar_restarts} of the sidecar" if health.sidecar_restarts else ""
    for label, value in facts.items():
        if value:
            print(f"{label:<10} {printable(value)}")
    if commands:
        print()
        rows = [
            (c.id, state(c.ending), span(now - c.started_at) + " ago", " ".join(c.argv)[:200]) for c in commands[-20:]
        ]
        print_table(("COMMAND", "STATE", "STARTED", "ARGV"), rows)


async def renew(reference: str, *, lease: str | None, as_json: bool) -> int:
    settings_lease_s = load_settings().lease_s
    manager, found = await find(reference)
    await manager.renew(found.id, lease_s=seconds(lease, option="--lease") or settings_lease_s)
    status = await manager.status(found.id)
    if as_json:
        print_json({"workspace": asdict(status)})
    else:
        print(f"{status.id}  {_lease(status, time.time())}")
    return DONE


async def remove(references: Sequence[str], *, every: bool, ask: bool, as_json: bool) -> int:
    if bool(references) == every:
        raise WrongUsage("Name the workspaces to remove, or give --all.")
    statuses = await open_manager(here_for="`workspace rm` (there: `task archive`)").list()
    chosen = list({s.id: s for s in (statuses if every else [choose(r, statuses) for r in references])}.values())
    if every and ask and chosen and sys.stdin.isatty() and not typer.confirm(f"Remove all {len(chosen)} workspaces?"):
        return FAILED
    code, removed, errors = DONE, list[str](), list[dict[str, object]]()
    for status in chosen:
        try:
            await manager_of(status).destroy(status.id)
        except ShadowError as error:
            code = exit_code(error)
            errors.append({"workspace": status.id, "code": error.code, "message": error.message, "mend": error.mend})
            if not as_json:
                report(error)
        else:
            removed.append(status.id)
            if not as_json:
                print(status.id)
    if as_json:
        print_json({"removed": removed} | ({"errors": errors} if errors else {}))
    return code
