"""``shadow task …``: the options of each command; the work is done in the module that the command imports."""

from typing import Annotated

import typer

from shadow.cli.outcome import finish

app = typer.Typer(help="Look at what agents did.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Reference = Annotated[str, typer.Argument(metavar="ID", help="Id, or a unique beginning of it.")]


@app.callback(invoke_without_command=True)
def task(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="At most so many, the newest.")] = 50,
    as_json: Json = False,
) -> None:
    """List tasks, newest first."""
    from shadow.cli import task_views

    finish(lambda: task_views.list_all(limit=limit, as_json=as_json), as_json=as_json)


@app.command()
def show(reference: Reference, as_json: Json = False) -> None:
    """Show a task: what was asked, what was said and done, what came of it."""
    from shadow.cli import task_views

    finish(lambda: task_views.show(reference, as_json=as_json), as_json=as_json)


@app.command()
def events(
    reference: Reference,
    after: Annotated[int, typer.Option(metavar="N", min=0, help="Only events behind this number.")] = 0,
    as_json: Json = False,
) -> None:
    """Print the events of a task's log, one JSON object a line."""
    from shadow.cli import task_views

    finish(lambda: task_views.events(reference, after=after), as_json=as_json)


@app.command()
def diff(reference: Reference, as_json: Json = False) -> None:
    """Print what a task has changed since its base commit."""
    from shadow.cli import task_views

    finish(lambda: task_views.diff(reference, as_json=as_json), as_json=as_json)
