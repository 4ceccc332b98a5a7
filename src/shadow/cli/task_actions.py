"""``shadow task create|send|queue|stop|follow|resume|rollback|hibernate|archive|delete``.

What is asked is on record at once; then this process does the work and shows it, unless it is told to leave that to others
(``--detach``): a server, or whoever types ``shadow task follow``.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from shadow.bootstrap import open_model, open_tasks, start_logging
from shadow.cli.outcome import DONE, WrongUsage, print_json, say
from shadow.cli.run import RunArguments, create, exit_code, options_of, tell
from shadow.cli.run_display import JsonLines, Lines
from shadow.cli.tables import print_table
from shadow.cli.text import span
from shadow.cli.working import report_of, work
from shadow.core.errors import Conflict
from shadow.core.tasks import Task, TaskId
from shadow.settings import Settings, load_settings
from shadow.tasks.elsewhere import is_elsewhere
from shadow.tasks.service import Tasks
from shadow.terminal.neutral import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    settings: Settings
    tasks: Tasks
    as_json: bool


@asynccontextmanager
async def opened(*, as_json: bool) -> AsyncGenerator[Opened]:
    settings = load_settings()
    start_logging(settings)
    async with open_tasks(settings) as tasks:
        yield Opened(settings=settings, tasks=tasks, as_json=as_json)


async def new(arguments: RunArguments, *, detach: bool) -> int:
    async with opened(as_json=arguments.as_json) as o, open_model(o.settings, arguments.model) as model:
        task = await create(o.settings, o.tasks, arguments, options_of(arguments), model=model.name)
        return await _go_on(o, task.id, after=0, detach=detach)


async def send(reference: str, text: str, *, model: str | None, stop: bool, detach: bool, as_json: bool) -> int:
    async with opened(as_json=as_json) as o:
        task = await o.tasks.find(reference)
        name = None
        if model is not None:
            async with open_model(o.settings, model) as chosen:
                name = chosen.name
        await o.tasks.send(task.id, text, model=name, stop=stop)
        return await _go_on(o, task.id, after=task.events, detach=detach)


async def queue(
    reference: str, *, edit: tuple[str, str] | None, remove: str | None, first: str | None, as_json: bool
) -> int:
    """``first``: the message that is to be said before all others."""
    async with opened(as_json=as_json) as o:
        task = await o.tasks.find(reference)
        if edit is not None:
            await o.tasks.edit(task.id, *edit)
        if remove is not None:
            await o.tasks.remove(task.id, remove)
        if first is not None:
            ids = [message.id for message in await o.tasks.queue(task.id)]
            await o.tasks.reorder(task.id, [first, *(message_id for message_id in ids if message_id != first)])
        waiting = await o.tasks.queue(task.id)
    if as_json:
        print_json({"messages": [asdict(message) for message in waiting]})
    elif not waiting:
        say("No message waits.")
    else:
        print_table(("MESSAGE", "TEXT"), [(message.id, printable(message.text)[:100]) for message in waiting])
    return DONE


async def stop(reference: str, *, as_json: bool) -> int:
    async with opened(as_json=as_json) as o:
        task = await o.tasks.find(reference)
        if not await o.tasks.stop(task.id):
            raise Conflict("The agent is not at work.", mend="`shadow task show` says how the task stands.")
        return await _settle(o, task)


async def follow(reference: str, *, after: int, as_json: bool) -> int:
    async with opened(as_json=as_json) as o:
        task = await o.tasks.find(reference)
        return await _go_on(o, task.id, after=after, detach=False)


async def resume(reference: str, *, detach: bool, as_json: bool) -> int:
    async with opened(as_json=as_json) as o:
        task = await o.tasks.find(reference)
        await o.tasks.resume(task.id)
        return await _go_on(o, task.id, after=task.events, detach=detach)


async def checkpoints(reference: str, *, as_json: bool) -> int:
    async with opened(as_json=as_json) as o:
        task = await o.tasks.find(reference)
        found = await o.tasks.checkpoints(task.id)
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
    async with opened(as_json=as_json) as o:
        task = await o.tasks.find(reference)
        chosen = checkpoint or await o.tasks.before_run(task.id, run or 0)
        await o.tasks.roll_back(task.id, chosen, message=message)
        return await _go_on(o, task.id, after=task.events, detach=detach)


async def end(reference: str, how: str, *, detach: bool, as_json: bool) -> int:
    """``how``: ``hibernate``, ``archive`` or ``delete``."""
    async with opened(as_json=as_json) as o:
        task = await o.tasks.find(reference)
        acts: dict[str, Callable[[TaskId], Awaitable[None]]] = {
            "hibernate": o.tasks.hibernate,
            "archive": o.tasks.archive,
            "delete": o.tasks.delete,
        }
        await acts[how](task.id)
        left = task.workspace_id if is_elsewhere(task, o.tasks.host) and how != "hibernate" else None
        if left is not None and not as_json:
            say(
                f"Its workspace {left} is on the host {task.host}: it stays there until a worker of that host removes it, or its "
                "lease is over.",
                style="yellow",
            )
        if detach:
            return DONE
        return await _settle(o, task, **({"left": {"workspace": left, "host": task.host}} if left is not None else {}))


async def _settle(o: Opened, task: Task, **told: object) -> int:
    """Do what was asked of the task, without showing it. ``told``: what the JSON document has besides."""
    await work(o.settings, o.tasks, task.id, after=task.events, watchers=[])
    if o.as_json:
        print_json({"task": task.id} | told)
    return DONE


async def _go_on(o: Opened, task_id: TaskId, *, after: int, detach: bool) -> int:
    if detach:
        if o.as_json:
            print_json({"task": task_id})
        else:
            print(task_id)
        return DONE
    recorded = await work(o.settings, o.tasks, task_id, after=after, watchers=[JsonLines() if o.as_json else Lines()])
    task = await o.tasks.find(task_id)
    report = report_of(task_id, task.workspace_id, recorded)
    if report is None:
        return DONE
    if not o.as_json:
        tell(report)
    return exit_code(report)
