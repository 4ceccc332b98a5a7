"""``shadow usage``: what users have spent and keep, and may."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal

from shadow.accounts.service import Accounts
from shadow.bootstrap import open_tasks, start_logging
from shadow.cli.outcome import DONE, print_json
from shadow.cli.servers import chosen_url, open_server
from shadow.cli.tables import print_table
from shadow.core.accounts import LOCAL_USER, Role
from shadow.core.quota import UNITS, Spent, UserUsage
from shadow.settings import Settings, load_settings


async def show(*, as_json: bool) -> int:
    settings = load_settings()
    start_logging(settings)
    url = chosen_url(settings)
    names, found = await (_here(settings) if url is None else _there(settings, url))
    if as_json:
        print_json({"users": [asdict(one) | {"name": names.get(one.user_id, one.user_id)} for one in found]})
        return DONE
    rows: list[Sequence[str]] = []
    for one in found:
        name, live = names.get(one.user_id, one.user_id), str(one.live_tasks)
        rows.append((name, live, "today", *_cells(one, "day", one.spending.day), "", ""))
        storage = (str(one.spending.storage_bytes), _limit(one.budgets.storage_bytes))
        rows.append(("", "", "month", *_cells(one, "month", one.spending.month), *storage))
    print_table(
        ("USER", "TASKS", "PERIOD", "REQUESTS", "TOKENS", "OF", "USD", "OF", "CPU S", "OF", "STORAGE", "OF"), rows
    )
    return DONE


async def _here(settings: Settings) -> tuple[Mapping[str, str], Sequence[UserUsage]]:
    async with open_tasks(settings) as tasks:
        users = await Accounts(database=tasks.database, entropy=tasks.entropy).users()
        names: dict[str, str] = {LOCAL_USER: "local", **{user.id: user.name for user in users}}
        return names, await tasks.spenders.usage(list(names))


async def _there(settings: Settings, url: str) -> tuple[Mapping[str, str], Sequence[UserUsage]]:
    """Of everybody for administrators, else of oneself."""
    async with open_server(settings, url) as shadow:
        me = await shadow.accounts.me()
        is_admin = me.role is Role.ADMIN
        users = await shadow.accounts.users() if is_admin else [me]
        return {user.id: user.name for user in users}, await shadow.accounts.usage(everybody=is_admin)


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
