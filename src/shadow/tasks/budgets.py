"""What users may spend, and have spent: each call is one transaction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from shadow.core.quota import UNITS, Budgets, Spending, UserUsage
from shadow.db import spending, tasks
from shadow.db.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Spenders:
    """``defaults``: of users for whom no administrator has said anything else."""

    database: Database
    defaults: Budgets = field(default_factory=Budgets)

    async def check(self, user_id: str, *, units: Collection[str] = UNITS, storage: bool = False) -> None:
        """Before anything of ``units`` is spent; with ``storage``, before a run begins. Raises: BudgetSpent."""
        async with self.database.read() as connection:
            now = await self.database.now(connection)
            await spending.check(
                connection, now=now, defaults=self.defaults, user_id=user_id, units=units, storage=storage
            )

    async def budgets(self, user_id: str) -> Budgets:
        async with self.database.read() as connection:
            return await spending.budgets_of(connection, defaults=self.defaults, user_id=user_id)

    async def usage(self, user_ids: Sequence[str]) -> Sequence[UserUsage]:
        async with self.database.read() as connection:
            now = await self.database.now(connection)
            only = user_ids[0] if len(user_ids) == 1 else None
            spent = await spending.spending_of(connection, now=now, user_id=only)
            own = await spending.all_budgets(connection, defaults=self.defaults)
            return [
                UserUsage(
                    user_id=user_id,
                    live_tasks=await tasks.count_live(connection, owner=user_id),
                    spending=spent.get(user_id, Spending()),
                    budgets=own.get(user_id, self.defaults),
                )
                for user_id in user_ids
            ]

    async def set_budgets(self, user_id: str, own: Mapping[str, int | Decimal | None]) -> None:
        """``own``: by the name of the budget; of what is not in it the default counts."""
        async with self.database.write() as transaction:
            await spending.set_budgets(transaction, own, user_id=user_id)
