"""``shadow token …`` and ``shadow user …``: the options of each command; the work is done in the module that it imports."""

from typing import Annotated

import typer

from shadow.cli.outcome import finish

tokens = typer.Typer(help="Your tokens at a server, for programs.", rich_markup_mode=None)
users = typer.Typer(help="The users of a server.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
User = Annotated[str, typer.Argument(metavar="USER", help="Name or id.")]


@tokens.callback(invoke_without_command=True)
def token(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Option(metavar="NAME", help="For people: what it is for.")] = "token",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="What it is good for; repeatable. By default tasks and workspaces."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="For how long: 3600 (seconds), 12h, 30d; by default for good.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it, once. Scopes: tasks:read, tasks:write, workspaces:read, workspaces:write, account, admin."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.create_token(name, scopes=scope, expires=expires, as_json=as_json), as_json=as_json)


@tokens.command("list")
def list_tokens(as_json: Json = False) -> None:
    """List your tokens and the sessions of your browsers."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.list_tokens(as_json=as_json), as_json=as_json)


@tokens.command("revoke")
def revoke(
    credential: Annotated[str, typer.Argument(metavar="ID", help="As `token list` shows it, or a beginning of it.")],
    as_json: Json = False,
) -> None:
    """End a token or a session at once, and what is open by it."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.revoke(credential, as_json=as_json), as_json=as_json)


@users.callback(invoke_without_command=True)
def user(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@users.command("list")
def list_users(as_json: Json = False) -> None:
    """List all users."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.list_users(as_json=as_json), as_json=as_json)


@users.command("invite")
def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="How the new user is called.")],
    role: Annotated[
        str, typer.Option(metavar="admin|member|viewer", help="At the server; viewers change nothing anywhere.")
    ] = "member",
    project: Annotated[
        list[str] | None, typer.Option(metavar="PROJECT", help="A project that they are added to; repeatable.")
    ] = None,
    in_projects_as: Annotated[
        str | None, typer.Option("--as", metavar="member|viewer", help="As what; member by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a user, and print the code for their first login, once; it is good for a week."""
    from shadow.cli import account_actions

    finish(
        lambda: account_actions.invite(
            name, role=role, projects=project or (), in_projects_as=in_projects_as, as_json=as_json
        ),
        as_json=as_json,
    )


@users.command("me")
def me(as_json: Json = False) -> None:
    """Show who you are, and at which server."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.me(as_json=as_json), as_json=as_json)


@users.command("change")
def change(
    reference: User,
    role: Annotated[str | None, typer.Option(metavar="admin|member|viewer", help="What they may do.")] = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Shut them out (nothing of theirs is deleted), or let in.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a user another role, or shut them out; their tokens and sessions end then."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.change(reference, role=role, disabled=disabled, as_json=as_json), as_json=as_json)


@users.command("code")
def code(reference: User, as_json: Json = False) -> None:
    """Print a code for one login of a user who lost their token."""
    from shadow.cli import account_actions

    finish(lambda: account_actions.code(reference, as_json=as_json), as_json=as_json)
