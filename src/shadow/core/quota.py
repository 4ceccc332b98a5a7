"""What a user may spend in a day and a month (on models, of CPU time) and keep, and whether they have. No I/O, no clock.

Days and months are those of UTC. A request whose price nobody knows counts with its tokens and with no money. What counts as
CPU time and as storage, ``tasks/measuring.py`` says.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from shadow.core.errors import LimitExceeded

TOKENS, USD, CPU_S = "tokens", "usd", "cpu_s"
UNITS = (TOKENS, USD, CPU_S)
"""What is spent for good, by day and by month."""
STORAGE = "storage_bytes"


class BudgetSpent(LimitExceeded):
    """``details["limit"]``: which budget; ``details["again_at"]``: when the next period begins, seconds since 1970; of storage
    there is none."""

    code = "budget_spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """``None``: as much as they like. 0: nothing."""

    tokens_day: int | None = None
    """Input and output of all requests together."""
    tokens_month: int | None = None
    usd_day: Decimal | None = None
    usd_month: Decimal | None = None
    cpu_s_day: int | None = None
    """CPU seconds of their workspaces."""
    cpu_s_month: int | None = None
    storage_bytes: int | None = None
    """Of their workspaces and artifacts, at any time."""

    @property
    def is_endless(self) -> bool:
        return all(getattr(self, one.name) is None for one in fields(self))

    @property
    def limits_cpu(self) -> bool:
        return self.cpu_s_day is not None or self.cpu_s_month is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """In a period."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    """Requests whose price nobody knows."""
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Of the day and the month that it is."""

    day: Spent = field(default_factory=Spent)
    month: Spent = field(default_factory=Spent)
    storage_bytes: int = 0
    """As measured last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUsage:
    user_id: str
    live_tasks: int
    """With a workspace, or about to have one."""
    spending: Spending
    budgets: Budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """Seconds since 1970."""

    day: float
    month: float
    next_day: float
    next_month: float


def periods(now: float) -> Periods:
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    next_month = (month + timedelta(days=32)).replace(day=1)
    return Periods(
        day=day.timestamp(),
        month=month.timestamp(),
        next_day=(day + timedelta(days=1)).timestamp(),
        next_month=next_month.timestamp(),
    )


def check_budgets(budgets: Budgets, spending: Spending, *, now: float, units: Collection[str] = UNITS) -> None:
    """Before anything more is spent of ``units``. Raises: BudgetSpent: with the one that ends last."""
    for period, spent in (("month", spending.month), ("day", spending.day)):
        sums: dict[str, int | float | Decimal] = {
            TOKENS: spent.input_tokens + spent.output_tokens,
            USD: spent.cost_usd,
            CPU_S: spent.cpu_s,
        }
        for unit, used in sums.items():
            name = f"{unit}_{period}"
            budget: int | Decimal | None = getattr(budgets, name)
            if unit in units and budget is not None and used >= budget:
                raise _spent(name, period, _shown(unit, used, budget), periods(now))


def check_storage(budgets: Budgets, spending: Spending) -> None:
    """Before anything more is kept. Raises: BudgetSpent."""
    budget, used = budgets.storage_bytes, spending.storage_bytes
    if budget is not None and used >= budget:
        raise BudgetSpent(
            f"The storage is used up: {used} of {budget} bytes.",
            mend="Archive or delete tasks, or delete files in their workspaces, which counts after a minute; or ask an "
            "administrator for more.",
            details={"limit": STORAGE},
        )


def _shown(unit: str, used: int | float | Decimal, budget: int | Decimal) -> str:
    if unit == CPU_S:
        return f"{used:.1f} of {budget} CPU seconds"
    return f"{used} of {budget} tokens" if unit == TOKENS else f"{used:f} of {budget:f} USD"


def _spent(name: str, period: str, what: str, of: Periods) -> BudgetSpent:
    again_at = of.next_day if period == "day" else of.next_month
    again = datetime.fromtimestamp(again_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return BudgetSpent(
        f"The budget of this {period} is spent: {what}.",
        mend=f"Wait until {again}, or ask an administrator for more.",
        details={"limit": name, "again_at": again_at},
    )
