"""What can be asked of tasks. Everything here is one transaction; the work itself is done by jobs, by whichever worker."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from shadow.core.accounts import ProjectId, UserId
from shadow.core.checkpoints import before_run
from shadow.core.conversation import Usage
from shadow.core.errors import Conflict, Denied, LimitExceeded, NotFound, error_from_code
from shadow.core.events import (
    QueueChanged,
    Recorded,
    RunFinished,
    StateChanged,
    TaskCreated,
    Waiting,
)
from shadow.core.ids import WorkspaceId, make_id
from shadow.core.jobs import Job, JobId, JobState, NewJob
from shadow.core.quota import Budgets
from shadow.core.repositories import LocalRepository, RemoteRepository, Repository
from shadow.core.tasks import Checkpoint, QueuedMessage, Task, TaskId, TaskState, TaskStep, title_of
from shadow.db import checkpoints, events, jobs, messages, spending, tasks
from shadow.db.database import Database, Transaction
from shadow.engine.identity import is_gone
from shadow.tasks.budgets import Spenders
from shadow.tasks.elsewhere import is_elsewhere, other_host
from shadow.tasks.following import follow
from shadow.tasks.kinds import ARCHIVE, DELETE, HIBERNATE, INITIALISE, ROLL_BACK, RUN, clean_up_of
from shadow.tasks.payers import check_payer
from shadow.tasks.refusals import check_message, check_usable, is_in_use
from shadow.tasks.values import RunOptions, TaskSettings, settings_from_json, settings_to_json

_ROOM = 0x5AAD3
"""The lock around what takes one of a user's places."""
MAX_QUEUED = 100
MAX_ATTEMPTS = 20
"""How often a job may be begun without a step done: a worker that is killed costs one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    live_per_owner: int | None = None
    """Tasks with a workspace, or about to have one."""
    budgets: Budgets = field(default_factory=Budgets)
    """Of users for whom no administrator has said anything else."""


@dataclass(slots=True, kw_only=True)
class Tasks:
    database: Database
    shown: Callable[[Repository], str]
    """What names a repository in records. Raises: NotFound, Rejected: for a path that is none."""
    entropy: Callable[[int], bytes]
    limits: TaskLimits = field(default_factory=TaskLimits)
    host: str | None = None
    """Whose workers may do what these tasks need; ``None``: any."""
    credentials: dict[TaskId, RemoteRepository] = field(default_factory=dict[TaskId, RemoteRepository])
    """Repositories whose address held a credential: kept by this process alone, for its own workers."""

    # Beginning

    async def create(
        self,
        repository: Repository,
        instruction: str,
        *,
        model: str,
        settings: TaskSettings,
        owner: str = "local",
        also: Callable[[Transaction, Task], Awaitable[None]] | None = None,
        project_id: ProjectId | None = None,
    ) -> Task:
        """A task whose first run begins when its workspace is ready. ``also``: what else belongs into its transaction.

        Raises: Rejected, NotFound, LimitExceeded.
        """
        check_message(instruction)
        settings.spec(name="")
        task_id = TaskId(make_id("task", entropy=self.entropy(12)))
        shown = self.shown(repository)
        async with self.database.write() as transaction:
            await self._check_room(transaction, owner)
            await self._check_budgets(transaction, owner)
            task = Task(
                id=task_id,
                owner=owner,
                project_id=project_id,
                title=title_of(instruction),
                state=TaskState.STARTING,
                model=model,
                repository=shown,
                settings=settings_to_json(settings),
                host=self.host if isinstance(repository, LocalRepository) else None,
                created_at=transaction.now,
                updated_at=transaction.now,
            )
            await tasks.add(transaction, task)
            told = [TaskCreated(instruction=instruction, repository=shown, model=model), StateChanged(state=task.state)]
            await events.append(transaction, task_id, told)
            await messages.add(transaction, self._message(task_id, instruction))
            await self.add_job(transaction, task, INITIALISE, round=1)
            if also is not None:
                await also(transaction, task)
            if isinstance(repository, RemoteRepository) and repository.credential is not None:
                self.credentials[task_id] = repository  # before any worker can see the task
        return task

    async def _check_room(self, transaction: Transaction, owner: str) -> None:
        await transaction.lock(_ROOM)  # two at once would each see the last place free
        most = self.limits.live_per_owner
        if most is not None and await tasks.count_live(transaction.connection, owner=owner) >= most:
            raise LimitExceeded(
                f"{owner} has {most} tasks with a workspace, as many as are allowed.",
                mend="Archive some (`shadow task archive`), or raise SHADOW_LIMIT_TASKS.",
                details={"limit": "tasks"},
            )

    async def _check_budgets(self, transaction: Transaction, owner: str) -> None:
        await spending.check(transaction.connection, now=transaction.now, defaults=self.limits.budgets, user_id=owner)

    @property
    def spenders(self) -> Spenders:
        return Spenders(database=self.database, defaults=self.limits.budgets)

    async def add_job(self, transaction: Transaction, task: Task, kind: str, **payload: object) -> Job:
        new = NewJob(
            kind=kind,
            payload={"task_id": task.id, **payload},
            task_id=task.id,
            owner=task.owner,
            host=task.host,
            max_attempts=MAX_ATTEMPTS,
        )
        return await jobs.add(transaction, new, job_id=JobId(make_id("job", entropy=self.entropy(12))))

    def _message(self, task_id: TaskId, text: str) -> QueuedMessage:
        return QueuedMessage(id=make_id("msg", entropy=self.entropy(8)), task_id=task_id, text=text)

    # Saying something

    async def send(
        self,
        task_id: TaskId,
        text: str,
        *,
        model: str | None = None,
        options: RunOptions | None = None,
        stop: bool = False,
        also: Callable[[Transaction, QueuedMessage], Awaitable[None]] | None = None,
    ) -> QueuedMessage:
        """Said when the run that goes on has ended, behind what waits. ``stop``: that run is stopped, and this comes first.
        ``also``: what else belongs into the transaction.

        Raises: NotFound, Conflict: nobody will ever hear it; LimitExceeded: too much waits.
        """
        check_message(text)
        message = self._message(task_id, text)
        async with self._opened(task_id) as (transaction, task):
            check_usable(task)
            await check_payer(transaction.connection, task)
            await self._check_budgets(transaction, task.owner)
            if len(await messages.queue(transaction.connection, task_id)) >= MAX_QUEUED:
                raise LimitExceeded(f"{MAX_QUEUED} messages wait already.", mend="Remove some, or wait.")
            if model is not None or options is not None:
                settings = settings_from_json(task.settings)
                settings = replace(settings, options=options or settings.options)
                await tasks.change(transaction, task_id, model=model or task.model, settings=settings_to_json(settings))
            await messages.add(transaction, message, first=stop)
            if stop:
                await self._request_stop(transaction, task_id, RUN)
            await self._request_stop(transaction, task_id, HIBERNATE)
            await self.tell_queue(transaction, task_id)
            open_jobs = await jobs.of_task(transaction.connection, task_id, open_only=True)
            # The end of a start, and of a run that nobody stopped, adds the next one.
            follows = any(job.kind in (INITIALISE, RUN) and not job.stop_requested for job in open_jobs)
            if not follows and task.state is not TaskState.STARTING:
                await self.add_job(transaction, task, RUN)
            if also is not None:
                await also(transaction, message)
        return message

    async def tell_queue(self, transaction: Transaction, task_id: TaskId) -> None:
        waiting = await messages.queue(transaction.connection, task_id)
        told = QueueChanged(messages=tuple(Waiting(id=message.id, text=message.text) for message in waiting))
        await events.append(transaction, task_id, [told])

    async def queue(self, task_id: TaskId) -> Sequence[QueuedMessage]:
        async with self.database.read() as connection:
            return await messages.queue(connection, task_id)

    async def edit(self, task_id: TaskId, message_id: str, text: str) -> None:
        """Raises: NotFound: it is no longer waiting."""
        check_message(text)
        async with self.database.write() as transaction:
            await messages.edit(transaction, task_id, message_id, text)
            await self.tell_queue(transaction, task_id)

    async def remove(self, task_id: TaskId, message_id: str) -> None:
        """Raises: NotFound: it is no longer waiting."""
        async with self.database.write() as transaction:
            await messages.remove(transaction, task_id, message_id)
            await self.tell_queue(transaction, task_id)

    async def reorder(self, task_id: TaskId, message_ids: Sequence[str]) -> None:
        """Raises: Rejected: these are not the messages that wait."""
        async with self.database.write() as transaction:
            await messages.reorder(transaction, task_id, message_ids)
            await self.tell_queue(transaction, task_id)

    # Stopping and going on

    async def stop(self, task_id: TaskId) -> bool:
        """End the run that goes on, within a second; what waits stays in the queue. ``False``: nothing went on."""
        async with self.database.write() as transaction:
            await tasks.get(transaction.connection, task_id)
            return await self._request_stop(transaction, task_id)

    @asynccontextmanager
    async def _opened(self, task_id: TaskId) -> AsyncGenerator[tuple[Transaction, Task]]:
        """The task, mended, which nobody else changes before the end.

        Raises: NotFound; Conflict: it is about to be archived or deleted; OtherHost: nobody will ever work with it.
        """
        try:
            async with self.database.write() as transaction:
                task = await tasks.get(transaction.connection, task_id, for_update=True)
                open_jobs = await jobs.of_task(transaction.connection, task_id, open_only=True)
                self._check_open(task, open_jobs)
                yield transaction, task if open_jobs else await self._mended(transaction, task)
        except (Conflict, LimitExceeded):
            await self.mend(task_id)  # a refusal undid it with the rest
            raise

    def _check_open(self, task: Task, open_jobs: Sequence[Job]) -> None:
        if any(job.kind in (ARCHIVE, DELETE) for job in open_jobs):
            raise Conflict(f"The task {task.id} is about to be archived.", mend="Begin a new one.")
        if is_elsewhere(task, self.host) and not self.database.is_shared:
            raise other_host(task.id, task.host)

    async def mend(self, task_id: TaskId) -> None:
        """The state of a task that no job is open for, where the worker of its last one was lost for good. Raises: NotFound."""
        async with self.database.write() as transaction:
            task = await tasks.get(transaction.connection, task_id, for_update=True)
            if not await jobs.of_task(transaction.connection, task_id, open_only=True):
                await self._mended(transaction, task)

    async def _mended(self, transaction: Transaction, task: Task) -> Task:
        if task.state is TaskState.STARTING:
            return await self.move(transaction, task.id, TaskStep.FAIL)
        if task.state is TaskState.RUNNING:
            lost = RunFinished(
                run=task.runs,
                status="failed",
                summary="Its worker was lost.",
                usage=Usage(),
                cost_usd=None,
                took_ms=0.0,
                code="worker_lost",
            )
            await events.append(transaction, task.id, [lost])
            await tasks.change(transaction, task.id, outcome=lost.status, summary=lost.summary)
            return await self.move(transaction, task.id, TaskStep.END_RUN)
        return task

    async def _request_stop(self, transaction: Transaction, task_id: TaskId, kind: str | None = None) -> bool:
        """``kind``: only of such jobs. A run that nobody has begun will not begin, and what it would have said waits on."""
        open_jobs = await jobs.of_task(transaction.connection, task_id, open_only=True)
        for job in [job for job in open_jobs if kind in (None, job.kind)]:
            if job.kind not in (RUN, HIBERNATE) or not await jobs.cancel_waiting(transaction, job.id):
                await jobs.request_stop(transaction, job.id)
        return bool(open_jobs)

    async def resume(self, task_id: TaskId) -> None:
        """What failed begins again where it failed, what waits is said. Raises: Conflict: there is nothing to resume."""
        async with self._opened(task_id) as (transaction, task):
            if await jobs.of_task(transaction.connection, task_id, open_only=True):
                return  # a worker is at it, or will be
            await check_payer(transaction.connection, task)
            if task.state is TaskState.FAILED:
                if task.workspace_id is None:
                    await self._check_room(transaction, task.owner)
                await self.move(transaction, task_id, TaskStep.RESTART)
                last = [j for j in await jobs.of_task(transaction.connection, task_id) if j.kind == INITIALISE][-1]
                await jobs.revive(transaction, last, {**last.payload, "round": last.payload["round"] + 1})
                return
            check_usable(task)
            if not await messages.queue(transaction.connection, task_id):
                raise Conflict(
                    f"The task {task_id} waits for you: nothing of it was interrupted.",
                    mend=f'Say something: shadow task send {task_id} "…"',
                )
            await self.add_job(transaction, task, RUN)

    async def let_go_of_the_dead(self, task_id: TaskId) -> None:
        """What a process of this host was at that is gone, need not wait for the end of its lease."""
        async with self.database.write() as transaction:
            for job in await jobs.of_task(transaction.connection, task_id, open_only=True):
                if job.worker is not None and self.host is not None and is_gone(job.worker, host=self.host):
                    await jobs.give_up(transaction, job)

    async def move(self, transaction: Transaction, task_id: TaskId, taken: TaskStep) -> Task:
        """To the next state, which readers are told."""
        task = await tasks.move(transaction, task_id, taken)
        await events.append(transaction, task_id, [StateChanged(state=task.state)])
        return task

    # Rolling back

    async def checkpoints(self, task_id: TaskId) -> Sequence[Checkpoint]:
        async with self.database.read() as connection:
            return await checkpoints.all_of(connection, task_id)

    async def before_run(self, task_id: TaskId, run: int) -> str:
        """The last checkpoint from before anything of that run. Raises: NotFound: there is none, and why."""
        return before_run(task_id, run, await self.events(task_id), await self.checkpoints(task_id)).id

    async def roll_back(self, task_id: TaskId, reference: str, *, message: str | None = None) -> Checkpoint:
        """Conversation, files and commit as they were at a checkpoint; then ``message``, in place of what was said there.

        Raises: NotFound; Conflict: a run goes on.
        """
        if message is not None:
            check_message(message)
        async with self._opened(task_id) as (transaction, task):
            check_usable(task)
            checkpoint = await checkpoints.find(transaction.connection, task_id, reference)
            if await jobs.of_task(transaction.connection, task_id, open_only=True):
                raise Conflict("The agent is at work.", mend=f"Stop it first: shadow task stop {task_id}")
            await self.add_job(transaction, task, ROLL_BACK, checkpoint_id=checkpoint.id, message=message)
        return checkpoint

    async def say_first(self, transaction: Transaction, task: Task, text: str) -> None:
        """Before everything that waits, in a run that begins when the caller's job has ended."""
        await messages.add(transaction, self._message(task.id, text), first=True)
        await self.tell_queue(transaction, task.id)
        await self.add_job(transaction, task, RUN)

    # Ending

    async def hibernate(self, task_id: TaskId, *, unchanged_since: float | None = None) -> None:
        """``unchanged_since``: as for ``archive``. Raises: Conflict: it is not idle."""
        async with self._opened(task_id) as (transaction, task):
            open_jobs = await jobs.of_task(transaction.connection, task_id, open_only=True)
            if task.state is TaskState.HIBERNATED or is_in_use(task, open_jobs, since=unchanged_since):
                return
            if task.state is not TaskState.IDLE or open_jobs:
                raise Conflict("The agent is at work.", mend=f"Stop it first: shadow task stop {task_id}")
            await self.add_job(transaction, task, HIBERNATE, if_unused=unchanged_since is not None)

    async def wake(self, workspace_id: WorkspaceId) -> None:
        """Somebody is about to look at a workspace, or to work in it. If it is a task's, that one counts as used and as awake.

        To be said before the workspace is attached to: then no crash leaves one awake that is on record as asleep.
        """
        async with self.database.write() as transaction:
            task = await tasks.of_workspace(transaction.connection, workspace_id, for_update=True)
            if task is None:
                return
            await self._request_stop(transaction, task.id, HIBERNATE)
            if task.state is TaskState.HIBERNATED:
                await self.move(transaction, task.id, TaskStep.WAKE)
            else:
                await tasks.change(transaction, task.id)

    async def archive(self, task_id: TaskId, *, unchanged_since: float | None = None) -> None:
        """Everything but the log is freed, once what goes on has been stopped. Nothing happens where that was asked before.

        ``unchanged_since``: nor where something has happened with the task since then, or goes on.
        """
        await self._end_with(ARCHIVE, task_id, unchanged_since)

    async def delete(self, task_id: TaskId, *, unchanged_since: float | None = None) -> None:
        """As ``archive``, and the log too. Raises: NotFound."""
        await self._end_with(DELETE, task_id, unchanged_since)

    async def _end_with(self, kind: str, task_id: TaskId, unchanged_since: float | None) -> None:
        async with self.database.write() as transaction:
            task = await tasks.get(transaction.connection, task_id, for_update=True)
            open_jobs = await jobs.of_task(transaction.connection, task_id, open_only=True)
            if is_in_use(task, open_jobs, since=unchanged_since):
                return
            if is_elsewhere(task, self.host):
                # The workers of its host may be gone for good: whoever comes first does what is left.
                await jobs.pin(transaction, task_id, None)
                task = replace(task, host=None)
            if any(job.kind == kind for job in open_jobs) or (kind == ARCHIVE and task.state is TaskState.ARCHIVED):
                return
            if not open_jobs:
                await self._mended(transaction, task)
            await self._request_stop(transaction, task_id)
            await self.add_job(transaction, task, kind)

    async def clean_up(self, transaction: Transaction) -> Job:
        """Have the policies looked after on this host now, whatever the schedule says."""
        job_id = JobId(make_id("job", entropy=self.entropy(12)))
        return await jobs.add(transaction, NewJob(kind=clean_up_of(self.host), payload={}, priority=1), job_id=job_id)

    # Looking

    async def check_last_asked(self, task_id: TaskId) -> None:
        """Raises: what the last thing that was asked of the task failed with; of runs their events tell."""
        async with self.database.read() as connection:
            asked = await jobs.of_task(connection, task_id)
        last = asked[-1] if asked else None
        if last is not None and last.kind != RUN and last.state is JobState.FAILED and last.error is not None:
            error = last.error
            raise error_from_code(error["code"], error["message"], mend=error["mend"], details={"task_id": task_id})

    async def find(self, reference: str, *, seen_by: UserId | None = None) -> Task:
        """By its id or a unique beginning of it, among those that are there for them. Raises: NotFound, Conflict."""
        async with self.database.read() as connection:
            return await tasks.find(connection, reference, seen_by=seen_by)

    async def of_workspace(self, workspace_id: WorkspaceId, *, seen_by: UserId | None = None) -> Task:
        """The one that works there. Raises: NotFound."""
        async with self.database.read() as connection:
            found = await tasks.of_workspace(connection, workspace_id, seen_by=seen_by)
        if found is None:
            raise NotFound(f"There is no workspace {workspace_id!r}.")
        return found

    async def check_writable(self, task_id: TaskId, user_id: UserId | None) -> None:
        """``user_id``: who sees it; ``None``: somebody who may do all. Raises: Denied: they only see it."""
        if user_id is None:
            return
        async with self.database.read() as connection:
            if await tasks.hidden_from(connection, user_id, [task_id], writing=True):
                raise Denied("You may read this, and not change it.", mend="Ask for the role member of its project.")

    async def list(
        self,
        *,
        limit: int,
        seen_by: UserId | None = None,
        project_id: ProjectId | None = None,
        states: Collection[TaskState] | None = None,
        before: tuple[float, TaskId] | None = None,
    ) -> Sequence[Task]:
        """Newest first. ``before``: time of creation and id of the last one of the page before."""
        async with self.database.read() as connection:
            return await tasks.newest(
                connection, limit=limit, seen_by=seen_by, project_id=project_id, states=states, before=before
            )

    async def events(self, task_id: TaskId) -> Sequence[Recorded]:
        async with self.database.read() as connection:
            return await events.all_of(connection, task_id)

    def follow(self, task_id: TaskId, *, after: int = 0) -> AsyncGenerator[Recorded]:
        """What the log has behind ``after``, then what comes, until nothing goes on with the task any more."""
        return follow(self.database, task_id, after=after)
