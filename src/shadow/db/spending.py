"""What users spend on models: a row for each answer, written with its event, and summed up when somebody wants to know.

What else counts against their budgets, ``db/measurements.py`` has.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from typing import Any

from sqlalchemy import case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.events import ModelAnswered, Recorded
from shadow.core.quota import UNITS, Budgets, Spending, Spent, check_budgets, check_storage, periods
from shadow.core.tasks import TaskId
from shadow.db import measurements
from shadow.db.database import Transaction
from shadow.db.tables import budgets as others
from shadow.db.tables import spending as table
from shadow.db.tables import tasks

KEPT_S = 400 * 24 * 3600.0
_NANO = Decimal(10) ** 9
_MOST = 2**50
"""More than one answer takes; what a provider claims may be more than a column, or a sum of many, holds."""


async def note(transaction: Transaction, appended: Iterable[tuple[TaskId, Iterable[Recorded]]]) -> None:
    """Belongs into the transaction that appends the events."""
    answered = [
        (task_id, one, one.event) for task_id, new in appended for one in new if isinstance(one.event, ModelAnswered)
    ]
    if not answered:
        return
    ids = sorted({task_id for task_id, _, _ in answered})
    query = select(tasks.c.id, tasks.c.owner).where(tasks.c.id.in_(ids))
    owners = {row.id: row.owner for row in await transaction.connection.execute(query)}
    rows = [
        {
            "task_id": task_id,
            "seq": recorded.seq,
            "user_id": owners[task_id],
            "at": recorded.at,
            "input_tokens": _counted(event.message.usage.input_tokens),
            "output_tokens": _counted(event.message.usage.output_tokens),
            "cost_nano_usd": None if event.cost_usd is None else _nano(Decimal(event.cost_usd)),
        }
        for task_id, recorded, event in answered
    ]
    await transaction.connection.execute(insert(table), rows)


async def spending_of(connection: AsyncConnection, *, now: float, user_id: str | None = None) -> Mapping[str, Spending]:
    """By user, where they spent or keep anything. ``user_id``: of that one alone."""
    of = periods(now)
    today = table.c.at >= of.day
    sums: list[Any] = []
    for period, counts in (("day", today), ("month", table.c.at >= of.month)):
        sums += [
            _sum(case((counts, 1), else_=0)).label(f"{period}_requests"),
            _sum(case((counts, table.c.input_tokens), else_=0)).label(f"{period}_input"),
            _sum(case((counts, table.c.output_tokens), else_=0)).label(f"{period}_output"),
            _sum(case((counts, table.c.cost_nano_usd), else_=0)).label(f"{period}_nano"),
            _sum(case((counts & table.c.cost_nano_usd.is_(None), 1), else_=0)).label(f"{period}_unpriced"),
        ]
    query = select(table.c.user_id, *sums).where(table.c.at >= of.month).group_by(table.c.user_id)
    if user_id is not None:
        query = query.where(table.c.user_id == user_id)
    rows = (await connection.execute(query)).mappings()
    found = {row["user_id"]: Spending(day=_spent(row, "day"), month=_spent(row, "month")) for row in rows}
    for user, used in (await measurements.used_by(connection, now=now, user_id=user_id)).items():
        on_models = found.get(user, Spending())
        found[user] = Spending(
            day=replace(on_models.day, cpu_s=used.day_s),
            month=replace(on_models.month, cpu_s=used.month_s),
            storage_bytes=used.storage_bytes,
        )
    return found


async def check(
    connection: AsyncConnection,
    *,
    now: float,
    defaults: Budgets,
    user_id: str,
    units: Collection[str] = UNITS,
    storage: bool = True,
) -> None:
    """Before a user spends anything of ``units``, or, with ``storage``, keeps anything more. Raises: BudgetSpent."""
    budgets = await budgets_of(connection, defaults=defaults, user_id=user_id)
    if not budgets.is_endless:
        spent = (await spending_of(connection, now=now, user_id=user_id)).get(user_id, Spending())
        check_budgets(budgets, spent, now=now, units=units)
        if storage:
            check_storage(budgets, spent)


async def forget_old(transaction: Transaction) -> None:
    await transaction.connection.execute(delete(table).where(table.c.at < transaction.now - KEPT_S))
    await measurements.forget_old(transaction, older_than_s=KEPT_S)


async def budgets_of(connection: AsyncConnection, *, defaults: Budgets, user_id: str) -> Budgets:
    query = select(others.c.body).where(others.c.user_id == user_id)
    body = (await connection.execute(query)).scalar_one_or_none()
    return defaults if body is None else _over(defaults, body)


async def all_budgets(connection: AsyncConnection, *, defaults: Budgets) -> Mapping[str, Budgets]:
    """By user, where they have others than ``defaults``."""
    rows = (await connection.execute(select(others.c.user_id, others.c.body))).all()
    return {user_id: _over(defaults, body) for user_id, body in rows}


async def set_budgets(transaction: Transaction, own: Mapping[str, int | Decimal | None], *, user_id: str) -> None:
    """``own``: by the name of the budget; of what is not in it the default counts."""
    body = json.dumps({name: None if value is None else str(value) for name, value in own.items()})
    change = update(others).where(others.c.user_id == user_id).values(body=body)
    if (await transaction.connection.execute(change)).rowcount:
        return
    try:
        async with transaction.connection.begin_nested():
            await transaction.connection.execute(insert(others).values(user_id=user_id, body=body))
    except IntegrityError:  # somebody else did so at the same moment
        await transaction.connection.execute(change)


def _over(defaults: Budgets, body: str) -> Budgets:
    own: dict[str, str | None] = json.loads(body)

    def of(name: str, kind: type[int] | type[Decimal]) -> Any:
        value = own.get(name)
        return getattr(defaults, name) if name not in own else None if value is None else kind(value)

    return Budgets(
        tokens_day=of("tokens_day", int),
        tokens_month=of("tokens_month", int),
        usd_day=of("usd_day", Decimal),
        usd_month=of("usd_month", Decimal),
        cpu_s_day=of("cpu_s_day", int),
        cpu_s_month=of("cpu_s_month", int),
        storage_bytes=of("storage_bytes", int),
    )


def _counted(number: int) -> int:
    return min(max(number, 0), _MOST)


def _nano(cost_usd: Decimal) -> int:
    return _counted(int((cost_usd * _NANO).to_integral_value(rounding=ROUND_CEILING)))


def _sum(column: Any) -> Any:
    return func.coalesce(func.sum(column), 0)


def _spent(row: Any, period: str) -> Spent:
    return Spent(
        requests=int(row[f"{period}_requests"]),
        input_tokens=int(row[f"{period}_input"]),
        output_tokens=int(row[f"{period}_output"]),
        cost_usd=Decimal(int(row[f"{period}_nano"])) / _NANO,
        unpriced=int(row[f"{period}_unpriced"]),
    )
