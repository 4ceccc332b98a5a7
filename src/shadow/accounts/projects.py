"""What can be asked of projects. Everything here is one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.accounts.service import CHANGED
from shadow.core.accounts import Member, Principal, Project, ProjectId, ProjectRole, UserId, check_name
from shadow.core.errors import Conflict, Denied, LimitExceeded
from shadow.core.ids import make_id
from shadow.core.keys import KeyOwner
from shadow.db import accounts, keys, projects
from shadow.db.database import Database, Transaction

MAX_PROJECTS = 200
"""That one user is in."""
MAX_MEMBERS = 500
_PROJECTS = 0x5AAD5
"""The lock around what is decided by looking at all members."""


@dataclass(slots=True, kw_only=True)
class Projects:
    database: Database
    entropy: Callable[[int], bytes]

    async def create(
        self, who: Principal, name: str, *, also: Callable[[Transaction, Project], Awaitable[None]] | None = None
    ) -> Project:
        """With ``who`` as its first member. ``also``: what else belongs into the transaction. Raises: Rejected, LimitExceeded."""
        check_name(name)
        async with self.database.write() as transaction:
            await transaction.lock(_PROJECTS)
            await self._check_room(transaction, who.user.id)
            id_ = ProjectId(make_id("proj", entropy=self.entropy(12)))
            project = Project(id=id_, name=name, created_at=transaction.now)
            await projects.add(transaction, project)
            await projects.set_member(transaction, project.id, who.user.id, ProjectRole.MEMBER)
            if also is not None:
                await also(transaction, project)
        return project

    async def list(self, who: Principal) -> Sequence[Project]:
        async with self.database.read() as connection:
            return await projects.all_of(connection, seen_by=_sees(who))

    async def members(self, who: Principal, project_id: ProjectId) -> tuple[Project, Sequence[Member]]:
        """Raises: NotFound: there is none, or not for them."""
        async with self.database.read() as connection:
            project = await projects.find(connection, project_id, seen_by=_sees(who))
            return project, await projects.members(connection, project_id)

    async def rename(self, who: Principal, project_id: ProjectId, name: str) -> Project:
        """Raises: NotFound, Denied, Rejected."""
        check_name(name)
        async with self.database.write() as transaction:
            project = await self._opened(transaction, who, project_id)
            await projects.rename(transaction, project_id, name)
        return Project(id=project.id, name=name, created_at=project.created_at)

    async def delete(self, who: Principal, project_id: ProjectId) -> None:
        """Raises: NotFound, Denied; Conflict: there are tasks in it."""
        async with self.database.write() as transaction:
            await self._opened(transaction, who, project_id)
            await projects.remove(transaction, project_id)

    async def set_member(self, who: Principal, project_id: ProjectId, user: str, role: ProjectRole) -> None:
        """``user``: an id, or a name: whoever may add somebody need not be an administrator, who alone sees all ids.

        Raises: NotFound, Denied; Conflict: nobody would be left who may change anything; LimitExceeded.
        """
        async with self.database.write() as transaction:
            await self._opened(transaction, who, project_id)
            user_id = (await accounts.find_user(transaction.connection, user)).id
            if await projects.role_in(transaction.connection, project_id, user_id) is None:
                await self._check_room(transaction, user_id)
                if len(await projects.members(transaction.connection, project_id)) >= MAX_MEMBERS:
                    raise LimitExceeded(f"{MAX_MEMBERS} users are in the project, as many as there may be.")
            await projects.set_member(transaction, project_id, user_id, role)
            await self._check_led(transaction, project_id)
            transaction.tell(CHANGED)

    async def remove_member(self, who: Principal, project_id: ProjectId, user: str) -> None:
        """What they have open of it ends. Raises: NotFound, Denied; Conflict: nobody would be left."""
        async with self.database.write() as transaction:
            await self._opened(transaction, who, project_id)
            user_id = (await accounts.find_user(transaction.connection, user)).id
            await projects.remove_member(transaction, project_id, user_id)
            # The project's keys lead where they say, and would go on to.
            await keys.remove_added_by(transaction, KeyOwner(project_id=project_id), user_id)
            await self._check_led(transaction, project_id)
            transaction.tell(CHANGED)

    async def check(self, who: Principal, project_id: ProjectId, *, writing: bool) -> None:
        """That it is there for them; ``writing``: that they may change it and begin tasks in it. Raises: NotFound, Denied."""
        async with self.database.read() as connection:
            if writing:
                await self.check_writable(connection, who, project_id)
            else:
                await projects.find(connection, project_id, seen_by=_sees(who))

    @staticmethod
    async def check_writable(connection: AsyncConnection, who: Principal, project_id: ProjectId) -> None:
        """As ``check``, where its answer is to hold for longer: see ``projects.keep``. Raises: NotFound, Denied."""
        await projects.find(connection, project_id, seen_by=_sees(who))
        _check_role(who, await projects.role_in(connection, project_id, who.user.id))

    async def _opened(self, transaction: Transaction, who: Principal, project_id: ProjectId) -> Project:
        await transaction.lock(_PROJECTS)  # of the last two members one stays
        project = await projects.find(transaction.connection, project_id, seen_by=_sees(who))
        _check_role(who, await projects.role_in(transaction.connection, project_id, who.user.id))
        return project

    async def _check_room(self, transaction: Transaction, user_id: UserId) -> None:
        if await projects.count_of(transaction.connection, user_id) >= MAX_PROJECTS:
            raise LimitExceeded(f"{MAX_PROJECTS} projects are as many as a user may be in.")

    async def _check_led(self, transaction: Transaction, project_id: ProjectId) -> None:
        left = await projects.members(transaction.connection, project_id)
        if not any(one.role is ProjectRole.MEMBER for one in left):
            raise Conflict(
                "Nobody would be left who may change the project.", mend="Make somebody else a member first."
            )


def _check_role(who: Principal, role: ProjectRole | None) -> None:
    if not who.is_admin and role is not ProjectRole.MEMBER:
        raise Denied("You may read this project, and not change it.", mend="Ask one of its members.")


def _sees(who: Principal) -> UserId | None:
    return None if who.is_admin else who.user.id
