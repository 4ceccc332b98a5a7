"""``shadow key …``: the options of each command; the work is done in the module that it imports."""

from typing import Annotated

import typer

from shadow.cli.outcome import finish

app = typer.Typer(help="Keys for providers of models that Shadow keeps, encrypted.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Provider = Annotated[
    str, typer.Argument(metavar="PROVIDER", help="anthropic, openai, openrouter, ollama or compatible.")
]
Project = Annotated[
    str | None, typer.Option(metavar="ID", help="The key of a project, for the tasks in it, instead of yours.")
]


@app.callback(invoke_without_command=True)
def key(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("add")
def add(
    provider: Provider,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it is reached, if not at the provider's own address.")
    ] = None,
    project: Project = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Let the provider say first that it takes it.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Store a key, in the place of the one that was there. You are asked for it; else it is the first line of stdin."""
    from shadow.cli import key_actions

    finish(
        lambda: key_actions.add(provider, base_url=base_url, project=project, check=check, as_json=as_json),
        as_json=as_json,
    )


@app.command("list")
def list_keys(project: Project = None, as_json: Json = False) -> None:
    """List for which providers there is a key; the keys themselves are shown nobody."""
    from shadow.cli import key_actions

    finish(lambda: key_actions.list_keys(project=project, as_json=as_json), as_json=as_json)


@app.command("remove")
def remove(provider: Provider, project: Project = None, as_json: Json = False) -> None:
    """Forget a key. Runs that use it go on to their end."""
    from shadow.cli import key_actions

    finish(lambda: key_actions.remove(provider, project=project, as_json=as_json), as_json=as_json)


@app.command("test")
def try_out(provider: Provider, project: Project = None, as_json: Json = False) -> None:
    """Ask the provider whether it still takes the key."""
    from shadow.cli import key_actions

    finish(lambda: key_actions.test(provider, project=project, as_json=as_json), as_json=as_json)


@app.command("rotate")
def rotate(
    forget_old: Annotated[
        bool,
        typer.Option("--forget-old", help="And drop the old sealing keys: backups from before cannot be opened then."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a new sealing key on this host, and encrypt all stored keys with it, also while a server runs."""
    from shadow.cli import key_actions

    finish(lambda: key_actions.rotate(forget_old=forget_old, as_json=as_json), as_json=as_json)
