"""What a user may spend on models in a day and a month, and whether they have. No I/O, no clock.

Days and months are those of UTC. A request whose price nobody knows counts with its tokens and with no money.
"""

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from shadow.core.errors import LimitExceeded


class BudgetSpent(LimitExceeded):
    """``details["limit"]``: which budget; ``details["again_at"]``: when the next period begins, seconds since 1970."""

    code = "budget_spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """``None``: as much as they like. 0: nothing."""

    tokens_day: int | None = None
    """Input and output of all requests together."""
    tokens_month: int | None = None
    usd_day: Decimal | None = None
    usd_month: Decimal | None = None

    @property
    def is_endless(self) -> bool:
        return all(getattr(self, one.name) is None for one in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Of all answers of models in a period."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    """Requests whose price nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Of the day and the month that it is."""

    day: Spent = field(default_factory=Spent)
    month: Spent = field(default_factory=Spent)


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


def check_budgets(budgets: Budgets, spending: Spending, *, now: float) -> None:
    """Before anything more is spent. Raises: BudgetSpent: with the one that ends last."""
    for period, spent in (("month", spending.month), ("day", spending.day)):
        sums: dict[str, int | Decimal] = {"tokens": spent.input_tokens + spent.output_tokens, "usd": spent.cost_usd}
        for unit, used in sums.items():
            name = f"{unit}_{period}"
            budget: int | Decimal | None = getattr(budgets, name)
            if budget is not None and used >= budget:
                raise _spent(name, unit, period, used, budget, periods(now))


def _spent(name: str, unit: str, period: str, used: int | Decimal, budget: int | Decimal, of: Periods) -> BudgetSpent:
    again_at = of.next_day if period == "day" else of.next_month
    again = datetime.fromtimestamp(again_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    what = f"{used} of {budget} tokens" if unit == "tokens" else f"{used:f} of {budget:f} USD"
    return BudgetSpent(
        f"The budget of this {period} is spent: {what}.",
        mend=f"Wait until {again}, or ask an administrator for more.",
        details={"limit": name, "again_at": again_at},
    )
