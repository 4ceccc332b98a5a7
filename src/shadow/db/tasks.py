"""Tasks in the database."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, CursorResult, func, insert, not_, select, true, update
from sqlalchemy import delete as delete_from
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.accounts import ProjectId, ProjectRole, UserId
from shadow.core.errors import Conflict, NotFound
from shadow.core.ids import WorkspaceId
from shadow.core.repositories import UsedRepository
from shadow.core.tasks import Task, TaskId, TaskState, TaskStep, step
from shadow.db.codec import decode_checkout, encode_checkout
from shadow.db.database import Transaction
from shadow.db.tables import project_members, tasks

PAGE = 1000
MAX_ID_CHARS = 64
IDS_IN_QUERY = 500

T = TypeVar("T")


async def add(transaction: Transaction, task: Task) -> None:
    await transaction.connection.execute(insert(tasks).values(_row(task)))


async def change(transaction: Transaction, task_id: TaskId, **values: Any) -> None:
    """Set columns of a task; for its state there is ``move``. Raises: NotFound."""
    for name, encode in _ENCODERS.items():
        if name in values:
            values[name] = encode(values[name])
    if not is_storable(task_id):
        raise no_task(task_id)
    done = await transaction.connection.execute(
        update(tasks).where(tasks.c.id == task_id).values(values | {"updated_at": transaction.now})
    )
    if done.rowcount == 0:
        raise no_task(task_id)


async def lock(transaction: Transaction, task_id: TaskId) -> None:
    """Nobody else changes it, or writes what belongs to it, before the transaction's end. Raises: NotFound."""
    await get(transaction.connection, task_id, for_update=True)


async def move(transaction: Transaction, task_id: TaskId, taken: TaskStep) -> Task:
    """Take a task from its state to the next one. Raises: NotFound; Conflict: not from the state that it is in."""
    task = await get(transaction.connection, task_id, for_update=True)
    state = step(task.state, taken)
    await change(transaction, task_id, state=state.value)
    return replace(task, state=state, updated_at=transaction.now)


async def get(connection: AsyncConnection, task_id: TaskId, *, for_update: bool = False) -> Task:
    """``for_update``: nobody else changes it, or writes to its log, before the transaction's end. Raises: NotFound."""
    if not is_storable(task_id):
        raise no_task(task_id)
    query = select(tasks).where(tasks.c.id == task_id)
    if for_update:
        query = query.with_for_update(key_share=True)  # rows that belong to it may still be inserted
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise no_task(task_id)
    return _task(row)


async def find(connection: AsyncConnection, reference: str, *, seen_by: UserId | None = None) -> Task:
    """By its id or a unique beginning of it. Raises: NotFound, Conflict."""
    if not is_storable(reference):
        raise no_task(reference)
    prefixed = reference if reference.startswith("task_") else f"task_{reference}"
    if prefixed == "task_":
        raise no_task(reference)
    query = select(tasks).where(tasks.c.id.startswith(prefixed, autoescape=True)).order_by(tasks.c.id).limit(2)
    query = query.where(_seen_by(seen_by))
    rows = (await connection.execute(query)).mappings().all()
    exact = [row for row in rows if row["id"] == reference]
    if not rows:
        raise no_task(reference)
    if len(rows) > 1 and not exact:
        raise Conflict(f"{reference!r} may mean several tasks.", mend="Give more of the id.")
    return _task((exact or list(rows))[0])


async def of_workspace(
    connection: AsyncConnection, workspace_id: WorkspaceId, *, seen_by: UserId | None = None, for_update: bool = False
) -> Task | None:
    """The one that works in it. ``for_update``: as for ``get``."""
    if not is_storable(workspace_id):
        return None
    query = select(tasks).where(tasks.c.workspace_id == workspace_id, _seen_by(seen_by))
    if for_update:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _task(row)


async def newest(
    connection: AsyncConnection,
    *,
    limit: int = PAGE,
    seen_by: UserId | None = None,
    project_id: ProjectId | None = None,
    states: Collection[TaskState] | None = None,
    before: tuple[float, TaskId] | None = None,
) -> Sequence[Task]:
    """Newest first. ``before``: time of creation and id of the last one of the page before."""
    query = select(tasks).where(_seen_by(seen_by)).order_by(tasks.c.created_at.desc(), tasks.c.id).limit(limit)
    if project_id is not None:
        query = query.where(tasks.c.project_id == project_id)
    if states is not None:
        query = query.where(tasks.c.state.in_([state.value for state in states]))
    if before is not None:
        at, last = before
        query = query.where((tasks.c.created_at < at) | ((tasks.c.created_at == at) & (tasks.c.id > last)))
    return as_tasks(await connection.execute(query))


async def repositories(
    connection: AsyncConnection,
    *,
    limit: int,
    seen_by: UserId | None = None,
    before: tuple[float, str] | None = None,
) -> Sequence[UsedRepository]:
    """Those of the tasks that are there for them, the one that was used last first. ``before``: of the last one of the page
    before."""
    used_at, name = func.max(tasks.c.updated_at), tasks.c.repository
    query = select(name, func.count(), used_at).where(_seen_by(seen_by)).group_by(name)
    if before is not None:
        at, last = before
        query = query.having((used_at < at) | ((used_at == at) & (name > last)))
    rows = await connection.execute(query.order_by(used_at.desc(), name).limit(limit))
    return [UsedRepository(repository=text, tasks=count, used_at=at) for text, count, at in rows]


