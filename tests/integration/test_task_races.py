"""A task that is used at the very moment at which it would end, or sleep: nothing that was said is lost, and no record lies."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec
from shadow.core.conversation import Usage
from shadow.core.errors import Conflict
from shadow.core.events import RunFinished, RunStarted
from shadow.core.ids import WorkspaceId
from shadow.core.jobs import OPEN_STATES
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.core.workspaces import WorkspaceSpec, WorkspaceState, WorkspaceStatus
from shadow.db.codec import encode_event
from shadow.db.database import Database
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.tasks import kinds
from shadow.tasks.ending import Archiving, CleaningUp, CleanupPolicy, Hibernating
from shadow.tasks.running import BEGIN, FINISH, START, Running
from shadow.tasks.service import Tasks
from shadow.tasks.steps import Step
from shadow.tasks.values import RunOptions
from tests.support.databases import Place
from tests.support.jobs import ended, worker
from tests.support.shops import HOST, jobs_of, leave_half_done, make_shop, make_tasks, open_kinds, put_task
from tests.support.waiting import until

pytestmark = pytest.mark.anyio
OLD_S = 1000.0
UNUSED_S = 500.0
RACES = 100


@pytest.fixture
async def two(shared_place: Place) -> AsyncGenerator[tuple[Tasks, Tasks]]:
    """Two processes, as far as the database can see."""
    async with shared_place.open() as one, shared_place.open() as other:
        yield make_tasks(one), make_tasks(other)


async def found(tasks: Tasks, task: Task) -> Task:
    return await tasks.find(task.id)


async def said(tasks: Tasks, task: Task) -> list[str]:
    return [message.text for message in await tasks.queue(task.id)]


# Policies


class Watched(MockWorkspaceManager):
    """Does something once: when a policy has chosen a task and looks whether anybody is in its workspace."""

    def __init__(self, meanwhile: Callable[[WorkspaceId], Awaitable[object]]) -> None:
        super().__init__()
        self._meanwhile: list[Callable[[WorkspaceId], Awaitable[object]]] = [meanwhile]

    async def status(self, workspace_id: WorkspaceId, *, measure: bool = False) -> WorkspaceStatus:
        while self._meanwhile:
            await self._meanwhile.pop()(workspace_id)
        return await super().status(workspace_id, measure=measure)


@pytest.mark.parametrize("used_by", ["a message", "a look", "nobody"])
@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        (CleanupPolicy(hibernate_after_s=UNUSED_S, archive_after_s=None), kinds.HIBERNATE),
        (CleanupPolicy(hibernate_after_s=None, archive_after_s=UNUSED_S), kinds.ARCHIVE),
    ],
)
async def test_a_task_that_is_used_between_a_policys_look_and_its_act_is_left_alone(
    two: tuple[Tasks, Tasks], tmp_path: Path, policy: CleanupPolicy, kind: str, used_by: str
) -> None:
    tasks, others = two

    async def use(workspace_id: WorkspaceId) -> None:
        if used_by == "a message":
            await others.send(task.id, "just now")
        elif used_by == "a look":
            await others.wake(workspace_id)

    manager = Watched(use)
    workspace = await manager.create(WorkspaceSpec())
    task = await put_task(tasks.database, TaskState.IDLE, age_s=OLD_S, workspace_id=workspace.id)
    async with worker(
        tasks.database, {kinds.clean_up_of(HOST): CleaningUp(make_shop(tasks, tmp_path, manager), policy)}, host=HOST
    ):
        async with tasks.database.write() as transaction:
            job = await tasks.clean_up(transaction)
        await ended(tasks.database, job.id)
    expected = {"a message": [kinds.RUN], "a look": [], "nobody": [kind]}
    assert await open_kinds(tasks.database, task.id) == expected[used_by]
    assert await said(tasks, task) == (["just now"] if used_by == "a message" else [])


@pytest.mark.parametrize("how", [kinds.HIBERNATE, kinds.ARCHIVE])
async def test_a_message_and_a_policy_at_the_same_moment(two: tuple[Tasks, Tasks], how: str) -> None:
    mine, others = two
    for number in range(RACES):
        task = await put_task(mine.database, TaskState.IDLE, id_=f"task_{number}", age_s=OLD_S)
        at = task.updated_at + UNUSED_S
        end = others.hibernate if how == kinds.HIBERNATE else others.archive
        both = [mine.send(task.id, "just now"), end(task.id, unchanged_since=at)]
        if number % 2:
            message, acted = await asyncio.gather(*both, return_exceptions=True)
        else:
            acted, message = await asyncio.gather(*reversed(both), return_exceptions=True)
        assert acted is None
        if isinstance(message, Conflict):  # the policy was first, and whoever speaks is told
            assert how == kinds.ARCHIVE
            assert (await open_kinds(mine.database, task.id), await said(mine, task)) == ([kinds.ARCHIVE], [])
        else:
            assert not isinstance(message, BaseException), message
            assert (await open_kinds(mine.database, task.id), await said(mine, task)) == ([kinds.RUN], ["just now"])


# Falling asleep


async def test_who_looks_at_a_task_that_is_being_put_to_sleep_finds_it_on_record_as_awake(
    two: tuple[Tasks, Tasks], tmp_path: Path
) -> None:
    mine, others = two
    draw = random.Random(6)
    manager = MockWorkspaceManager()
    shop = make_shop(mine, tmp_path, manager)
    async with worker(mine.database, {kinds.HIBERNATE: Hibernating(shop)}, host=HOST):
        for number in range(RACES // 2):
            workspace = await manager.create(WorkspaceSpec())
            task = await put_task(
                mine.database, TaskState.IDLE, id_=f"task_{number}", workspace_id=workspace.id, age_s=OLD_S
            )
            await mine.hibernate(task.id)
            await asyncio.sleep(draw.uniform(0, 0.02))
            await others.wake(workspace.id)
            (job,) = await jobs_of(mine.database, task.id)
            await ended(mine.database, job.id)
            after = await found(mine, task)
            assert after.state is TaskState.IDLE, (number, await mine.events(task.id))
            assert after.updated_at > task.updated_at + UNUSED_S


async def test_a_task_that_nobody_looks_at_falls_asleep_and_a_look_wakes_it(
    two: tuple[Tasks, Tasks], tmp_path: Path
) -> None:
    tasks, _ = two
    manager = MockWorkspaceManager()
    workspace = await manager.create(WorkspaceSpec())
    task = await put_task(tasks.database, TaskState.IDLE, workspace_id=workspace.id)
    async with worker(tasks.database, {kinds.HIBERNATE: Hibernating(make_shop(tasks, tmp_path, manager))}, host=HOST):
        await tasks.hibernate(task.id)
        await ended(tasks.database, (await jobs_of(tasks.database, task.id))[0].id)
    assert (await found(tasks, task)).state is TaskState.HIBERNATED
    assert (await manager.status(workspace.id)).state is WorkspaceState.STOPPED
    asleep = await found(tasks, task)
    await tasks.wake(workspace.id)
    awake = await found(tasks, task)
    assert awake.state is TaskState.IDLE
    assert awake.updated_at > asleep.updated_at
    await tasks.wake(WorkspaceId("ws_of_nobody"))


async def test_a_policy_lets_those_be_who_began_to_work_after_it_had_looked(
    two: tuple[Tasks, Tasks], tmp_path: Path
) -> None:
    tasks, _ = two
    manager = MockWorkspaceManager()
    workspace = await manager.create(WorkspaceSpec())
    task = await put_task(tasks.database, TaskState.IDLE, workspace_id=workspace.id, age_s=OLD_S)
    async with await manager.attach(workspace.id) as executor:
        command = await executor.start(CommandSpec(argv=("sleep", "600")))
        async with worker(
            tasks.database, {kinds.HIBERNATE: Hibernating(make_shop(tasks, tmp_path, manager))}, host=HOST
        ):
            await tasks.hibernate(task.id, unchanged_since=task.updated_at)
            await ended(tasks.database, (await jobs_of(tasks.database, task.id))[-1].id)
            assert (await found(tasks, task)).state is TaskState.IDLE
            assert (await executor.get_command(command.id)).ending is None
            await tasks.hibernate(task.id)  # a person says so
            await ended(tasks.database, (await jobs_of(tasks.database, task.id))[-1].id)
    assert (await found(tasks, task)).state is TaskState.HIBERNATED


# A run that would end its task


def run_record() -> dict[str, str]:
    """Of a run whose work is done and delivered."""
    finished = RunFinished(
        run=1, status="done", summary="Did it.", usage=Usage(), cost_usd=None, took_ms=1.0, code=None
    )
    return {
        BEGIN: json.dumps({"number": 1, "text": "x", "slept": False}),
        START: "null",
        Step.DELIVER: "null",
        FINISH: json.dumps(encode_event(finished)),
    }


async def run_about_to_end(tasks: Tasks, number: int) -> Task:
    task = await put_task(
        tasks.database, TaskState.RUNNING, id_=f"task_{number}", options=RunOptions(keep=False), host=HOST
    )
    await leave_half_done(tasks, task, kinds.RUN, run_record())
    return task


async def started(tasks: Tasks, task_id: TaskId) -> list[str]:
    return [one.event.message.text for one in await tasks.events(task_id) if isinstance(one.event, RunStarted)]


async def all_ended(database: Database, task_id: TaskId) -> bool:
    return all(job.state not in OPEN_STATES for job in await jobs_of(database, task_id))


@pytest.mark.parametrize("messages", [0, 1, 2])
async def test_what_was_said_during_a_run_that_would_end_its_task_is_heard_first(
    two: tuple[Tasks, Tasks], tmp_path: Path, messages: int
) -> None:
    tasks, others = two
    task = await run_about_to_end(tasks, 0)
    for number in range(messages):
        await others.send(task.id, f"and {number}")
    shop = make_shop(tasks, tmp_path)
    async with worker(tasks.database, {kinds.RUN: Running(shop), kinds.ARCHIVE: Archiving(shop)}, host=HOST):
        await until(lambda: all_ended(tasks.database, task.id), within_s=30)
    assert await started(tasks, task.id) == [f"and {number}" for number in range(messages)]
    assert (await found(tasks, task)).state is TaskState.ARCHIVED
    left = [job.kind for job in await jobs_of(tasks.database, task.id)]
    assert left == [kinds.RUN] * (messages + 1) + [kinds.ARCHIVE]


async def test_what_is_said_as_a_run_ends_its_task_is_heard_or_refused(
    two: tuple[Tasks, Tasks], tmp_path: Path
) -> None:
    tasks, others = two
    draw = random.Random(4)
    shop = make_shop(tasks, tmp_path)
    async with worker(tasks.database, {kinds.RUN: Running(shop), kinds.ARCHIVE: Archiving(shop)}, host=HOST):
        for number in range(RACES // 4):
            task = await run_about_to_end(tasks, number)
            await asyncio.sleep(draw.uniform(0, 0.03))
            try:
                await others.send(task.id, "just now")
                heard = ["just now"]
            except Conflict:
                heard = []
            await until(lambda task_id=task.id: all_ended(tasks.database, task_id), within_s=30)
            assert await started(tasks, task.id) == heard
            assert await said(tasks, task) == []
            assert (await found(tasks, task)).state is TaskState.ARCHIVED
