"""Doing the work of one task in this process, as a server's workers would, and showing what happens."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager

from shadow.agent.loop import RunStatus
from shadow.bootstrap import make_worker, open_tracer
from shadow.core.concurrency import task_group
from shadow.core.errors import NotFound
from shadow.core.events import CheckFinished, Recorded, RunFinished, TaskEvent, WorkDelivered
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import TaskId
from shadow.settings import Settings
from shadow.tasks.elsewhere import watch_for_its_host
from shadow.tasks.service import Tasks
from shadow.tasks.values import RunReport

DRAIN_S = 5.0

Watcher = Callable[[TaskEvent], None]


@asynccontextmanager
async def working(settings: Settings, tasks: Tasks, task_id: TaskId) -> AsyncGenerator[None]:
    """A worker for this task alone. At the end of the block it lets go; what it was at, the next one takes up."""
    await tasks.let_go_of_the_dead(task_id)
    async with open_tracer(settings) as tracer:
        worker = await make_worker(settings, tasks, task_id=task_id, tracer=tracer)
        async with task_group() as group:
            running = group.create_task(worker.run())
            try:
                yield
            finally:
                worker.drain(within_s=DRAIN_S)
                await asyncio.wait({running})


async def work(
    settings: Settings, tasks: Tasks, task_id: TaskId, *, after: int, watchers: Sequence[Watcher]
) -> Sequence[Recorded]:
    """Until nothing goes on with the task any more; the events behind ``after``. The first Ctrl-C stops the run.

    Raises: what the job failed with that was asked for last; OtherHost: nobody does it.
    """
    found: list[Recorded] = []
    with stopping(lambda: tasks.stop(task_id)):
        async with working(settings, tasks, task_id), watching(tasks, task_id):
            try:
                async for recorded in tasks.follow(task_id, after=after):
                    found.append(recorded)
                    for watcher in watchers:
                        watcher(recorded.event)
            except NotFound:
                return found  # it was deleted, which is what was asked for
    await tasks.check_last_asked(task_id)
    return found


@asynccontextmanager
async def watching(tasks: Tasks, task_id: TaskId) -> AsyncGenerator[None]:
    """Raises: OtherHost: what is followed in the block waits for a worker that does not come."""
    async with task_group() as group:
        watch = group.create_task(watch_for_its_host(tasks.database, task_id, tasks.host))
        try:
            yield
        finally:
            watch.cancel()


@contextmanager
def stopping(stop: Callable[[], Awaitable[object]]) -> Generator[None]:
    """Ctrl-C ends the run and lets it be told; a second one ends us, as other signals do: then the run can be resumed."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    asked: list[asyncio.Future[object]] = []

    def interrupted() -> None:
        if asked:
            task.cancel()
        asked.append(asyncio.ensure_future(stop()))

    handlers = {signal.SIGINT: interrupted, signal.SIGTERM: task.cancel, signal.SIGHUP: task.cancel}
    for number, handle in handlers.items():
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def report_of(task_id: TaskId, workspace_id: WorkspaceId | None, recorded: Sequence[Recorded]) -> RunReport | None:
    """Of the last run that ended in ``recorded``."""
    events = [one.event for one in recorded]
    ended = [number for number, event in enumerate(events) if isinstance(event, RunFinished)]
    if not ended:
        return None
    finished = events[ended[-1]]
    assert isinstance(finished, RunFinished)
    of_run = events[ended[-2] + 1 if len(ended) > 1 else 0 : ended[-1]]
    checks = [event for event in of_run if isinstance(event, CheckFinished)]
    deliveries = [event for event in of_run if isinstance(event, WorkDelivered)]
    return RunReport(
        task_id=task_id,
        run=finished.run,
        status=RunStatus(finished.status),
        summary=finished.summary,
        code=finished.code,
        usage=finished.usage,
        cost_usd=finished.cost_usd,
        took_s=finished.took_ms / 1000,
        workspace_id=workspace_id,
        check=checks[-1] if checks else None,
        delivered=deliveries[-1] if deliveries else None,
        undelivered=finished.undelivered,
    )
