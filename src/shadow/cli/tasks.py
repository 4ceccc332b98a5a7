"""``shadow task …``: the options of each command; the work is done in the module that the command imports."""

from typing import Annotated

import typer

from shadow.cli.outcome import finish

app = typer.Typer(help="Tasks: what agents do and did.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Events = Annotated[bool, typer.Option("--json", help="Print each event as one JSON object a line.")]
Reference = Annotated[str, typer.Argument(metavar="ID", help="Id, or a unique beginning of it.")]
Detach = Annotated[
    bool, typer.Option("--detach", help="Only put it on record: a server does the work, or `task follow`.")
]
Model = Annotated[
    str | None, typer.Option(metavar="MODEL", help="PROVIDER:NAME, scripted:FILE or replay:FILE; else SHADOW_MODEL.")
]


@app.callback(invoke_without_command=True)
def task(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="At most so many, the newest.")] = 50,
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Only those of this project of the server: name or id.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List tasks, newest first: at a server yours, and those of the projects that you are in."""
    from shadow.cli import task_views

    finish(lambda: task_views.list_all(limit=limit, project=project, as_json=as_json), as_json=as_json)


@app.command()
def show(reference: Reference, as_json: Json = False) -> None:
    """Show a task: what was asked, what was said and done, what came of it."""
    from shadow.cli import task_views

    finish(lambda: task_views.show(reference, as_json=as_json), as_json=as_json)


@app.command()
def events(
    reference: Reference,
    after: Annotated[int, typer.Option(metavar="N", min=0, max=2**31 - 1, help="Only events behind this number.")] = 0,
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


@app.command()
def patch(
    reference: Reference,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where it goes; by default stdout.")
    ] = None,
) -> None:
    """Print what a task delivered last as a patch, for `git am` or `git apply`."""
    from shadow.cli import task_views

    finish(lambda: task_views.patch(reference, output=output), as_json=False)


@app.command()
def artifacts(reference: Reference, as_json: Json = False) -> None:
    """List the files that are kept of a task."""
    from shadow.cli import task_views

    finish(lambda: task_views.artifacts(reference, as_json=as_json), as_json=as_json)


@app.command()
def create(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A path, https://…, ssh://… or USER@HOST:PATH.")],
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="What is to be done.")],
    model: Model = None,
    branch: Annotated[str | None, typer.Option(metavar="NAME", help="The branch or tag to start from.")] = None,
    check: Annotated[
        str | None, typer.Option(metavar="CMD", help="Judges the result, in a fresh sandbox; else .shadow/config.toml.")
    ] = None,
    deliver: Annotated[str, typer.Option(metavar="branch|push|none", help="Where the work goes.")] = "branch",
    max_cost: Annotated[str | None, typer.Option(metavar="USD", help="What the model may cost in a run.")] = None,
    max_time: Annotated[str | None, typer.Option(metavar="TIME", help="How long a run may take.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="A host that the sandbox may reach, or a preset; repeatable."),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Share it with the members of this project of the server: name or id."),
    ] = None,
    detach: Detach = False,
    as_json: Events = False,
) -> None:
    """Make a task, and let the agent work on it. Its workspace is kept: `task send` goes on."""
    from shadow.cli import task_actions
    from shadow.cli.run import RunArguments

    arguments = RunArguments(
        repo=repo,
        instruction=instruction,
        model=model,
        branch=branch,
        check=check,
        deliver=deliver,
        keep=True,
        max_cost=max_cost,
        max_time=max_time,
        allow=tuple(allow or ()),
        project=project,
        as_json=as_json,
    )
    finish(lambda: task_actions.new(arguments, detach=detach), as_json=as_json)


@app.command()
def send(
    reference: Reference,
    text: Annotated[str, typer.Argument(metavar="MESSAGE", help="What is to be done next.")],
    stop: Annotated[bool, typer.Option("--stop", help="Stop what the agent does now, and say this first.")] = False,
    model: Model = None,
    detach: Detach = False,
    as_json: Events = False,
) -> None:
    """Say something to the agent: at once, or when what it does now has ended. A hibernated task is woken."""
    from shadow.cli import task_actions

    finish(
        lambda: task_actions.send(reference, text, model=model, stop=stop, detach=detach, as_json=as_json),
        as_json=as_json,
    )


@app.command()
def queue(
    reference: Reference,
    edit: Annotated[
        tuple[str, str] | None, typer.Option(metavar="MESSAGE TEXT", help="Say TEXT instead of this message.")
    ] = None,
    remove: Annotated[str | None, typer.Option(metavar="MESSAGE", help="Do not say it.")] = None,
    first: Annotated[str | None, typer.Option(metavar="MESSAGE", help="Say it before the others.")] = None,
    as_json: Json = False,
) -> None:
    """List what waits to be said to the agent, and change it."""
    from shadow.cli import task_actions

    finish(
        lambda: task_actions.queue(reference, edit=edit, remove=remove, first=first, as_json=as_json), as_json=as_json
    )


@app.command()
def stop(reference: Reference, as_json: Json = False) -> None:
    """Stop what the agent does now; its work is kept, what waits stays in the queue."""
    from shadow.cli import task_actions

    finish(lambda: task_actions.stop(reference, as_json=as_json), as_json=as_json)


@app.command()
def follow(
    reference: Reference,
    after: Annotated[int, typer.Option(metavar="N", min=0, max=2**31 - 1, help="Only events behind this number.")] = 0,
    as_json: Events = False,
) -> None:
    """Show a task's log and what comes, until nothing goes on any more. Does the work where nobody else does."""
    from shadow.cli import task_actions

    finish(lambda: task_actions.follow(reference, after=after, as_json=as_json), as_json=as_json)


