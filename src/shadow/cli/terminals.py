"""``shadow terminal``: open a terminal of a workspace or come back to one; list, kill and close them."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from shadow.cli.attaching import Detached, Parting, Session
from shadow.cli.endings import exit_code, explain, state
from shadow.cli.local_terminal import DetachKey, LocalTerminal, check_is_terminal
from shadow.cli.opening import find_to_use, variables
from shadow.cli.outcome import DONE, WrongUsage, print_json, say
from shadow.cli.references import choose_part
from shadow.cli.tables import print_table
from shadow.cli.text import span
from shadow.cli.watching_over import watching_over
from shadow.core.errors import Denied, NotFound
from shadow.core.terminals import Terminal, TerminalEnded, TerminalSize, TerminalSpec
from shadow.execution.interface import ToolExecutor

GRACE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalArguments:
    reference: str
    argv: tuple[str, ...] = ()
    cwd: str | None = None
    env: tuple[str, ...] = ()
    attach: str | None = None
    last: bool = False
    list: bool = False
    kill: str | None = None
    close: str | None = None
    read_only: bool = False
    detach_key: str
    as_json: bool = False


async def terminal(arguments: TerminalArguments) -> int:
    _check(arguments)
    if arguments.list or arguments.kill is not None or arguments.close is not None:
        return await _manage(arguments)
    detach_key = DetachKey(arguments.detach_key)
    check_is_terminal()
    manager, workspace = await find_to_use(arguments.reference)
    async with await manager.attach(workspace.id) as executor, watching_over(manager, workspace.id, renew=True):
        local = LocalTerminal()
        shown, read_only = await _terminal(executor, arguments, local.size)
        async with executor.attach_terminal(shown.id, after=None, snapshots=True, read_only=read_only) as attachment:
            _greet(shown, detach_key, read_only=read_only)
            session = Session(
                local,
                attachment,
                history_end=0 if _is_new(arguments) else shown.output_end,
                detach_key=detach_key,
                read_only=read_only,
            )
            parting = await session.run()
    return _part(workspace.name or workspace.id, shown, parting)


def _is_new(arguments: TerminalArguments) -> bool:
    return arguments.attach is None and not arguments.last


async def _terminal(executor: ToolExecutor, arguments: TerminalArguments, size: TerminalSize) -> tuple[Terminal, bool]:
    """The one to attach to, and whether we only read it; else it has our size by now."""
    if _is_new(arguments):
        defaults = TerminalSpec()
        spec = TerminalSpec(
            argv=arguments.argv or defaults.argv,
            cwd=arguments.cwd or defaults.cwd,
            env=variables(arguments.env),
            size=size,
        )
        try:
            return await executor.create_terminal(spec), False
        except Denied as error:
            if not _may_only_read(error):
                raise
            raise Denied(
                f"You may not open a terminal here: {error.message}",
                mend="To watch the newest one of others: --last; --list shows all.",
                details=error.details,
            ) from error
    if arguments.attach is not None:
        chosen = await _chosen(executor, arguments.attach)
    else:
        running = [terminal for terminal in await executor.list_terminals() if terminal.ending is None]
        if not running:
            raise NotFound(
                "No terminal of this workspace runs.", mend="`shadow terminal WORKSPACE` opens one; --list shows all."
            )
        chosen = running[-1]
    if arguments.read_only:
        return chosen, True
    try:
        return await executor.resize_terminal(chosen.id, size), False
    except Denied as error:
        if not _may_only_read(error):
            raise
        say(f"shadow: you may only watch: no key reaches the program. {error.message}", style="yellow")
        return chosen, True


def _may_only_read(error: Denied) -> bool:
    """Not: nobody knows who asks, or whom."""
    return type(error) is Denied


def _greet(terminal: Terminal, key: DetachKey, *, read_only: bool) -> None:
    leave = "Nothing detaches" if key.name == "none" else f"{key.name} detaches"
    if read_only:
        leave = "ctrl-c leaves" if key.name == "none" else f"{key.name} and ctrl-c leave"
    say(f"shadow: terminal {terminal.id}. {leave}; the program goes on.", style="dim")


def _part(workspace: str, terminal: Terminal, parting: Parting) -> int:
    if isinstance(parting, TerminalEnded):
        explain(parting.terminal)
        return exit_code(parting.terminal.ending)
    print(file=sys.stderr)
    say(f"shadow: detached; the program goes on. Come back: shadow terminal {workspace} --attach {terminal.id}")
    return DONE if isinstance(parting, Detached) else 128 + parting.signal


def _check(arguments: TerminalArguments) -> None:
    """Raises: WrongUsage."""
    chosen = {
        "--attach": arguments.attach is not None,
        "--last": arguments.last,
        "--list": arguments.list,
        "--kill": arguments.kill is not None,
        "--close": arguments.close is not None,
    }
    given = [option for option, is_given in chosen.items() if is_given]
    if len(given) > 1:
        raise WrongUsage(f"{' and '.join(given)} exclude each other.", mend="Give one of them.")
    if given and (arguments.argv or arguments.cwd is not None or arguments.env):
        raise WrongUsage(f"A program, --cwd and --env are for a new terminal; {given[0]} is not.")
    if arguments.read_only and given not in (["--attach"], ["--last"]):
        raise WrongUsage("--read-only goes with --attach or --last.")


async def _manage(arguments: TerminalArguments) -> int:
    manager, workspace = await find_to_use(arguments.reference)
    async with await manager.attach(workspace.id) as executor:
        if arguments.list:
            return _list(await executor.list_terminals(), as_json=arguments.as_json)
        chosen = await _chosen(executor, arguments.kill or arguments.close or "")
        if arguments.kill is not None:
            await executor.kill_terminal(chosen.id, grace_s=GRACE_S)
        else:
            await executor.close_terminal(chosen.id, grace_s=GRACE_S)
    if arguments.as_json:
        print_json({"killed" if arguments.kill is not None else "closed": chosen.id})
    else:
        print(chosen.id)
    return DONE


def _list(terminals: Sequence[Terminal], *, as_json: bool) -> int:
    if as_json:
        print_json({"terminals": [asdict(terminal) for terminal in terminals]})
        return DONE
    if not terminals:
        say("There is no terminal in this workspace. `shadow terminal ID` opens one.")
        return DONE
    now = time.time()
    rows = [
        (t.id, state(t.ending), span(now - t.started_at) + " ago", f"{t.size.columns}x{t.size.rows}", _program(t))
        for t in terminals
    ]
    print_table(("TERMINAL", "STATE", "STARTED", "SIZE", "PROGRAM"), rows)
    return DONE


def _program(terminal: Terminal) -> str:
    return " ".join(terminal.argv)[:200]


async def _chosen(executor: ToolExecutor, reference: str) -> Terminal:
    mend = "`shadow terminal WORKSPACE --list` shows all."
    return choose_part(reference, await executor.list_terminals(), noun="terminal", mend=mend)
