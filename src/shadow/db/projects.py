"""Projects and their members in the database. What that means for tasks, ``db/tasks.py`` says."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, insert, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.accounts import Member, Project, ProjectId, ProjectRole, UserId
from shadow.core.errors import Conflict, NotFound
from shadow.db.database import Transaction
from shadow.db.tables import project_members, projects, users
from shadow.db.tasks import is_storable


async def add(transaction: Transaction, project: Project) -> None:
    await transaction.connection.execute(
        insert(projects).values(id=project.id, name=project.name, created_at=project.created_at)
    )


async def find(connection: AsyncConnection, project_id: ProjectId, *, seen_by: UserId | None) -> Project:
    """Raises: NotFound: there is none, or not for them."""
    if is_storable(project_id):
        query = select(projects).where(projects.c.id == project_id, _seen_by(seen_by))
        row = (await connection.execute(query)).mappings().one_or_none()
        if row is not None:
            return Project(**row)
    raise no_project(project_id)


async def all_of(connection: AsyncConnection, *, seen_by: UserId | None) -> Sequence[Project]:
    query = select(projects).where(_seen_by(seen_by)).order_by(projects.c.created_at, projects.c.id)
    return [Project(**row) for row in (await connection.execute(query)).mappings()]


async def count_of(connection: AsyncConnection, user_id: UserId) -> int:
    query = select(func.count()).select_from(project_members).where(project_members.c.user_id == user_id)
    return (await connection.execute(query)).scalar_one()


def _seen_by(user_id: UserId | None) -> ColumnElement[bool]:
    """``None``: of somebody who sees all."""
    if user_id is None:
        return true()
    own = select(project_members.c.project_id).where(project_members.c.user_id == user_id)
    return projects.c.id.in_(own)


async def role_in(connection: AsyncConnection, project_id: ProjectId, user_id: UserId) -> ProjectRole | None:
    query = select(project_members.c.role).where(
        project_members.c.project_id == project_id, project_members.c.user_id == user_id
    )
    found = (await connection.execute(query)).scalar_one_or_none()
    return None if found is None else ProjectRole(found)


async def keep(transaction: Transaction, project_id: ProjectId) -> None:
    """Nobody deletes it before the transaction's end."""
    if is_storable(project_id):
        query = select(projects.c.id).where(projects.c.id == project_id).with_for_update(read=True, key_share=True)
        await transaction.connection.execute(query)


async def keep_member(transaction: Transaction, project_id: ProjectId, user_id: UserId) -> None:
    """What they are in it they are until the transaction's end."""
    if is_storable(project_id):
        query = select(project_members.c.role).where(
            project_members.c.project_id == project_id, project_members.c.user_id == user_id
        )
        await transaction.connection.execute(query.with_for_update(read=True))


async def rename(transaction: Transaction, project_id: ProjectId, name: str) -> None:
    await transaction.connection.execute(update(projects).where(projects.c.id == project_id).values(name=name))


async def remove(transaction: Transaction, project_id: ProjectId) -> None:
    """Raises: Conflict: there are tasks in it."""
    try:
        async with transaction.connection.begin_nested():
            await transaction.connection.execute(delete(projects).where(projects.c.id == project_id))
    except IntegrityError as error:
        raise Conflict("There are tasks in the project.", mend="Delete them first.") from error


async def members(connection: AsyncConnection, project_id: ProjectId) -> Sequence[Member]:
    query = (
        select(users.c.id, users.c.name, project_members.c.role)
        .join(users, users.c.id == project_members.c.user_id)
        .where(project_members.c.project_id == project_id)
        .order_by(users.c.name)
    )
    rows = await connection.execute(query)
    return [Member(user_id=UserId(row.id), name=row.name, role=ProjectRole(row.role)) for row in rows]


async def set_member(transaction: Transaction, project_id: ProjectId, user_id: UserId, role: ProjectRole) -> None:
    """Added, or given another role."""
    mine = (project_members.c.project_id == project_id) & (project_members.c.user_id == user_id)
    changed = await transaction.connection.execute(update(project_members).where(mine).values(role=role.value))
    if changed.rowcount == 0:
        await transaction.connection.execute(
            insert(project_members).values(project_id=project_id, user_id=user_id, role=role.value)
        )


async def remove_member(transaction: Transaction, project_id: ProjectId, user_id: UserId) -> None:
    """Raises: NotFound."""
    if is_storable(user_id):
        mine = (project_members.c.project_id == project_id) & (project_members.c.user_id == user_id)
        if (await transaction.connection.execute(delete(project_members).where(mine))).rowcount:
            return
    raise NotFound(f"{user_id!r} is not in the project.", mend="`shadow project show` says who is.")


def no_project(project_id: str) -> NotFound:
    return NotFound(f"There is no project {project_id!r}.", mend="`shadow project list` shows those that you are in.")
