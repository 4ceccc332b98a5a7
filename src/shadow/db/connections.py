"""Connections of an engine that nobody loses: who is cancelled while one is made, or given back, leaves it to us."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shadow.db.engines import make_writer
from shadow.db.errors import database_closed
from shadow.db.patient import until_done

CLOSES_WITHIN_S = 2.0


class Connections:
    """Of one engine, which they close in the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing = make_writer(engine)
        self._is_closed = False
        self._made: set[Any] = set()
        self._taken: set[AsyncConnection] = set()
        self._left: set[asyncio.Task[None]] = set()
        self._in_use: set[asyncio.Future[None]] = set()
        self.is_sqlite = engine.dialect.name == "sqlite"
        self.is_in_memory = self.is_sqlite and engine.url.database is None
        for each in {engine.sync_engine.pool, self._writing.sync_engine.pool}:
            event.listen(each, "connect", self._keep, insert=True)  # before anything else is done with it

    def _keep(self, connection: Any, _record: object) -> None:
        """SQLAlchemy forgets one whose maker is cancelled, and those in use when the engine is done with."""
        if self._is_closed:
            raise database_closed()
        self._made = {each for each in self._made if not each.is_closed()}
        self._made.add(connection.driver_connection)

    @asynccontextmanager
    async def open(self, *, writing: bool = False, by_writer: bool = False) -> AsyncGenerator[AsyncConnection]:
        """What is not committed before the end is rolled back. ``by_writer``: to look at what the one that writes sees.

        Raises: Conflict: it is closed.
        """
        if self._is_closed:
            raise database_closed()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_use.add(done)
        try:
            connection = await self._opened(self._writing if writing or by_writer else self._engine, writing=writing)
            try:
                yield connection
            finally:
                await asyncio.shield(self._leave(self._give_back(connection)))
        finally:
            self._in_use.discard(done)
            done.cancel()

    async def _opened(self, engine: AsyncEngine, *, writing: bool) -> AsyncConnection:
        # In a task of its own: whoever is cancelled before he has it could not give it back.
        opening = asyncio.create_task(self._take(engine, writing=writing))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._leave(self._give_back_when_open(opening))
            raise

    async def _take(self, engine: AsyncEngine, *, writing: bool) -> AsyncConnection:
        connection = await engine.connect()
        self._taken.add(connection)
        if writing and self.is_sqlite:
            try:
                # Who reads first and writes then would fail where another one wrote meanwhile: the lock is taken, or waited for,
                # at once.
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            except BaseException:
                await self._give_back(connection)
                raise
        return connection

    async def _give_back(self, connection: AsyncConnection) -> None:
        await connection.close()
        self._taken.discard(connection)

    async def _give_back_when_open(self, opening: "asyncio.Task[AsyncConnection]") -> None:
        await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None:
            await self._give_back(opening.result())

    def _leave(self, doing: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(doing)
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        return task

    async def aclose(self) -> None:
        """What somebody still uses is waited for, for a while; then it ends with the statement that it is at."""
        self._is_closed = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSES_WITHIN_S):
                    while busy := self._in_use | self._left:
                        await asyncio.wait(busy)
            if not self.is_sqlite:
                await self._engine.dispose()  # takes leave of the server
        finally:
            await self._end_all()

    async def _end_all(self) -> None:
        """A loop that ends cancels every task, some before they have begun to give back what they should."""
        endings = [connection.terminate() for connection in self._made]
        try:
            await until_done([ending for ending in endings if ending is not None])
        finally:
            for connection in self._taken:
                if (taken := connection.sync_connection) is not None and not taken.closed:
                    taken.invalidate()  # what it stands on has ended: there is nothing to roll back, or to wait for
                    taken.close()
