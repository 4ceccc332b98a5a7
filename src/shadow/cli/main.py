"""The ``shadow`` command: what it offers. Everything heavy is imported by the command that needs it."""

import sys
from typing import Annotated

import typer

from shadow.cli import workspaces
from shadow.cli.outcome import INTERRUPTED, WRONG_USAGE, WrongUsage, finish, output_failed, print_json, report
from shadow.cli.streams import fill_closed
from shadow.version import __version__

app = typer.Typer(
    name="shadow",
    help="Background coding agents in isolated workspaces, self-hosted.",
    epilog="Settings: docs/settings.md. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 this host cannot do it, "
    "130 interrupted; `exec` ends with the code of its command.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would double the time that it takes
)
app.add_typer(workspaces.app, name="workspace")


@app.callback(invoke_without_command=True)
def shadow(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


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
