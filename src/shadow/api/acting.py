"""Whoever changes something may do so when it is written, and not only when they began to ask.

Between the two lies as long as a sender takes for a body. So each transaction that writes for a request begins by looking again,
and keeps what it saw as it is until its end: what was taken from somebody is not used once whoever took it has their answer.
"""

from dataclasses import replace
from typing import TypeVar

from starlette.requests import HTTPConnection

from shadow.accounts.keys import Keys
from shadow.accounts.projects import Projects
from shadow.accounts.service import USERS, Accounts, is_good
from shadow.api.access import ACCESS, SIGNED_IN, TASK, principal, sees_only
from shadow.core.accounts import ProjectId, Scope
from shadow.core.errors import Denied, Unauthenticated, Unavailable
from shadow.core.tasks import Task
from shadow.db import accounts, projects, tasks
from shadow.db.database import Transaction
from shadow.db.tasks import no_task
from shadow.tasks.service import Tasks

Service = TypeVar("Service", Tasks, Projects, Accounts, Keys)


def acting(service: Service, request: HTTPConnection, *, project_id: ProjectId | None = None) -> Service:
    """``service`` for what ``request`` changes; ``project_id``: it begins something in there, besides what its path names.

    Every method that writes also raises Unauthenticated, Denied and NotFound: its sender may not, or no longer; Unavailable:
    they got another role meanwhile.
    """
    is_account = isinstance(service, Accounts)

    async def check(transaction: Transaction) -> None:
        if is_account:
            await transaction.lock(USERS)  # before the rows: who changes users has it too
        await _check_sender(transaction, request)
        task: Task | None = request.scope.get(TASK)
        if task is not None:
            await _check_task(transaction, request, task)
        if project_id is not None:
            await projects.keep(transaction, project_id)
            await projects.keep_member(transaction, project_id, principal(request).user.id)
            await Projects.check_writable(transaction.connection, principal(request), project_id)

    return replace(service, database=service.database.beginning_with(check))


async def _check_sender(transaction: Transaction, request: HTTPConnection) -> None:
    who = principal(request)
    now = await accounts.keep_principal(transaction, who)
    if now is None or not is_good(now, transaction.now):
        raise Unauthenticated("The credential was revoked, or has expired.", mend="Log in again: shadow login")
    if now.user.role is not who.user.role:
        raise Unavailable("Your role has just been changed.", mend="Try again.")
    if request.scope[ACCESS] != SIGNED_IN:
        now.check(Scope(request.scope[ACCESS]))


async def _check_task(transaction: Transaction, request: HTTPConnection, task: Task) -> None:
    seen_by = sees_only(principal(request))
    if seen_by is None:
        return
    if task.project_id is not None:
        await projects.keep_member(transaction, task.project_id, seen_by)
    if await tasks.hidden_from(transaction.connection, seen_by, [task.id]):
        raise no_task(task.id)
    if await tasks.hidden_from(transaction.connection, seen_by, [task.id], writing=True):
        raise Denied("You may read this, and not change it.", mend="Ask for the role member of its project.")
