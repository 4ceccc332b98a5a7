"""``shadow workspace …``: the options of each command; the work is done in the module that the command imports."""

from typing import Annotated

import typer

from shadow.cli.outcome import EXEC_FAILED, finish

app = typer.Typer(help="Make workspaces and work in them.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Reference = Annotated[str, typer.Argument(metavar="ID", help="Id, unique beginning of an id, or name.")]


@app.callback(invoke_without_command=True)
def workspace(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def create(
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="DIRECTORY", help="Copy this directory in.")] = None,
    repo: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Clone this repository: a path, https://…, ssh://… or USER@HOST:PATH."),
    ] = None,
    branch: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --repo: the branch or tag to start from.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(metavar="N", help="With --repo: only the newest N commits of each branch.")
    ] = None,
    submodules: Annotated[
        bool, typer.Option("--submodules", help="With --repo: its submodules too, and theirs.")
    ] = False,
    lfs: Annotated[
        bool, typer.Option("--lfs", help="With --repo: its large files too (git-lfs), not only their pointers.")
    ] = False,
    isolation: Annotated[
        str | None, typer.Option(metavar="sandbox|none", help="How it is walled off; none is no wall at all.")
    ] = None,
    lease: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it lives unless renewed: 90 (seconds), 15m, 24h, 7d.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable for every command; repeatable.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE", help="A host that it may reach, or a preset such as pypi; repeatable. See `egress`."
        ),
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of its commands: 512m, 4g.")] = None,
    processes: Annotated[str | None, typer.Option(metavar="N", help="Processes and threads of its commands.")] = None,
    cpus: Annotated[str | None, typer.Option(metavar="N", help="CPUs, also parts: 0.5, 2.")] = None,
    open_files: Annotated[str | None, typer.Option(metavar="N", help="Open files of each process.")] = None,
    file_size: Annotated[str | None, typer.Option(metavar="SIZE", help="Size of each file.")] = None,
    disk: Annotated[str | None, typer.Option(metavar="SIZE", help="What the checkout takes on disk.")] = None,
    files: Annotated[str | None, typer.Option(metavar="N", help="Files and directories of the checkout.")] = None,
    command_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="For commands without a timeout of their own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a workspace and print its id. Limits that are not given are the settings'. What --from leaves out is named."""
    from shadow.cli import lifecycle
    from shadow.cli.repositories import RepositoryOptions

    if repo is None and (branch is not None or depth is not None or submodules or lfs):
        raise typer.BadParameter("--branch, --depth, --submodules and --lfs go with --repo.")
    limits = {
        "--memory": memory,
        "--processes": processes,
        "--cpus": cpus,
        "--open-files": open_files,
        "--file-size": file_size,
        "--disk": disk,
        "--files": files,
        "--command-time": command_time,
    }
    finish(
        lambda: lifecycle.create(
            name=name,
            source=source,
            repository=RepositoryOptions(repo, branch=branch, depth=depth, submodules=submodules, lfs=lfs)
            if repo is not None
            else None,
            isolation=isolation,
            lease=lease,
            env=env or (),
            allow=allow,
            limits=limits,
            as_json=as_json,
        ),
        as_json=as_json,
    )


