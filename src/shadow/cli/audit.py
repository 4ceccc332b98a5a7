"""``shadow audit``: the record of operations, and whether anybody has changed it."""

from typing import Annotated

import typer

from shadow.cli.outcome import finish

app = typer.Typer(help="Who changed what through the server.", rich_markup_mode=None)

_JSON = typer.Option("--json", help="Print one JSON document.")


@app.callback(invoke_without_command=True)
def audit(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only what this user did.")] = None,
    object_: Annotated[
        str | None, typer.Option("--object", metavar="ID", help="Only what was done with this: the id of a task, …")
    ] = None,
    before: Annotated[int | None, typer.Option(metavar="NUMBER", min=1, help="Only entries below it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List operations, the newest first: who, what, when, from where, and how it ended."""
    from shadow.cli import auditing as implementation

    finish(
        lambda: implementation.show(user=user, object_=object_, before=before, limit=limit, as_json=as_json),
        as_json=as_json,
    )


@app.command()
def verify(
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER:HASH", help="An end that an earlier `verify` printed, kept where nobody can change it."
        ),
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Walk the whole record, and name the first entry that is not as it was written.

    Without --expect, whoever can write to the database can make a record that fits: keep what this prints elsewhere.
    """
    from shadow.cli import auditing as implementation

    finish(lambda: implementation.verify(expect=expect, as_json=as_json), as_json=as_json)
