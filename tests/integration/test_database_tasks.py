"""Tasks, queued messages, checkpoints and fences in every kind of database."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadow.core.accounts import UserId
from shadow.core.errors import Conflict, NotFound, Rejected
from shadow.core.events import TextAdded
from shadow.core.ids import WorkspaceId
from shadow.core.repositories import Checkout, UsedRepository
from shadow.core.tasks import Checkpoint, QueuedMessage, Task, TaskId, TaskState, TaskStep
from shadow.db import checkpoints, events, messages, tasks
from shadow.db.database import Database, Fence, Transaction, open_database
from shadow.db.errors import LeaseLost
from tests.support.databases import KINDS, Place, make_place
from tests.support.rows import ID, add_job, add_task, append, log_of, make_task, take_over

pytestmark = pytest.mark.anyio
GONE = TaskId("task_gone")
ODD_TEXTS = (
    "\ud800 half",
    "nul \0 nul",
    "\\ud800 \\u005c \\",
    "日本語 🎉",
    "'; drop table tasks --",
    "",
    "%_",
    "x" * 1024 * 1024,
)


CHECKOUT = Checkout(repository="/r/\udcff", base_branch="main", base_commit="a" * 40, branch="shadow/x", depth=3)


async def get(database: Database, id_: TaskId = ID) -> Task:
    async with database.read() as connection:
        return await tasks.get(connection, id_)


async def find(database: Database, reference: str, *, owner: str | None = None) -> TaskId:
    async with database.read() as connection:
        return (await tasks.find(connection, reference, seen_by=owner)).id


# Tasks


async def test_a_task_comes_back_as_it_was(database: Database) -> None:
    full = replace(
        make_task(),
        checkout=CHECKOUT,
        owner="somebody",
        settings={"check": "make \0", "limits": {"steps": 3, "cost": None}, "egress": ["pypi"], "half": "\ud800"},
        workspace_id=WorkspaceId("ws_1"),
        host="one.example",
        outcome="done",
        summary="It \0 works",
        runs=3,
        created_at=1764000000.123456,
    )
    async with database.write() as transaction:
        await tasks.add(transaction, full)
    assert await get(database) == full


async def test_a_task_is_there_once(database: Database) -> None:
    await add_task(database)
    with pytest.raises(Conflict):
        await add_task(database)
    assert (await get(database)).id == ID


async def test_columns_of_a_task_change_and_the_rest_stays(database: Database) -> None:
    await add_task(database)
    before = await get(database)
    async with database.write() as transaction:
        await tasks.change(transaction, ID, outcome="done", settings={"a": 1}, checkout=None)
        at = transaction.now
    assert await get(database) == replace(before, outcome="done", settings={"a": 1}, updated_at=at)


async def test_a_task_moves_only_where_it_may(database: Database) -> None:
    await add_task(database)
    async with database.write() as transaction:
        moved = await tasks.move(transaction, ID, TaskStep.BE_READY)
    assert moved.state is TaskState.IDLE
    assert await get(database) == moved
    with pytest.raises(Conflict):
        async with database.write() as transaction:
            await tasks.move(transaction, ID, TaskStep.END_RUN)
    with pytest.raises(NotFound):
        async with database.write() as transaction:
            await tasks.move(transaction, GONE, TaskStep.END_RUN)
    assert await get(database) == moved


async def test_only_one_of_many_moves_a_task(shared_place: Place) -> None:
    async with shared_place.open() as one, shared_place.open() as other:
        await add_task(one)

        async def begin(database: Database) -> None:
            async with database.write() as transaction:
                await tasks.move(transaction, ID, TaskStep.BE_READY)

        outcomes = await asyncio.gather(*(begin(one if n % 2 else other) for n in range(10)), return_exceptions=True)
        assert [type(o) for o in outcomes].count(Conflict) == 9


async def test_tasks_are_found_by_the_beginning_of_their_id(database: Database) -> None:
    for id_ in ("task_aa1", "task_aa2", "task_b%_", "task_c", "task_c1", "task_c2", "task_c3"):
        await add_task(database, id_)
    assert await find(database, "task_aa1") == "task_aa1"
    assert await find(database, "aa2") == "task_aa2"
    assert await find(database, "b") == "task_b%_"
    assert await find(database, "task_c") == "task_c"
    for several in ("a", "c", "task_", "task"):
        with pytest.raises((Conflict, NotFound)):
            await find(database, several)
    nobody = ("", "d", "%", "_", "b__", "\udcff", "é", "task_aa11", "\0", "task_\0", "a" * 100, "aa1\n", "aa1'")
    for nothing in nobody:
        with pytest.raises(NotFound):
            await find(database, nothing)
        with pytest.raises(NotFound):
            await get(database, TaskId(nothing))


async def test_a_task_of_somebody_else_is_not_found(database: Database) -> None:
    await add_task(database)
    assert await find(database, "one", owner="local") == ID
    with pytest.raises(NotFound):
        await find(database, "one", owner="eve")


async def test_tasks_are_listed_newest_first_and_in_pages(database: Database) -> None:
    made = [await add_task(database, f"task_{number}", created_at=number // 2) for number in range(7)]
    async with database.read() as connection:
        everything = [t.id for t in await tasks.newest(connection)]
        assert everything == ["task_6", "task_4", "task_5", "task_2", "task_3", "task_0", "task_1"]
        assert [t.id for t in await tasks.newest(connection, limit=3)] == everything[:3]
        assert await tasks.newest(connection, seen_by="eve") == []
        assert await tasks.newest(connection, states=[TaskState.IDLE]) == []
        assert await tasks.newest(connection, states=[]) == []
        assert len(await tasks.newest(connection, seen_by="local", states=TaskState)) == len(made)
        paged: list[str] = []
        before: tuple[float, TaskId] | None = None
        while page := await tasks.newest(connection, limit=2, before=before):
            paged += [t.id for t in page]
            before = page[-1].created_at, page[-1].id
        assert paged == everything


async def test_tasks_are_counted_and_found_by_state_and_age(database: Database) -> None:
    for number in range(3):
        await add_task(database, f"task_{number}", created_at=number)
    async with database.read() as connection:
        assert await tasks.count_live(connection, owner="local") == 3
        assert await tasks.count_live(connection, owner="eve") == 0
        old = await tasks.unchanged_since(connection, 2, states=[TaskState.STARTING], host="here")
        assert [t.id for t in old] == ["task_0", "task_1"]
        assert await tasks.unchanged_since(connection, 2, states=[TaskState.IDLE], host="here") == []
    async with database.write() as transaction:
        await tasks.move(transaction, TaskId("task_0"), TaskStep.BE_READY)
        await tasks.move(transaction, TaskId("task_1"), TaskStep.BE_READY)
        await tasks.change(transaction, TaskId("task_1"), workspace_id="ws_1", host="here")
    async with database.read() as connection:
        here = await tasks.with_workspace(connection, host="here", states=[TaskState.IDLE])
        assert [found[:2] for found in here] == [("task_1", "ws_1")]
        assert await tasks.with_workspace(connection, host="there", states=[TaskState.IDLE]) == []
        assert await tasks.with_workspace(connection, host=None, states=[TaskState.IDLE]) == []
        assert await tasks.with_workspace(connection, host="here", states=[TaskState.FAILED]) == []
        for host, ids in (("here", ["task_0", "task_1"]), ("there", ["task_0"])):
            idle = await tasks.unchanged_since(connection, 1e12, states=[TaskState.IDLE], host=host)
            assert sorted(t.id for t in idle) == ids
        assert await tasks.count_live(connection, owner="local") == 2  # one that begins, one with a workspace


async def test_a_deleted_task_takes_everything_with_it(database: Database) -> None:
    await add_task(database)
    await append(database, "a")
    await add_job(database, "job_one", task_id=ID)
    async with database.write() as transaction:
        await messages.add(transaction, QueuedMessage(id="msg_1", task_id=ID, text="x"))
        await checkpoints.add(transaction, checkpoint(1))
    for _ in range(2):
        async with database.write() as transaction:
            await tasks.delete(transaction, ID)
    async with database.read() as connection:
        assert await messages.queue(connection, ID) == []
        assert await checkpoints.all_of(connection, ID) == []
    assert await log_of(database) == []
    with pytest.raises(LeaseLost):
        async with database.write(fence=Fence(job_id="job_one", epoch=1)):
            pass


@pytest.mark.parametrize("odd", ODD_TEXTS, ids=lambda odd: ascii(odd[:20]))
async def test_any_text_comes_back_as_it_was(database: Database, odd: str) -> None:
    await add_task(database, title=odd)
    async with database.write() as transaction:
        await tasks.change(transaction, ID, summary=odd, repository=odd)
        await messages.add(transaction, QueuedMessage(id="msg_1", task_id=ID, text=odd))
    await append(database, odd)
    found = await get(database)
    assert (found.title, found.summary, found.repository) == (odd, odd, odd)
    assert [r.event for r in await log_of(database)] == [TextAdded(text=odd)]
    async with database.read() as connection:
        assert [message.text for message in await messages.queue(connection, ID)] == [odd]


async def test_repositories_are_those_of_the_tasks_that_one_sees(database: Database) -> None:
    names = ["/r \udcff", "https://x/y.git", "\\u005c", "nul \0", "Z", "a", "\u00e4"]
    async with database.write() as transaction:
        for number, name in enumerate([*names, *names[:3]]):
            task = replace(make_task(f"task_{number}", created_at=float(number // 2)), repository=name, owner="me")
            await tasks.add(transaction, task)
        await tasks.add(transaction, replace(make_task("task_else", created_at=99.0), repository="else", owner="you"))
    seen: list[UsedRepository] = []
    before: tuple[float, str] | None = None
    async with database.read() as connection:
        while page := await tasks.repositories(connection, limit=2, seen_by=UserId("me"), before=before):
            seen += page
            before = (page[-1].used_at, page[-1].repository)
        everything = await tasks.repositories(connection, limit=100)
    assert {one.repository: one.tasks for one in seen} == {name: 2 if name in names[:3] else 1 for name in names}
    assert len(seen) == len(names)
    assert [one.used_at for one in seen] == [4.0, 4.0, 3.0, 3.0, 2.0, 2.0, 1.0]
    assert [one.repository for one in everything] == ["else", *(one.repository for one in seen)]


async def test_the_last_event_of_a_kind_is_found(database: Database) -> None:
    await add_task(database)
    await append(database, "one", "two")
    async with database.read() as connection:
        last = await events.last_of(connection, ID, "text_added")
        assert last is not None
        assert (last.seq, last.event) == (2, TextAdded(text="two"))
        assert await events.last_of(connection, ID, "run_started") is None
        some = await events.of_kinds(connection, ID, ["text_added"], after=1, limit=1)
        assert [one.seq for one in some] == [2]


# Fences


async def test_a_fence_holds_for_its_epoch_of_a_running_job_alone(database: Database) -> None:
    await add_task(database)
    fence = await add_job(database, "job_one", epoch=2)
    async with database.write(fence=fence) as transaction:
        await transaction.check(fence)
    for other in (replace(fence, epoch=1), replace(fence, epoch=3), replace(fence, job_id="job_none")):
        with pytest.raises(LeaseLost):
            async with database.write(fence=other) as transaction:
                raise AssertionError("nothing is done under it")
    async with database.write() as transaction:
        await take_over(transaction.connection, "job_one")
    with pytest.raises(LeaseLost):
        await _write_late(database, fence)
    assert (await get(database)).title == "Mend it"


async def _write_late(database: Database, fence: Fence) -> None:
    async with database.write() as transaction:
        await tasks.change(transaction, ID, title="late")
        await transaction.check(fence)


async def test_a_job_is_not_taken_over_in_the_middle_of_what_its_worker_writes(shared_place: Place) -> None:
    async with shared_place.open() as ours, shared_place.open() as others:
        await add_task(ours)
        fence = await add_job(ours, "job_one")
        order: list[str] = []

        async def take() -> None:
            async with others.write() as transaction:
                await take_over(transaction.connection, "job_one")
                order.append("taken")

        async with ours.write(fence=fence) as transaction:
            taking = asyncio.create_task(take())
            await asyncio.wait({taking}, timeout=0.2)
            await tasks.change(transaction, ID, title="in time")
            order.append("written")
        await taking
        assert order == ["written", "taken"]
        assert (await get(others)).title == "in time"


# Checkpoints


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(
        id=f"cp_{number}",
        task_id=ID,
        seq=number,
        run=1,
        branch="shadow/\udcff",
        head=None,
        tree_commit="a" * 40,
        created_at=float(number),
    )


async def test_checkpoints_come_back_in_order_and_by_the_beginning_of_their_id(database: Database) -> None:
    await add_task(database)
    made = [checkpoint(number) for number in (12, 3, 1)]
    for each in made:
        async with database.write() as transaction:
            await checkpoints.add(transaction, each)
    async with database.read() as connection:
        assert await checkpoints.all_of(connection, ID) == made[::-1]
        assert await checkpoints.find(connection, ID, "cp_3") == made[1]
        assert await checkpoints.find(connection, ID, "cp_1") == made[2]
        with pytest.raises(Conflict):
            await checkpoints.find(connection, ID, "cp")
        for nothing in ("", "cp_4", "\0", "\udcff"):
            with pytest.raises(NotFound):
                await checkpoints.find(connection, ID, nothing)
        with pytest.raises(NotFound):
            await checkpoints.find(connection, TaskId("\0"), "cp_1")
    with pytest.raises(Conflict):
        async with database.write() as transaction:
            await checkpoints.add(transaction, replace(checkpoint(3), id="cp_other"))


# Queued messages


async def queue(database: Database, task_id: TaskId = ID) -> Sequence[QueuedMessage]:
    async with database.read() as connection:
        return await messages.queue(connection, task_id)


async def add(database: Database, number: int, *, first: bool = False) -> None:
    async with database.write() as transaction:
        await messages.add(transaction, QueuedMessage(id=f"msg_{number}", task_id=ID, text=str(number)), first=first)


async def test_what_is_not_there_is_not_found(database: Database) -> None:
    await add_task(database)
    await add_task(database, "task_two")
    await add(database, 1)
    for task_id, message_id in (
        (ID, "msg_none"),
        (TaskId("task_two"), "msg_1"),
        (GONE, "msg_1"),
        (ID, "\0"),
        (ID, "\ud800"),
    ):
        with pytest.raises(NotFound):
            async with database.write() as transaction:
                await messages.edit(transaction, task_id, message_id, "other")
        with pytest.raises(NotFound):
            async with database.write() as transaction:
                await messages.remove(transaction, task_id, message_id)
    with pytest.raises(NotFound):
        async with database.write() as transaction:
            await messages.add(transaction, QueuedMessage(id="msg_2", task_id=GONE, text="x"))
    with pytest.raises(NotFound):
        async with database.write() as transaction:
            await messages.take(transaction, GONE)
    assert [message.text for message in await queue(database)] == ["1"]


async def test_each_message_is_taken_once_however_many_take(shared_place: Place) -> None:
    async with shared_place.open() as one, shared_place.open() as other:
        await add_task(one)
        await asyncio.gather(*(add(one if n % 2 else other, n) for n in range(12)))
        assert {message.text for message in await queue(one)} == {str(n) for n in range(12)}

        async def take(database: Database) -> QueuedMessage | None:
            async with database.write() as transaction:
                return await messages.take(transaction, ID)

        taken = await asyncio.gather(*(take(one if n % 2 else other) for n in range(16)))
        texts = [message.text for message in taken if message is not None]
        assert sorted(texts, key=int) == [str(n) for n in range(12)]
        assert await queue(one) == []


async def test_a_change_of_the_queue_wakes_who_waits_for_it(database: Database) -> None:
    await add_task(database)
    with database.feed.subscribe(ID) as news:
        await asyncio.sleep(0)
        await news.wait(0.2)
        await add(database, 1)
        async with asyncio.timeout(1):
            await news.wait(60)


@dataclass(frozen=True)
class Act:
    what: str
    number: int
    order: tuple[int, ...] = field(default=())


ACTS = st.lists(
    st.builds(
        Act,
        what=st.sampled_from(["add", "add", "add_first", "take", "remove", "edit", "reorder", "misorder"]),
        number=st.integers(0, 5),
        order=st.permutations(range(6)).map(tuple),
    ),
    max_size=25,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_a_queue_is_a_list(kind: str, acts: Sequence[Act], tmp_path_factory: pytest.TempPathFactory) -> None:
    asyncio.run(_check_queue(_place_of(kind, tmp_path_factory), acts))


_PLACES: dict[str, Place] = {}


def _place_of(kind: str, factory: pytest.TempPathFactory) -> Place:
    """One for all examples, each of which has a task of its own."""
    if kind not in _PLACES:
        _PLACES[kind] = make_place(kind, factory.mktemp("queue"))
    return _PLACES[kind]


_TASKS = iter(range(1_000_000))


async def _check_queue(place: Place, acts: Sequence[Act]) -> None:
    async with place.open() as database:
        task_id = await add_task(database, f"task_q{next(_TASKS)}")
        model: list[tuple[str, str]] = []
        for step, act in enumerate(acts):
            before = list(model)
            try:
                async with database.write() as transaction:
                    await _act(transaction, task_id, act, step, model)
            except (NotFound, Rejected):
                assert model == before
            assert [(m.id, m.text) for m in await queue(database, task_id)] == model


async def _act(transaction: Transaction, task_id: TaskId, act: Act, step: int, model: list[tuple[str, str]]) -> None:
    there = model[act.number][0] if act.number < len(model) else f"{task_id}_none"
    match act.what:
        case "add" | "add_first":
            new = QueuedMessage(id=f"{task_id}_{step}", task_id=task_id, text=str(step))
            await messages.add(transaction, new, first=act.what == "add_first")
            model.insert(0 if act.what == "add_first" else len(model), (new.id, new.text))
        case "take":
            taken = await messages.take(transaction, task_id)
            assert (taken and (taken.id, taken.text)) == (model.pop(0) if model else None)
        case "remove":
            await messages.remove(transaction, task_id, there)
            del model[act.number]
        case "edit":
            await messages.edit(transaction, task_id, there, "edited")
            model[act.number] = there, "edited"
        case "reorder":
            order = [number for number in act.order if number < len(model)]
            order += range(6, len(model))
            await messages.reorder(transaction, task_id, [model[number][0] for number in order])
            model[:] = [model[number] for number in order]
        case _:
            ids = [id_ for id_, _ in model]
            await messages.reorder(transaction, task_id, [*ids, *(ids[:1] or ["none"])])
            raise AssertionError("an order with one too many is refused")


async def test_two_databases_in_memory_are_two() -> None:
    async with open_database(Path("/nowhere"), url="sqlite://") as one:
        async with open_database(Path("/nowhere"), url="sqlite://") as other:
            await add_task(one)
            with pytest.raises(NotFound):
                await get(other)
