"""The ``shadow`` command: what it offers. Everything heavy is imported by the command that needs it."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from shadow.cli import accounts, audit, keys, project_commands, tasks, workspaces
from shadow.cli.outcome import (
    EXEC_FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    WrongUsage,
    finish,
    output_failed,
    print_json,
    report,
)
from shadow.cli.streams import fill_closed
from shadow.version import __version__

app = typer.Typer(
    name="shadow",
    help="Background coding agents in isolated workspaces, self-hosted.",
    epilog="Settings: docs/settings.md. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 this host cannot do it, "
    "130 interrupted; `exec`, `terminal` and `logs` end with the code of what they show.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would double the time that it takes
)
app.add_typer(workspaces.app, name="workspace")
app.add_typer(tasks.app, name="task")
app.add_typer(audit.app, name="audit")
app.add_typer(accounts.tokens, name="token")
app.add_typer(accounts.users, name="user")
app.add_typer(keys.app, name="key")
app.add_typer(project_commands.app, name="project")

OF_THIS_HOST = ("backup", "demo", "doctor", "restore", "serve")
"""Commands that no server does."""


@app.callback(invoke_without_command=True)
def shadow(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Speak to this server; else SHADOW_SERVER, else where the last `login` was. none: this host.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Send the token to another host by plain http too, where others can read it."),
    ] = False,
    version_: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if context.invoked_subcommand is None and not version_:
        typer.echo(context.get_help())
    if version_:
        typer.echo(__version__)
        raise typer.Exit
    if insecure:
        os.environ["SHADOW_SERVER_INSECURE"] = "true"
    if server is None:
        return
    if context.invoked_subcommand in OF_THIS_HOST and server != "none":
        raise typer.BadParameter(f"`{context.invoked_subcommand}` is about this host: --server does not go with it.")
    os.environ["SHADOW_SERVER"] = server


@app.command()
def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(__version__)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the contract checks.")] = False,
) -> None:
    """Say what this host can do, and what to do about the rest."""
    from shadow.cli import doctor as implementation

    finish(lambda: implementation.examine(as_json=as_json, quick=quick), as_json=as_json)


@app.command()
def run(
    repo: Annotated[
        str | None, typer.Argument(metavar="REPO", help="A path, https://…, ssh://… or USER@HOST:PATH.")
    ] = None,
    instruction: Annotated[str | None, typer.Argument(metavar="INSTRUCTION", help="What is to be done.")] = None,
    continued: Annotated[
        str | None, typer.Option("--continue", metavar="TASK", help='Go on with a task: `run --continue TASK "…"`.')
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="PROVIDER:NAME, scripted:FILE or replay:FILE; else SHADOW_MODEL."),
    ] = None,
    branch: Annotated[str | None, typer.Option(metavar="NAME", help="The branch or tag to start from.")] = None,
    depth: Annotated[int | None, typer.Option(metavar="N", help="Only the newest N commits of each branch.")] = None,
    check: Annotated[
        str | None, typer.Option(metavar="CMD", help="Judges the result, in a fresh sandbox; else .shadow/config.toml.")
    ] = None,
    deliver: Annotated[str, typer.Option(metavar="branch|push|patch|none", help="Where the work goes.")] = "branch",
    deliver_to: Annotated[str | None, typer.Option("--as", metavar="NAME", help="The delivered branch's name.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="With --deliver patch: the file.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the workspace after the delivery.")] = False,
    record: Annotated[str | None, typer.Option(metavar="FILE", help="Record the run, for --model replay:FILE.")] = None,
    max_steps: Annotated[int | None, typer.Option(metavar="N", help="Requests to the model; 100 by default.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="Tokens of all requests and answers.")] = None,
    max_cost: Annotated[str | None, typer.Option(metavar="USD", help="What the model may cost.")] = None,
    max_time: Annotated[str | None, typer.Option(metavar="TIME", help="How long it may take; 1h by default.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="A host that the sandbox may reach, or a preset; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as one JSON object a line.")] = False,
) -> None:
    """Let an agent work on a repository and hand back a branch.

    Exit codes: 0 done, 1 failed or gave up, 2 wrong usage, 3 this host cannot do it, 4 a limit was reached, 130 interrupted.
    """
    from shadow.cli import run as implementation

    if continued is not None and repo is not None and instruction is None:
        repo, instruction = None, repo  # with --continue there is one argument, the message
    arguments = implementation.RunArguments(
        repo=repo,
        instruction=instruction or "",
        continued=continued,
        model=model,
        branch=branch,
        depth=depth,
        check=check,
        deliver=deliver,
        deliver_to=deliver_to,
        output=output,
        keep=keep,
        record=record,
        max_steps=max_steps,
        max_tokens=max_tokens,
        max_cost=max_cost,
        max_time=max_time,
        allow=tuple(allow or ()),
        as_json=as_json,
    )
    finish(lambda: implementation.run(arguments), as_json=as_json)


@app.command()
def terminal(
    reference: Annotated[
        str, typer.Argument(metavar="WORKSPACE", help="Id, beginning of it, name, or the id of a task.")
    ],
    argv: Annotated[
        list[str] | None, typer.Argument(metavar="-- PROGRAM…", help="What runs in a new one; bash by default.")
    ] = None,
    attach: Annotated[
        str | None, typer.Option(metavar="TERMINAL", help="Come back to this one: an id, or a beginning of it.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="Come back to the newest one that runs.")] = False,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only",
            help="Only watch: no key reaches it, its size stays; Ctrl-C leaves too. By itself where you may do no more.",
        ),
    ] = False,
    detach_key: Annotated[
        str, typer.Option(metavar="KEY", help="Leaves, and the program goes on: ctrl-a, ctrl-\\, …, or none.")
    ] = "ctrl-]",
    cwd: Annotated[
        str | None, typer.Option(metavar="DIRECTORY", help="Where a new one starts, beneath the workspace's root.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable of a new one; repeatable.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the terminals.")] = False,
    kill: Annotated[str | None, typer.Option(metavar="TERMINAL", help="End its tree; what it showed is kept.")] = None,
    close: Annotated[str | None, typer.Option(metavar="TERMINAL", help="End its tree and forget it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Open a terminal in a workspace, or come back to one.

    Ctrl-] detaches; the program goes on, and --last comes back to its screen. It lives on also when the connection breaks,
    the sidecar dies or this command is killed. What it showed can be had with `shadow record`. The exit code is the
    program's, 0 after detaching; 128+N if signal N ended it (or this command), 125 if Shadow failed.
    """
    from shadow.cli import terminals as implementation

    arguments = implementation.TerminalArguments(
        reference=reference,
        argv=tuple(argv or ()),
        cwd=cwd,
        env=tuple(env or ()),
        attach=attach,
        last=last,
        list=list_,
        kill=kill,
        close=close,
        read_only=read_only,
        detach_key=detach_key,
        as_json=as_json,
    )
    finish(lambda: implementation.terminal(arguments), as_json=as_json, failed=EXEC_FAILED)


