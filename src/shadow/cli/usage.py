"""``shadow usage``: what users have spent and keep, and may."""

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal

from shadow.accounts.service import Accounts
from shadow.bootstrap import open_tasks
from shadow.cli.outcome import DONE, print_json
from shadow.cli.servers import check_here
from shadow.cli.tables import print_table
from shadow.core.accounts import LOCAL_USER
from shadow.core.quota import UNITS, Spent
from shadow.settings import load_settings
from shadow.tasks.budgets import UserUsage


async def show(*, as_json: bool) -> int:
    settings = load_settings()
    check_here(
        settings, "`shadow usage`", mend="A server tells it by its API: GET /v1/usage. For this host: --server none."
    )
    async with open_tasks(settings) as tasks:
        users = await Accounts(database=tasks.database, entropy=tasks.entropy).users()
        names: dict[str, str] = {LOCAL_USER: "local", **{user.id: user.name for user in users}}
        found = await tasks.spenders.usage(list(names))
    if as_json:
        print_json({"users": [asdict(one) | {"name": names[one.user_id]} for one in found]})
        return DONE
    rows: list[Sequence[str]] = []
    for one in found:
        rows.append((names[one.user_id], str(one.live_tasks), "today", *_cells(one, "day", one.spending.day), "", ""))
        storage = (str(one.spending.storage_bytes), _limit(one.budgets.storage_bytes))
        rows.append(("", "", "month", *_cells(one, "month", one.spending.month), *storage))
    print_table(
        ("USER", "TASKS", "PERIOD", "REQUESTS", "TOKENS", "OF", "USD", "OF", "CPU S", "OF", "STORAGE", "OF"), rows
    )
    return DONE


def _cells(one: UserUsage, period: str, spent: Spent) -> Sequence[str]:
    tokens, money, cpu_s = (getattr(one.budgets, f"{unit}_{period}") for unit in UNITS)
    unpriced = f" + {spent.unpriced} unpriced" if spent.unpriced else ""
    return (
        str(spent.requests),
        str(spent.input_tokens + spent.output_tokens),
        _limit(tokens),
        f"{spent.cost_usd:.4f}{unpriced}",
        _limit(money),
        f"{spent.cpu_s:.1f}",
        _limit(cpu_s),
    )


def _limit(budget: int | Decimal | None) -> str:
    return "-" if budget is None else f"{budget:f}" if isinstance(budget, Decimal) else str(budget)
