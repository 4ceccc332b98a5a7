"""What users spend, counted with the events that say so: once each, and none without its event."""

from dataclasses import replace
from decimal import Decimal

import pytest

from shadow.core.conversation import AssistantMessage, Usage
from shadow.core.events import ModelAnswered, TextAdded
from shadow.core.quota import Budgets, BudgetSpent, Spending
from shadow.db import events, spending, tasks
from shadow.db.database import Database
from shadow.db.group import EventWriter
from shadow.tasks.budgets import Spenders
from tests.support.databases import Place
from tests.support.rows import make_task

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600.0
NOON = 1795608000.0  # 2026-11-25 12:00 UTC


def answered(tokens_in: int, tokens_out: int, cost: str | None) -> ModelAnswered:
    usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
    return ModelAnswered(message=AssistantMessage(parts=(), model="m", usage=usage), took_ms=1.0, cost_usd=cost)


async def add_tasks(database: Database, **owners: str) -> None:
    async with database.write() as transaction:
        for name, owner in owners.items():
            await tasks.add(transaction, replace(make_task(f"task_{name}"), owner=owner))


async def spent(database: Database, now: float, user_id: str | None = None) -> dict[str, Spending]:
    async with database.read() as connection:
        return dict(await spending.spending_of(connection, now=now, user_id=user_id))


async def test_each_answer_counts_once_for_the_owner_of_its_task(place: Place) -> None:
    now = NOON
    async with place.open(clock=lambda: now) as database:
        await add_tasks(database, one="ann", two="bob")
        async with database.write() as transaction:
            told = [TextAdded(text="x"), answered(10, 5, "0.0000000001"), answered(1, 1, None)]
            await events.append(transaction, make_task("task_one").id, told)
        writer = EventWriter(database)
        await writer.append(make_task("task_two").id, [answered(7, 0, "0.25")])
        async with database.read() as connection:
            now = await database.now(connection)
        found = await spent(database, now)
        assert set(found) == {"ann", "bob"}
        ann = found["ann"].day
        assert (ann.requests, ann.input_tokens, ann.output_tokens, ann.unpriced) == (2, 11, 6, 1)
        assert ann.cost_usd == Decimal("0.000000001")  # rounded up
        assert found["ann"].month == ann
        assert found["bob"].month.cost_usd == Decimal("0.25")
        assert await spent(database, now, "bob") == {"bob": found["bob"]}


async def test_what_was_rolled_back_was_not_spent(database: Database) -> None:
    await add_tasks(database, one="ann")

    async def append_and_fail() -> None:
        async with database.write() as transaction:
            await events.append(transaction, make_task("task_one").id, [answered(1, 1, "1")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await append_and_fail()
    async with database.read() as connection:
        now = await database.now(connection)
    assert await spent(database, now) == {}


async def test_it_stays_spent_when_the_task_is_deleted(database: Database) -> None:
    await add_tasks(database, one="ann")
    async with database.write() as transaction:
        await events.append(transaction, make_task("task_one").id, [answered(1, 2, "1")])
    async with database.write() as transaction:
        await tasks.delete(transaction, make_task("task_one").id)
        now = transaction.now
    assert (await spent(database, now))["ann"].day.output_tokens == 2


async def test_a_new_day_and_a_new_month_begin_with_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    now = NOON
    place = Place(kind="sqlite", data_dir=tmp_path_factory.mktemp("data"))
    async with place.open(clock=lambda: now) as database:
        await add_tasks(database, one="ann")
        async with database.write() as transaction:
            await events.append(transaction, make_task("task_one").id, [answered(100, 0, "1")])
        spenders = Spenders(database=database, defaults=Budgets(tokens_day=100, usd_month=Decimal(2)))
        with pytest.raises(BudgetSpent, match="100 of 100 tokens"):
            await spenders.check("ann")
        await spenders.check("bob")
        now = NOON + DAY_S
        await spenders.check("ann")
        assert (await spent(database, now))["ann"].month.requests == 1
        async with database.write() as transaction:
            await events.append(transaction, make_task("task_one").id, [answered(1, 0, "1")])
        with pytest.raises(BudgetSpent, match="month"):
            await spenders.check("ann")
        now = NOON + 10 * DAY_S
        await spenders.check("ann")
        assert await spent(database, now) == {}
        now = NOON + 500 * DAY_S
        async with database.write() as transaction:
            await spending.forget_old(transaction)
        assert await spent(database, NOON) == {}


async def test_a_user_s_own_budgets_count_before_the_server_s(database: Database) -> None:
    defaults = Budgets(tokens_day=0, usd_month=Decimal(5))
    spenders = Spenders(database=database, defaults=defaults)
    await spenders.set_budgets("ann", {"tokens_day": None, "usd_day": Decimal("0.1")})
    await spenders.set_budgets("bob", {"tokens_day": 7})
    await spenders.set_budgets("bob", {"tokens_day": 2**60})
    ann, bob, eve = await spenders.usage(["ann", "bob", "eve"])
    assert ann.budgets == Budgets(usd_day=Decimal("0.1"), usd_month=Decimal(5))
    assert bob.budgets == replace(defaults, tokens_day=2**60)
    assert eve.budgets == defaults
    await spenders.check("ann")
    with pytest.raises(BudgetSpent):
        await spenders.check("eve")


async def test_no_claim_of_a_provider_is_too_large(database: Database) -> None:
    await add_tasks(database, one="ann")
    async with database.write() as transaction:
        claims = [answered(10**30, 10**30, "1e40")] * 20 + [answered(-(10**30), -5, "-1")]
        await events.append(transaction, make_task("task_one").id, claims)
        now = transaction.now
    assert (await spent(database, now))["ann"].day.input_tokens == 20 * 2**50
