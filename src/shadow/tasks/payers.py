"""Whoever begins a task pays for it, as long as they are here: their keys, budgets and credentials are spent on it."""

from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.accounts import ProjectRole, Role, UserId
from shadow.core.errors import Denied, NotFound
from shadow.core.tasks import Task
from shadow.db import accounts, projects


async def check_payer(connection: AsyncConnection, task: Task) -> None:
    """Before anything is spent. Raises: Denied: they were shut out, or are in its project no more."""
    try:
        owner = await accounts.get_user(connection, UserId(task.owner))
    except NotFound:
        return  # where there is no server nobody has written them down
    is_in = task.project_id is None or owner.role is Role.ADMIN
    if not is_in and task.project_id is not None:
        is_in = await projects.role_in(connection, task.project_id, owner.id) is ProjectRole.MEMBER
    if owner.disabled_at is not None or owner.role is Role.VIEWER or not is_in:
        raise Denied(
            f"Whoever began {task.id} may do so no more, and nothing is spent on their behalf.",
            mend="Begin a new task, from its branch if it has delivered one.",
        )
