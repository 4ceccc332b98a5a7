"""Connections of an engine that nobody loses: who is cancelled while one is made, or given back, leaves it to us."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shadow.db.engines import WRITING

CLOSES_WITHIN_S = 2.0


class Connections:
    """Of one engine, which they close in the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**WRITING)
        self._left: set[asyncio.Task[None]] = set()
        self._in_use: set[asyncio.Future[None]] = set()
        self.is_sqlite = engine.dialect.name == "sqlite"
        self.is_in_memory = self.is_sqlite and engine.url.database is None

    @asynccontextmanager
    async def open(self, *, writing: bool = False) -> AsyncGenerator[AsyncConnection]:
        """What is not committed before the end is rolled back."""
        # In a task of its own: SQLAlchemy forgets a connection, and leaves it open, that is cancelled while it is set up.
        opening = asyncio.create_task(self._opened(self._writing if writing else self._engine))
        try:
            connection = await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._leave(asyncio.create_task(_close_when_open(opening)))
            raise
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_use.add(done)
        try:
            yield connection
        finally:
            self._in_use.discard(done)
            done.cancel()
            closing = asyncio.create_task(connection.close())
            self._leave(closing)
            await asyncio.shield(closing)

    @staticmethod
    async def _opened(engine: AsyncEngine) -> AsyncConnection:
        return await engine.connect()

    def _leave(self, task: "asyncio.Task[None]") -> None:
        self._left.add(task)
        task.add_done_callback(self._left.discard)

    async def aclose(self) -> None:
        """What somebody still uses is waited for: the engine forgets it, and leaves it open."""
        if self._in_use:
            await asyncio.wait(self._in_use, timeout=CLOSES_WITHIN_S)
        await asyncio.gather(*self._left, return_exceptions=True)
        await self._engine.dispose()


async def _close_when_open(opening: "asyncio.Task[AsyncConnection]") -> None:
    await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().close()
