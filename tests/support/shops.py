"""Handlers of tasks without a sandbox: mocked workspaces, and tasks written as they stand in the middle of something."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from shadow.bootstrap import make_repositories, open_artifacts, open_model
from shadow.core.ids import WorkspaceId
from shadow.core.jobs import Job, JobLimits
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db import claims, jobs, tasks
from shadow.db.database import Database, Fence
from shadow.db.group import EventWriter
from shadow.execution.interface import WorkspaceManager
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.settings import Settings
from shadow.tasks.service import Tasks
from shadow.tasks.values import RunOptions, TaskSettings, settings_to_json
from shadow.tasks.workshop import Workshop

HOST = "here"


def make_tasks(database: Database, *, host: str = HOST) -> Tasks:
    return Tasks(database=database, shown=str, entropy=os.urandom, host=host)


def make_shop(asked: Tasks, directory: Path, manager: WorkspaceManager | None = None) -> Workshop:
    settings = Settings(data_dir=directory / "data")
    return Workshop(
        tasks=asked,
        writer=EventWriter(asked.database),
        manager=manager or MockWorkspaceManager(),
        repositories=make_repositories(settings),
        artifacts=open_artifacts(settings),
        open_model=lambda task: open_model(settings, task.model),
        co_authors=[],
        clock=time.time,
        entropy=os.urandom,
    )


async def put_task(
    database: Database,
    state: TaskState,
    *,
    id_: str = "task_a",
    age_s: float = 0.0,
    workspace_id: WorkspaceId | None = None,
    host: str | None = HOST,
    options: RunOptions | None = None,
) -> Task:
    """``age_s``: for how long nothing has happened with it."""
    async with database.write() as transaction:
        task = Task(
            id=TaskId(id_),
            title="",
            state=state,
            model="scripted:/nowhere",
            repository="/nowhere",
            settings=settings_to_json(TaskSettings(options=options or RunOptions())),
            created_at=transaction.now - age_s,
            updated_at=transaction.now - age_s,
            workspace_id=workspace_id,
            host=host,
        )
        await tasks.add(transaction, task)
    return task


async def open_kinds(database: Database, task_id: TaskId) -> list[str]:
    return [job.kind for job in await jobs_of(database, task_id, open_only=True)]


async def jobs_of(database: Database, task_id: TaskId, *, open_only: bool = False) -> list[Job]:
    async with database.read() as connection:
        return list(await jobs.of_task(connection, task_id, open_only=open_only))


async def add_job(asked: Tasks, task: Task, kind: str, **payload: object) -> Job:
    async with asked.database.write() as transaction:
        return await asked.add_job(transaction, task, kind, **payload)


async def leave_half_done(
    asked: Tasks, task: Task, kind: str, recorded: Mapping[str, str], *, host: str = HOST
) -> None:
    """A job of the task, as a worker leaves it that was killed when these steps were on record. Their results: JSON."""
    async with asked.database.write() as transaction:
        await asked.add_job(transaction, task, kind)
        (taken,) = await claims.claim(
            transaction,
            worker="killed",
            host=host,
            kinds=[kind],
            lease_s=60.0,
            limits=JobLimits(),
            wanted=1,
            task_id=task.id,
        )
        fence = Fence(job_id=taken.id, epoch=taken.epoch)
        for name, result in recorded.items():
            await jobs.record_step(transaction, fence, name, result, 1)
        await jobs.give_up(transaction, taken)