async def hidden_from(
    connection: AsyncConnection, user_id: UserId | None, task_ids: Collection[TaskId], *, writing: bool = False
) -> frozenset[TaskId]:
    """Those of ``task_ids`` that are there, but not for them. ``writing``: that they may not change."""
    hidden: set[TaskId] = set()
    for some in batched(sorted(task_ids)):
        query = select(tasks.c.id).where(tasks.c.id.in_(some), not_(_seen_by(user_id, writing=writing)))
        hidden.update((await connection.execute(query)).scalars())
    return frozenset(hidden)


def _seen_by(user_id: UserId | None, *, writing: bool = False) -> ColumnElement[bool]:
    """The one place that says whose a task is. ``None``: of somebody who sees all. ``writing``: who may change it."""
    if user_id is None:
        return true()
    memberships = select(project_members.c.project_id).where(project_members.c.user_id == user_id)
    if writing:
        memberships = memberships.where(project_members.c.role == ProjectRole.MEMBER.value)
    return ((tasks.c.owner == user_id) & tasks.c.project_id.is_(None)) | (
        tasks.c.project_id.is_not(None) & tasks.c.project_id.in_(memberships)
    )


async def unchanged_since(
    connection: AsyncConnection, at: float, *, states: Collection[TaskState], host: str | None
) -> Sequence[Task]:
    """Those in one of ``states``, on ``host`` or none, with which nothing has happened since ``at``, longest first."""
    here = tasks.c.host.is_(None) | (tasks.c.host == host)
    query = (
        select(tasks)
        .where(here, tasks.c.state.in_([state.value for state in states]), tasks.c.updated_at < at)
        .order_by(tasks.c.updated_at)
        .limit(PAGE)
    )
    return as_tasks(await connection.execute(query))


async def with_workspace(
    connection: AsyncConnection, *, host: str | None, states: Collection[TaskState]
) -> Sequence[tuple[TaskId, WorkspaceId, float]]:
    """Id, workspace and last change of each task in one of ``states`` whose workspace is on ``host``."""
    query = select(tasks.c.id, tasks.c.workspace_id, tasks.c.updated_at).where(
        tasks.c.workspace_id.is_not(None),
        tasks.c.host.is_not_distinct_from(host),
        tasks.c.state.in_([state.value for state in states]),
    )
    return [(TaskId(id_), WorkspaceId(workspace_id), at) for id_, workspace_id, at in await connection.execute(query)]


async def of_workspaces(
    connection: AsyncConnection,
    workspace_ids: Collection[WorkspaceId],
    *,
    seen_by: UserId | None,
    states: Collection[TaskState],
) -> Mapping[WorkspaceId, TaskId]:
    """Those in one of ``states`` that work in these workspaces."""
    found: dict[WorkspaceId, TaskId] = {}
    for some in batched(sorted(workspace_ids)):
        query = select(tasks.c.workspace_id, tasks.c.id).where(
            tasks.c.workspace_id.in_(some), tasks.c.state.in_([state.value for state in states]), _seen_by(seen_by)
        )
        found |= {WorkspaceId(workspace_id): TaskId(id_) for workspace_id, id_ in await connection.execute(query)}
    return found


async def count_live(connection: AsyncConnection, *, owner: str) -> int:
    """Those that have a workspace, or are about to."""
    live = (tasks.c.state == TaskState.STARTING.value) | tasks.c.workspace_id.is_not(None)
    return (await connection.execute(select(func.count()).where(tasks.c.owner == owner, live))).scalar_one()


async def delete(transaction: Transaction, task_id: TaskId) -> None:
    """With everything that belongs to it. Nothing happens where it is gone."""
    await transaction.connection.execute(delete_from(tasks).where(tasks.c.id == task_id))
    transaction.tell(task_id)


def batched(items: Sequence[T], size: int = IDS_IN_QUERY) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def is_storable(reference: str) -> bool:
    """Whether a row can have such an id at all: what people type may be anything."""
    return reference.isascii() and reference.isprintable() and 0 < len(reference) <= MAX_ID_CHARS


def no_task(reference: str) -> NotFound:
    return NotFound(f"There is no task {reference!r}.", mend="`shadow task list` shows those there are.")


def _encode_settings(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value))


_ENCODERS: Mapping[str, Callable[[Any], str | None]] = {"checkout": encode_checkout, "settings": _encode_settings}
_STATES = {state.value: state for state in TaskState}
_COLUMNS = (
    *("id", "owner", "project_id", "title", "model", "repository", "workspace_id", "host", "outcome", "summary"),
    *("runs", "events", "created_at", "updated_at"),
)


def _row(task: Task) -> dict[str, Any]:
    values = {name: getattr(task, name) for name in _COLUMNS}
    encoded = {name: encode(getattr(task, name)) for name, encode in _ENCODERS.items()}
    return {**values, **encoded, "state": task.state.value}


def as_tasks(result: CursorResult[Any]) -> list[Task]:
    """Of a query for whole rows."""
    names = tuple(result.keys())
    return [_task(zip(names, row, strict=True)) for row in result]  # a mapping for each row would take twice as long


def _task(row: Any) -> Task:
    values = dict(row)
    values["state"] = _STATES[values["state"]]
    values["checkout"] = decode_checkout(values["checkout"])
    values["settings"] = json.loads(values["settings"])
    return Task(**values)
