"""``shadow task create|send|queue|stop|follow|resume|rollback|hibernate|archive|delete``.

What is asked is on record at once; then this process does the work and shows it, unless it is told to leave that to others
(``--detach``): a server, or whoever types ``shadow task follow``. With ``--server`` the server does the work, and this shows it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from shadow.cli.outcome import DONE, WrongUsage, print_json, say
from shadow.cli.places import Place, open_place
from shadow.cli.run import RunArguments, create, exit_code, options_of, tell
from shadow.cli.run_display import JsonLines, Lines
from shadow.cli.tables import print_table
from shadow.cli.text import span
from shadow.cli.working import report_of
from shadow.core.errors import Conflict
from shadow.core.tasks import Task, TaskId
from shadow.terminal.neutral import printable


async def new(arguments: RunArguments, *, detach: bool) -> int:
    options = options_of(arguments)
    async with open_place() as place:
        task = await create(place, arguments, options, model=await place.model(arguments.model))
        return await _go_on(place, task.id, after=0, detach=detach, as_json=arguments.as_json)


async def send(reference: str, text: str, *, model: str | None, stop: bool, detach: bool, as_json: bool) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        name = None if model is None else await place.model(model)
        await place.tasks.send(task.id, text, model=name, stop=stop)
        return await _go_on(place, task.id, after=task.events, detach=detach, as_json=as_json)


async def queue(
    reference: str, *, edit: tuple[str, str] | None, remove: str | None, first: str | None, as_json: bool
) -> int:
    """``first``: the message that is to be said before all others."""
    async with open_place() as place:
        task = await place.tasks.find(reference)
        if edit is not None:
            await place.tasks.edit(task.id, *edit)
        if remove is not None:
            await place.tasks.remove(task.id, remove)
        if first is not None:
            ids = [message.id for message in await place.tasks.queue(task.id)]
            await place.tasks.reorder(task.id, [first, *(message_id for message_id in ids if message_id != first)])
        waiting = await place.tasks.queue(task.id)
    if as_json:
        print_json({"messages": [asdict(message) for message in waiting]})
    elif not waiting:
        say("No message waits.")
    else:
        print_table(("MESSAGE", "TEXT"), [(message.id, printable(message.text)[:100]) for message in waiting])
    return DONE


async def stop(reference: str, *, as_json: bool) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        if not await place.tasks.stop(task.id):
            raise Conflict("The agent is not at work.", mend="`shadow task show` says how the task stands.")
        return await _settle(place, task, as_json=as_json)


async def follow(reference: str, *, after: int, as_json: bool) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        return await _go_on(place, task.id, after=after, detach=False, as_json=as_json)


async def resume(reference: str, *, detach: bool, as_json: bool) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        await place.tasks.resume(task.id)
        return await _go_on(place, task.id, after=task.events, detach=detach, as_json=as_json)


async def checkpoints(reference: str, *, as_json: bool) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        found = await place.tasks.checkpoints(task.id)
    if as_json:
        print_json({"checkpoints": [asdict(checkpoint) for checkpoint in found]})
    elif not found:
        say("The task has no checkpoint yet.")
    else:
        rows = [
            (c.id, str(c.run), str(c.seq), span(task.updated_at - c.created_at), printable(c.branch or "detached"))
            for c in found
        ]
        print_table(("CHECKPOINT", "RUN", "EVENT", "BEFORE THE LAST EVENT", "BRANCH"), rows)
    return DONE


async def roll_back(
    reference: str, checkpoint: str | None, *, run: int | None, message: str | None, detach: bool, as_json: bool
) -> int:
    if (checkpoint is None) == (run is None):
        raise WrongUsage("Name a checkpoint, or give --run N for how it was before that run.")
    async with open_place() as place:
        task = await place.tasks.find(reference)
        chosen = checkpoint or await place.tasks.before_run(task.id, run or 0)
        await place.tasks.roll_back(task.id, chosen, message=message)
        return await _go_on(place, task.id, after=task.events, detach=detach, as_json=as_json)


async def end(reference: str, how: str, *, detach: bool, as_json: bool) -> int:
    """``how``: ``hibernate``, ``archive`` or ``delete``."""
    async with open_place() as place:
        task = await place.tasks.find(reference)
        acts: dict[str, Callable[[TaskId], Awaitable[None]]] = {
            "hibernate": place.tasks.hibernate,
            "archive": place.tasks.archive,
            "delete": place.tasks.delete,
        }
        await acts[how](task.id)
        left = task.workspace_id if place.is_elsewhere(task) and how != "hibernate" else None
        if left is not None and not as_json:
            say(
                f"Its workspace {left} is on the host {task.host}: it stays there until a worker of that host removes it, or its "
                "lease is over.",
                style="yellow",
            )
        if detach:
            return DONE
        return await _settle(place, task, as_json=as_json, left=left)


async def _settle(place: Place, task: Task, *, as_json: bool, left: str | None = None) -> int:
    """Do what was asked of the task, without showing it. ``left``: its workspace that stays on another host."""
    await place.work(task.id, after=task.events, watchers=[])
    if as_json:
        told = {} if left is None else {"left": {"workspace": left, "host": task.host}}
        print_json({"task": task.id} | told)
    return DONE


async def _go_on(place: Place, task_id: TaskId, *, after: int, detach: bool, as_json: bool) -> int:
    if detach:
        if as_json:
            print_json({"task": task_id})
        else:
            print(task_id)
        return DONE
    recorded = await place.work(task_id, after=after, watchers=[JsonLines() if as_json else Lines()])
    task = await place.tasks.find(task_id)
    report = report_of(task_id, task.workspace_id, recorded)
    if report is None:
        return DONE
    if not as_json:
        tell(report, is_here=place.is_here)
    return exit_code(report)