@app.command("exec")
def execute(
    reference: Reference,
    argv: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND…", help="Program and arguments.")] = None,
    line: Annotated[
        str | None, typer.Option("-c", metavar="LINE", help="A line for bash, in place of COMMAND.")
    ] = None,
    cwd: Annotated[str, typer.Option(metavar="DIRECTORY", help="Where it runs, beneath the workspace's root.")] = ".",
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable; repeatable.")] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="After this its whole tree is ended: 90 (seconds), 15m.")
    ] = None,
    stdin: Annotated[
        bool | None,
        typer.Option("--stdin/--no-stdin", help="Feed stdin to it. By default where stdin is a pipe or a file."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="On a terminal too: every byte, also what steers or deceives it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a command in a workspace; output is live, the exit code is the command's.

    128+N if signal N ended it, 124 if the time was up, 123 if a limit of the workspace was reached,
    125 if Shadow failed, 130 after Ctrl-C (which ends its tree).
    """
    from shadow.cli import execution

    finish(
        lambda: execution.execute(
            reference,
            argv=tuple(argv or ()),
            line=line,
            cwd=cwd,
            env=env or (),
            timeout=timeout,
            stdin=stdin,
            raw=raw,
            as_json=as_json,
        ),
        as_json=as_json,
        failed=EXEC_FAILED,
    )


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List all workspaces."""
    from shadow.cli import lifecycle

    finish(lambda: lifecycle.list_all(as_json=as_json), as_json=as_json)


@app.command()
def show(reference: Reference, as_json: Json = False) -> None:
    """Show how a workspace stands and what ran in it."""
    from shadow.cli import lifecycle

    finish(lambda: lifecycle.show(reference, as_json=as_json), as_json=as_json)


@app.command()
def renew(
    reference: Reference,
    lease: Annotated[
        str | None, typer.Option(metavar="TIME", help="From now on; by default the setting lease_s.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Renew the lease of a workspace."""
    from shadow.cli import lifecycle

    finish(lambda: lifecycle.renew(reference, lease=lease, as_json=as_json), as_json=as_json)


@app.command()
def egress(
    reference: Reference,
    allow: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Allow this too; repeatable.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Allow this no more; repeatable.")] = None,
    nothing: Annotated[bool, typer.Option("--nothing", help="Remove every rule first.")] = False,
    as_json: Json = False,
) -> None:
    """Show which hosts a workspace may reach and what it reached, or change it; a change applies at once.

    A RULE is [private:]HOST[:PORT,…][=METHOD,…] or a preset: example.org, .example.org (and all below), *.example.org (only
    below), 10.0.0.0/8:443, private:git.corp.example (also where it resolves to private addresses). Ports are 443 and 80.
    """
    from shadow.cli import egress

    finish(
        lambda: egress.egress(reference, allow=allow or (), remove=remove or (), nothing=nothing, as_json=as_json),
        as_json=as_json,
    )


@app.command()
def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A local path, or ID:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The other kind.")],
    as_json: Json = False,
) -> None:
    """Copy a file or a directory into a workspace or out of it.

    As with `cp -r`: into TARGET where that is a directory, else to that name; SOURCE/. means its content. Symlinks are
    copied as links; out of a workspace only those that stay within what is copied. What is left out is named.
    """
    from shadow.cli import copying

    finish(lambda: copying.copy(source, target, as_json=as_json), as_json=as_json)


@app.command()
def deliver(
    reference: Reference,
    to: Annotated[
        str, typer.Option("--to", metavar="branch|patch", help="A branch of the repository it came from, or a patch.")
    ] = "branch",
    branch: Annotated[
        str | None, typer.Option(metavar="NAME", help="The branch's name there; by default the workspace's own.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where the patch goes; by default stdout.")
    ] = None,
    commit: Annotated[
        str | None, typer.Option(metavar="MESSAGE", help="First commit everything that is not committed yet.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hand out what was committed in a workspace that was made with --repo.

    The commits are verified outside of the workspace first. A branch with other work on it is never overwritten; your work
    tree and the branch that you have checked out are never touched.
    """
    from shadow.cli import repositories

    finish(
        lambda: repositories.deliver(reference, to=to, branch=branch, output=output, commit=commit, as_json=as_json),
        as_json=as_json,
    )


@app.command()
def rm(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="ID…", help="Ids, beginnings of ids, names.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All workspaces.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """End everything in workspaces and remove them."""
    from shadow.cli import lifecycle

    finish(
        lambda: lifecycle.remove(references or (), every=every, ask=not (yes or as_json), as_json=as_json),
        as_json=as_json,
    )
