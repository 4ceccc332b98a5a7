"""Budgets: what is spent is refused before more is, and by which budget."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.quota import CPU_S, Budgets, BudgetSpent, Spending, Spent, check_budgets, check_storage, periods

NOW = datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC).timestamp()


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


def test_days_and_months_end_with_the_year() -> None:
    of = periods(NOW)
    assert (of.day, of.month) == (at(2026, 12, 31), at(2026, 12, 1))
    assert (of.next_day, of.next_month) == (at(2027, 1, 1), at(2027, 1, 1))


@given(st.floats(min_value=0, max_value=4e9))
def test_now_lies_in_its_periods(now: float) -> None:
    of = periods(now)
    assert of.month <= of.day <= now < of.next_day <= of.next_month
    assert periods(of.next_month).month == of.next_month
    assert periods(of.next_day).day == of.next_day


SPENDING = Spending(
    day=Spent(requests=2, input_tokens=90, output_tokens=10, cost_usd=Decimal("1.5"), cpu_s=3.5),
    month=Spent(requests=9, input_tokens=900, output_tokens=100, cost_usd=Decimal(20), cpu_s=70.0),
    storage_bytes=4096,
)


@pytest.mark.parametrize(
    ("budgets", "limit"),
    [
        (Budgets(), None),
        (Budgets(tokens_day=101, tokens_month=1001, usd_day=Decimal("1.51"), usd_month=Decimal(21)), None),
        (Budgets(tokens_day=100), "tokens_day"),
        (Budgets(tokens_month=1000), "tokens_month"),
        (Budgets(usd_day=Decimal("1.5")), "usd_day"),
        (Budgets(usd_month=Decimal("19.99")), "usd_month"),
        (Budgets(cpu_s_day=4, cpu_s_month=71), None),
        (Budgets(cpu_s_day=3), "cpu_s_day"),
        (Budgets(cpu_s_month=70), "cpu_s_month"),
        (Budgets(tokens_day=1, tokens_month=1), "tokens_month"),  # a new day helps nobody
    ],
)
def test_the_budget_that_is_spent_is_named(budgets: Budgets, limit: str | None) -> None:
    if limit is None:
        check_budgets(budgets, SPENDING, now=NOW)
        return
    with pytest.raises(BudgetSpent) as refused:
        check_budgets(budgets, SPENDING, now=NOW)
    assert refused.value.details == {"limit": limit, "again_at": at(2027, 1, 1)}


@pytest.mark.parametrize("name", ["tokens_day", "tokens_month", "usd_day", "usd_month", "cpu_s_day", "cpu_s_month"])
def test_a_budget_of_nothing_allows_nothing(name: str) -> None:
    with pytest.raises(BudgetSpent):
        check_budgets(Budgets(**{name: 0}), Spending(), now=NOW)  # type: ignore[arg-type]


def test_what_is_not_asked_about_is_not_refused() -> None:
    check_budgets(Budgets(tokens_day=0, usd_month=Decimal(0)), SPENDING, now=NOW, units=(CPU_S,))


@pytest.mark.parametrize(("most", "refused"), [(None, False), (4097, False), (4096, True), (0, True)])
def test_storage_is_refused_where_it_is_used_up(most: int | None, refused: bool) -> None:
    budgets = Budgets(storage_bytes=most)
    check_budgets(budgets, SPENDING, now=NOW)
    if not refused:
        check_storage(budgets, SPENDING)
        return
    with pytest.raises(BudgetSpent, match=f"4096 of {most} bytes") as told:
        check_storage(budgets, SPENDING)
    assert told.value.details == {"limit": "storage_bytes"}