@app.command()
def logs(
    reference: Annotated[
        str, typer.Argument(metavar="WORKSPACE", help="Id, beginning of it, name, or the id of a task.")
    ],
    command: Annotated[
        str | None,
        typer.Argument(metavar="COMMAND", help="Id of a command, or a beginning of it; else all are listed."),
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="The newest command.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until the command ends.")] = True,
    after: Annotated[int, typer.Option(metavar="OFFSET", min=0, help="Only what comes behind so many bytes.")] = 0,
    raw: Annotated[
        bool, typer.Option("--raw", help="On a terminal too: every byte, also what steers or deceives it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Each piece as one JSON object a line; the list as one document.")
    ] = False,
) -> None:
    """Show what a command wrote and writes, also of an agent that runs (`shadow run`); or list the commands.

    What it wrote to stderr goes to stderr. Goes on by itself after a disconnect; what the log no longer has is told. The exit
    code is the command's if it has ended, as of `exec`; Ctrl-C leaves it running.
    """
    from shadow.cli import logs as implementation

    finish(
        lambda: implementation.logs(
            reference, command, last=last, follow=follow, after=after, raw=raw, as_json=as_json
        ),
        as_json=as_json,
        failed=EXEC_FAILED,
    )


@app.command()
def record(
    reference: Annotated[
        str, typer.Argument(metavar="WORKSPACE", help="Id, beginning of it, name, or the id of a task.")
    ],
    source: Annotated[str, typer.Argument(metavar="ID", help="Of a command or terminal, or a beginning of it.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where it goes; by default stdout.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; with -o.")] = False,
) -> None:
    """Record what a terminal or command has shown so far, as an asciicast (version 2), which asciinema and others play."""
    from shadow.cli import record as implementation

    finish(lambda: implementation.record(reference, source, output=output, as_json=as_json), as_json=as_json)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it goes.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Copy the database of the data directory (tasks and their logs) to one file, also while Shadow works, and verify it."""
    from shadow.cli import backups as implementation

    finish(lambda: implementation.write(file, force=force, as_json=as_json), as_json=as_json)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `shadow backup` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Put a backup in the place of the data directory's database, while nothing uses it. The replaced one is kept beside it."""
    from shadow.cli import backups as implementation

    finish(lambda: implementation.read(file, as_json=as_json), as_json=as_json)


@app.command()
def serve(
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where; else SHADOW_SERVER_LISTEN, 127.0.0.1:8765 by default."),
    ] = None,
) -> None:
    """Serve tasks and workspaces to many people and programs, and do the work.

    SIGTERM and Ctrl-C drain: what cannot end soon is handed to another server, or goes on after the next start.
    """
    if listen is not None:
        os.environ["SHADOW_SERVER_LISTEN"] = listen
    sys.stdout.flush()
    # A process of its own kind: the command line loads nothing of a server.
    os.execv(sys.executable, [sys.executable, "-m", "shadow.api.main"])


@app.command()
def usage(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what users have spent on models today and this month (of UTC), and what they may."""
    from shadow.cli import usage as implementation

    finish(lambda: implementation.show(as_json=as_json), as_json=as_json)


@app.command()
def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the server: https://shadow.example")],
    code: Annotated[
        str | None,
        typer.Option(
            metavar="CODE", help="As the server printed it, or its administrator gave it; else you are asked."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Exchange a one-time code for a token, which is kept in a file that you alone can read; commands go to that server then."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.log_in(url, code=code, as_json=as_json), as_json=as_json)


@app.command()
def logout(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """End the login at a server, there and here; commands are about this host again."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.log_out(as_json=as_json), as_json=as_json)


@app.command()
def demo() -> None:
    """Run the tests of a small example package in a sandbox."""
    from shadow.cli import demo as implementation

    finish(implementation.show)


def main() -> None:
    fill_closed()
    try:
        code: object = app(standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "shadow"
        before_command = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
        usage = WrongUsage(error.format_message(), mend=_mend(error.format_message(), command))
        report(usage, as_json="--json" in before_command)
        code = WRONG_USAGE
    except typer.Abort:
        code = INTERRUPTED
    except OSError as error:  # of what is printed without a coroutine: help, the version, an error as JSON
        code = output_failed(error)
    sys.exit(code if isinstance(code, int) else 0)


def _mend(message: str, command: str) -> str:
    if command.endswith(" exec") and "No such option" in message:
        return "Options of the command itself go behind `--`: shadow workspace exec ID -- ls -la"
    return f"`{command} --help` shows what it takes."
