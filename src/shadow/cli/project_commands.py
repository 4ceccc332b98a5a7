"""``shadow project …``: the options of each command; the work is done in the module that it imports."""

from typing import Annotated

import typer

from shadow.cli.outcome import finish

app = typer.Typer(help="Projects of a server: tasks that their members share.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Name, id, or a unique beginning of an id.")]
User = Annotated[str, typer.Argument(metavar="USER", help="Name or id.")]


@app.callback(invoke_without_command=True)
def project(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="How it is called.")], as_json: Json = False
) -> None:
    """Make a project, with you as its member, and print its id. Put tasks into it: `task create --project`."""
    from shadow.cli import project_actions

    finish(lambda: project_actions.create(name, as_json=as_json), as_json=as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the projects that you are in; administrators see all."""
    from shadow.cli import project_actions

    finish(lambda: project_actions.list_all(as_json=as_json), as_json=as_json)


@app.command()
def show(reference: Project, as_json: Json = False) -> None:
    """Show who is in a project, and as what. Its tasks: `task list --project`."""
    from shadow.cli import project_actions

    finish(lambda: project_actions.show(reference, as_json=as_json), as_json=as_json)


@app.command()
def rename(
    reference: Project,
    name: Annotated[str, typer.Argument(metavar="NAME", help="How it is called from now on.")],
    as_json: Json = False,
) -> None:
    """Give a project another name; its id stays."""
    from shadow.cli import project_actions

    finish(lambda: project_actions.rename(reference, name, as_json=as_json), as_json=as_json)


@app.command()
def delete(reference: Project, as_json: Json = False) -> None:
    """Remove a project that has no tasks any more."""
    from shadow.cli import project_actions

    finish(lambda: project_actions.delete(reference, as_json=as_json), as_json=as_json)


@app.command()
def add(
    reference: Project,
    user: User,
    role: Annotated[
        str,
        typer.Option(metavar="member|viewer", help="Members change its tasks and say who is in it; viewers read."),
    ] = "member",
    as_json: Json = False,
) -> None:
    """Add a user of the server to a project, or give them another role in it.

    Who has no login there yet needs an invitation first, which may name the project: `user invite NAME --project PROJECT`.
    """
    from shadow.cli import project_actions

    finish(lambda: project_actions.add(reference, user, role=role, as_json=as_json), as_json=as_json)


@app.command()
def remove(reference: Project, user: User, as_json: Json = False) -> None:
    """Take a user out of a project: what they have open of it ends. Tasks that they began stay in it."""
    from shadow.cli import project_actions

    finish(lambda: project_actions.remove(reference, user, as_json=as_json), as_json=as_json)
