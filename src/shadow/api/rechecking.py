"""What stays open is ended as soon as whoever opened it may no longer: one task and few queries for all of it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from shadow.accounts.service import CHANGED, is_good
from shadow.api.access import PUBLIC, SIGNED_IN, WRITING, sees_only
from shadow.core.accounts import Principal, Scope, UserId
from shadow.core.errors import Denied, ShadowError, Unauthenticated
from shadow.core.tasks import TaskId
from shadow.db import accounts, tasks
from shadow.db.database import Database

RECHECK_S = 30.0
"""What nobody told us of (a notice that was lost) is noticed after so long."""
APART_S = 0.25
"""Between two looks: where any write to the database wakes us, many in a second cost four queries."""

log = structlog.get_logger("shadow.server")


@dataclass(eq=False, slots=True)
class _Opened:
    who: Principal
    access: str
    task_id: TaskId | None
    scope: asyncio.Timeout
    error: ShadowError | None = None


class Rechecking:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._opened: set[_Opened] = set()
        self._looking: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()

    @asynccontextmanager
    async def while_good(self, who: Principal, access: str, task_id: TaskId | None) -> AsyncGenerator[None]:
        """Ends the block when the credential is revoked or expires, its user is shut out, or the task is no longer theirs.

        Raises: Unauthenticated, Denied.
        """
        opened = _Opened(who, access, task_id, asyncio.timeout(None))
        try:
            async with opened.scope:
                self._opened.add(opened)
                self._look_now.set()  # for what happened since the request was let in
                if self._looking is None:
                    self._looking = asyncio.create_task(self._look())
                try:
                    yield
                finally:
                    self._opened.discard(opened)
                    if not self._opened:
                        self._looking.cancel()
                        self._looking = None
        except TimeoutError:
            if opened.error is None:
                raise
            raise opened.error from None

    async def _look(self) -> None:
        with self._database.feed.subscribe(CHANGED) as news:
            while True:
                self._look_now.clear()
                wait_s = RECHECK_S
                try:
                    wait_s = await self._check()
                except ShadowError as error:
                    # Nobody can be shut out either while the database is away.
                    log.warning("server.recheck_failed", error=error.code)
                await asyncio.sleep(APART_S)
                told = asyncio.create_task(news.wait(timeout_s=wait_s))
                opened = asyncio.create_task(self._look_now.wait())
                try:
                    await asyncio.wait((told, opened), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    told.cancel()
                    opened.cancel()

    async def _check(self) -> float:
        """Returns after how many seconds the next one of them expires, or else ``RECHECK_S``."""
        looked_at = list(self._opened)
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            shown = await accounts.by_ids(connection, {one.who.credential.id for one in looked_at})
            asked: dict[tuple[UserId | None, bool], set[TaskId]] = defaultdict(set)
            good = {one: who for one in looked_at if (who := _as_it_stands(one, shown.get(one.who.credential.id), now))}
            for one, who in good.items():
                if one.task_id is not None:
                    asked[_view(who, one)].add(one.task_id)
            hidden = {
                view: await tasks.hidden_from(connection, view[0], ids, writing=view[1]) for view, ids in asked.items()
            }
        for one, who in good.items():
            if one.task_id is not None and one.task_id in hidden[_view(who, one)]:
                _end(one, Denied("This is not shared with you any more."))
        ends = [who.credential.expires_at for who in good.values() if who.credential.expires_at is not None]
        return max(0.0, min([RECHECK_S, *(end - now for end in ends)]))


def _as_it_stands(opened: _Opened, who: Principal | None, now: float) -> Principal | None:
    """Whoever opened it, if they still may; else it is ended."""
    if who is None or not is_good(who, now):
        _end(opened, Unauthenticated("The credential was revoked, or has expired."))
        return None
    try:
        if opened.access not in (PUBLIC, SIGNED_IN):
            who.check(Scope(opened.access))
    except Denied as error:
        _end(opened, error)
        return None
    return who


def _view(who: Principal, opened: _Opened) -> tuple[UserId | None, bool]:
    return sees_only(who), opened.access in WRITING


def _end(opened: _Opened, error: ShadowError) -> None:
    opened.error = error
    if not opened.scope.expired():
        opened.scope.reschedule(asyncio.get_running_loop().time())
