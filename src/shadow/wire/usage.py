"""What users spend and may spend, as messages of the server's API."""

from decimal import Decimal

from pydantic import Field

from shadow.core.quota import Budgets, Spending, Spent, UserUsage
from shadow.wire.message import Message

MAX_TOKENS = 2**60
MAX_WHOLE = 2**60
"""Of seconds and bytes."""


class SpentMessage(Message, core=Spent):
    """Of all answers of models, and of all workspaces, in a period."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    unpriced: int
    """Requests whose price nobody knows: they count with no money."""
    cpu_s: float = 0.0
    """CPU time of workspaces, as far as it was read by now."""


class SpendingMessage(Message, core=Spending):
    """Of the day and the month that it is, of UTC."""

    day: SpentMessage
    month: SpentMessage
    storage_bytes: int = 0
    """Of workspaces and artifacts, as measured last."""


class BudgetsMessage(Message, core=Budgets):
    """`null`: as much as they like."""

    tokens_day: int | None
    """Input and output of all requests together."""
    tokens_month: int | None
    usd_day: Decimal | None
    usd_month: Decimal | None
    cpu_s_day: int | None = None
    cpu_s_month: int | None = None
    storage_bytes: int | None = None


class NewBudgetsMessage(Message):
    """What is left out is the server's default; `null`: as much as they like; 0: nothing."""

    tokens_day: int | None = Field(default=None, ge=0, le=MAX_TOKENS)
    tokens_month: int | None = Field(default=None, ge=0, le=MAX_TOKENS)
    usd_day: Decimal | None = Field(default=None, ge=0, max_digits=20)
    usd_month: Decimal | None = Field(default=None, ge=0, max_digits=20)
    cpu_s_day: int | None = Field(default=None, ge=0, le=MAX_WHOLE)
    cpu_s_month: int | None = Field(default=None, ge=0, le=MAX_WHOLE)
    storage_bytes: int | None = Field(default=None, ge=0, le=MAX_WHOLE)


class UsageMessage(Message, core=UserUsage):
    user_id: str
    live_tasks: int
    """With a workspace, or about to have one."""
    spending: SpendingMessage
    budgets: BudgetsMessage


class UsageListMessage(Message):
    users: tuple[UsageMessage, ...]


class UsageQuery(Message):
    all: bool = False
    """Of all users; for administrators."""
