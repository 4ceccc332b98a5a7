"""What workspaces take: each second on a meter counts once, whoever reads it and how often."""

from dataclasses import replace

import pytest

from shadow.core.concurrency import task_group
from shadow.core.errors import NotFound
from shadow.core.ids import WorkspaceId
from shadow.core.quota import Spending
from shadow.core.tasks import Task, TaskState
from shadow.core.workspaces import CpuTime
from shadow.db import measurements, spending, tasks
from shadow.db.database import Database
from tests.support.databases import Place
from tests.support.rows import make_task

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600.0
NOON = 1795608000.0  # 2026-11-25 12:00 UTC
TASK = make_task("task_one").id


async def add(database: Database, *names: str, owner: str = "ann", **values: object) -> None:
    async with database.write() as transaction:
        for name in names:
            await tasks.add(transaction, replace(make_task(f"task_{name}"), owner=owner, **values))  # type: ignore[arg-type]


async def note(database: Database, since: float, used_s: float, name: str = "task_one") -> None:
    async with database.write() as transaction:
        await measurements.note_cpu(transaction, make_task(name).id, CpuTime(since=since, used_s=used_s))


async def spent_by(database: Database, user_id: str = "ann", *, now: float | None = None) -> Spending:
    async with database.read() as connection:
        at = await database.now(connection) if now is None else now
        return (await spending.spending_of(connection, now=at, user_id=user_id)).get(user_id, Spending())


async def test_what_is_new_on_a_meter_counts_once(database: Database) -> None:
    await add(database, "one")
    for since, used_s, total_s in (
        (100.0, 1.5, 1.5),
        (100.0, 1.5, 1.5),  # a repeat
        (100.0, 1.25, 1.5),  # what was read before, told late
        (100.0, 2.0, 2.0),
        (200.0, 0.5, 2.5),  # its processes were started again
        (100.0, 9.0, 2.5),  # of a meter that is gone
        (200.0, 0.75, 2.75),
    ):
        await note(database, since, used_s)
        assert (await spent_by(database)).day.cpu_s == total_s
    async with database.read() as connection:
        for read, news in ((CpuTime(since=200.0, used_s=0.75), False), (CpuTime(since=200.0, used_s=0.8), True)):
            assert await measurements.has_news(connection, TASK, read) is news


async def test_readers_beside_each_other_count_nothing_twice(shared_place: Place) -> None:
    async with shared_place.open() as one, shared_place.open() as other:
        await add(one, "one")
        async with task_group() as group:
            for number in range(40):
                group.create_task(note((one, other)[number % 2], 100.0, (number // 4 + 1) / 10))
        assert (await spent_by(one)).month.cpu_s == 1.0


async def test_it_counts_on_the_day_on_which_it_was_read_and_stays(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    now = NOON
    place = Place(kind="sqlite", data_dir=tmp_path_factory.mktemp("data"))
    async with place.open(clock=lambda: now) as database:
        await add(database, "one")
        await note(database, 1.0, 10.0)
        now = NOON + DAY_S
        await note(database, 1.0, 13.0)
        found = await spent_by(database)
        assert (found.day.cpu_s, found.month.cpu_s) == (3.0, 13.0)
        async with database.write() as transaction:
            await tasks.delete(transaction, TASK)
        assert (await spent_by(database)).month.cpu_s == 13.0
        with pytest.raises(NotFound):
            await note(database, 1.0, 14.0)
        now = NOON + 500 * DAY_S
        async with database.write() as transaction:
            await spending.forget_old(transaction)
        assert await spent_by(database, now=NOON) == Spending()


async def test_storage_is_that_of_the_tasks_that_there_are(database: Database) -> None:
    await add(database, "one", "two")
    await add(database, "three", owner="bob")
    async with database.write() as transaction:
        for name, size in (("one", 100), ("one", 10), ("two", 5), ("three", 2**70)):
            id_ = make_task(f"task_{name}").id
            await measurements.note_size(transaction, id_, workspace_bytes=size, artifact_bytes=1)
    assert (await spent_by(database)).storage_bytes == 17
    assert (await spent_by(database, "bob")).storage_bytes == 2**50 + 1
    async with database.write() as transaction:
        await tasks.delete(transaction, TASK)
    assert (await spent_by(database)).storage_bytes == 6


async def test_what_has_changed_or_is_awake_is_measured_again(database: Database) -> None:
    async def due(host: str | None = "here") -> list[str]:
        async with database.read() as connection:
            found = await measurements.unsized(
                connection, host=host, now=await database.now(connection), older_than_s=3600.0, limit=10
            )
        return [task.id for task in found]

    def at(name: str, state: TaskState, *, workspace: bool = True) -> Task:
        id_ = WorkspaceId(f"ws_{name}") if workspace else None
        return replace(make_task(f"task_{name}"), state=state, host="here", workspace_id=id_)

    async with database.write() as transaction:
        for task in (
            at("idle", TaskState.IDLE),
            at("asleep", TaskState.HIBERNATED),
            at("gone", TaskState.ARCHIVED, workspace=False),
        ):
            await tasks.add(transaction, task)
    assert await due() == ["task_asleep", "task_idle"]
    assert await due("elsewhere") == []
    for name in ("task_idle", "task_asleep"):
        async with database.write() as transaction:
            await measurements.note_size(transaction, make_task(name).id, workspace_bytes=1, artifact_bytes=0)
    assert await due() == []
    async with database.write() as transaction:
        await tasks.change(transaction, make_task("task_asleep").id)
    assert await due() == ["task_asleep"]
    async with database.read() as connection:
        later = await database.now(connection) + 4000.0
        found = await measurements.unsized(connection, host="here", now=later, older_than_s=3600.0, limit=10)
    assert [task.id for task in found] == ["task_idle", "task_asleep"]
