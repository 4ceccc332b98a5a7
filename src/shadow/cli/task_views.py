"""``shadow task list|show|events|diff|patch|artifacts``: read from the tasks' logs and, while there is one, their workspace."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from shadow.cli.opening import open_manager
from shadow.cli.outcome import DONE, print_json, say
from shadow.cli.places import Place, open_place
from shadow.cli.run import write_patch
from shadow.cli.run_display import Lines
from shadow.cli.tables import print_table
from shadow.cli.text import span
from shadow.core.accounts import ProjectId
from shadow.core.errors import NotFound
from shadow.core.events import Recorded, RunFinished, RunStarted, WorkDelivered
from shadow.core.tasks import Task
from shadow.terminal.neutral import printable

MAX_SHOWN_DIFF_BYTES = 16 * 1024 * 1024


async def list_all(*, limit: int, project: str | None, as_json: bool) -> int:
    async with open_place() as place:
        project_id = None if project is None else await place.project(project)
        tasks = await place.tasks.list(limit=limit, project_id=project_id)
        shared = not as_json and any(task.project_id is not None for task in tasks)
        names: Mapping[ProjectId, str] = await place.project_names() if shared else {}
    if as_json:
        print_json({"tasks": [asdict(task) for task in tasks]})
        return DONE
    if not tasks:
        say('There is no task yet. `shadow task create REPO "INSTRUCTION"` makes one.')
        return DONE
    now = time.time()
    rows = [
        (t.id, _state(t), span(now - t.created_at) + " ago", printable(t.model)[:30], printable(t.title)[:60])
        for t in tasks
    ]
    if not names:
        print_table(("ID", "STATE", "MADE", "MODEL", "TASK"), rows)
        return DONE
    of = ["" if t.project_id is None else printable(names.get(t.project_id, t.project_id))[:30] for t in tasks]
    wider = [(*row[:-1], project, row[-1]) for row, project in zip(rows, of, strict=True)]
    print_table(("ID", "STATE", "MADE", "MODEL", "PROJECT", "TASK"), wider)
    return DONE


def _state(task: Task) -> str:
    return task.outcome or task.state.value


async def show(reference: str, *, as_json: bool) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        recorded = await place.tasks.events(task.id)
    if as_json:
        runs = [asdict(r.event) for r in recorded if isinstance(r.event, RunStarted | RunFinished)]
        print_json({"task": asdict(task), "runs": runs})
        return DONE
    watch = Lines()
    for record in recorded:
        if isinstance(record.event, RunStarted) and record.event.run > 1:
            print(f"\n» {printable(record.event.message.text)}")
        watch(record.event)
        if isinstance(record.event, RunFinished):
            print(f"{record.event.status}: {printable(record.event.summary)}")
    print(f"\nTask {task.id}: {_state(task)}, {task.runs} run{'s' if task.runs != 1 else ''}, {task.events} events.")
    if task.workspace_id is not None:
        print(f"Its workspace is {task.workspace_id}{f' on {task.host}' if place.is_elsewhere(task) else ''}.")
    return DONE


async def events(reference: str, *, after: int) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        for record in (await place.tasks.events(task.id))[after:]:
            line = {"seq": record.seq, "at": record.at, **asdict(record.event)}
            sys.stdout.write(json.dumps(line, ensure_ascii=True) + "\n")
    return DONE


async def diff(reference: str, *, as_json: bool) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        content = await _diff_of(place, task, await place.tasks.events(task.id))
    if as_json:
        print_json({"task": task.id, "diff": content.decode(errors="replace")})
    else:
        sys.stdout.buffer.write(content)
    return DONE


async def patch(reference: str, *, output: str | None) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        content = await place.patch(task.id)
    if output is not None:
        write_patch(content, output)
    else:
        sys.stdout.buffer.write(content)
    return DONE


async def artifacts(reference: str, *, as_json: bool) -> int:
    async with open_place() as place:
        task = await place.tasks.find(reference)
        found = await place.artifacts(task.id)
    if as_json:
        print_json({"artifacts": [asdict(one) for one in found]})
    elif not found:
        say("Nothing is kept of the task but its log.")
    else:
        now = time.time()
        print_table(
            ("NAME", "BYTES", "MADE"),
            [(one.name, str(one.size_bytes), f"{span(now - one.made_at)} ago") for one in found],
        )
    return DONE


async def _diff_of(place: Place, task: Task, recorded: Sequence[Recorded]) -> bytes:
    """From the workspace while it is there, else as it was delivered last. Raises: NotFound, OtherHost."""
    elsewhere = place.is_elsewhere(task)
    if task.checkout is not None and task.workspace_id is not None and not elsewhere:
        await place.wake(task.workspace_id)
        async with await open_manager().attach(task.workspace_id) as executor:
            return (await executor.git_diff(base=task.checkout.base_commit, limit_bytes=MAX_SHOWN_DIFF_BYTES)).content
    delivered = [record.event for record in recorded if isinstance(record.event, WorkDelivered)]
    if not delivered:
        place.check_here(task)
    if not delivered:
        raise NotFound(f"The task {task.id} has delivered nothing.", mend="`shadow task show` says why.")
    if not delivered[-1].diff:
        raise NotFound("The difference was too large to be kept.", mend=f"Look at {delivered[-1].where}.")
    return delivered[-1].diff.encode("utf-8", "surrogateescape")