@app.command()
def resume(reference: Reference, detach: Detach = False, as_json: Events = False) -> None:
    """Go on with a task that was interrupted: by a crash, a stop with messages waiting, or a failed start."""
    from shadow.cli import task_actions

    finish(lambda: task_actions.resume(reference, detach=detach, as_json=as_json), as_json=as_json)


@app.command()
def checkpoints(reference: Reference, as_json: Json = False) -> None:
    """List the points that a task can be rolled back to, oldest first."""
    from shadow.cli import task_actions

    finish(lambda: task_actions.checkpoints(reference, as_json=as_json), as_json=as_json)


@app.command()
def rollback(
    reference: Reference,
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="CHECKPOINT", help="As `task checkpoints` and `task show` name it.")
    ] = None,
    run: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=2**31 - 1, help="How it was before this run.")
    ] = None,
    message: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What to say then, instead of what was said there.")
    ] = None,
    detach: Detach = False,
    as_json: Events = False,
) -> None:
    """Go back: conversation, files and commit as they were. What is left behind stays readable and can be returned to."""
    from shadow.cli import task_actions

    finish(
        lambda: task_actions.roll_back(reference, checkpoint, run=run, message=message, detach=detach, as_json=as_json),
        as_json=as_json,
    )


@app.command()
def hibernate(reference: Reference, detach: Detach = False, as_json: Json = False) -> None:
    """End the processes of a task's workspace; files and terminals' history are kept, the next message wakes it."""
    from shadow.cli import task_actions

    finish(lambda: task_actions.end(reference, "hibernate", detach=detach, as_json=as_json), as_json=as_json)


@app.command()
def archive(reference: Reference, detach: Detach = False, as_json: Json = False) -> None:
    """Stop a task and remove its workspace; its log is kept."""
    from shadow.cli import task_actions

    finish(lambda: task_actions.end(reference, "archive", detach=detach, as_json=as_json), as_json=as_json)


@app.command()
def delete(reference: Reference, detach: Detach = False, as_json: Json = False) -> None:
    """Stop a task and remove everything of it, its log too."""
    from shadow.cli import task_actions

    finish(lambda: task_actions.end(reference, "delete", detach=detach, as_json=as_json), as_json=as_json)
