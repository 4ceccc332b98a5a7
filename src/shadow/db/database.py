"""One database for everything that must last: SQLite in the data directory, or PostgreSQL where a URL says so.

What belongs together is written in one transaction (``write``); the modules beside this one say what, each for one noun.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, and_, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.core.errors import Broken, OutcomeUnknown, Unavailable
from shadow.core.events import Recorded
from shadow.core.jobs import JobState
from shadow.db.connections import Connections
from shadow.db.engines import FILE, make_engine
from shadow.db.errors import CommitUnknown, DatabaseAway, Translated, lease_lost
from shadow.db.feed import Feed
from shadow.db.guard import shared
from shadow.db.listening import CHANNEL, Listening, as_payloads
from shadow.db.migrating import bring_up_to_date
from shadow.db.tables import jobs

__all__ = ["FILE", "Database", "Fence", "Transaction", "open_database"]

Clock = Callable[[], float]
Observe = Callable[[str, float, str | None], None]
"""Told of each use: ``read`` or ``write``, how long it took in seconds, the code of the error where the database failed."""
FAILURES = (Unavailable, OutcomeUnknown, Broken)
"""Of the database's own; that somebody's task is not there is an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What a worker writes under: the database takes it only while the job is still the worker's."""

    job_id: str
    epoch: int


class Transaction:
    """``connection`` for statements; ``now`` is the database's time, the same for the whole transaction.

    Who changes several rows changes the task's before the job's (``write(fence=…)`` changes neither): nobody waits in a circle.
    """

    def __init__(self, connection: AsyncConnection, now: float) -> None:
        self.connection = connection
        self.now = now
        self.news: dict[str, list[Recorded]] = {}

    def tell(self, topic: str, recorded: Sequence[Recorded] = ()) -> None:
        """Readers of ``topic`` are told once this is committed. ``recorded``: what was added to its log."""
        self.news.setdefault(topic, []).extend(recorded)

    async def lock(self, number: int) -> None:
        """Whoever asks for the same lock waits until this transaction has ended; where all writers wait anyway it is free."""
        if self.connection.dialect.name == "postgresql":
            await self.connection.execute(select(func.pg_advisory_xact_lock(number)))

    async def check(self, fence: Fence) -> None:
        """Raises: LeaseLost. Until the end of the transaction nobody can take the job over.

        Its lease can be renewed meanwhile, and a stop be asked for: the weakest lock on the row is enough, and stands in the
        way of no change but a takeover.
        """
        held = select(jobs.c.id).where(held_by(fence)).with_for_update(read=True, key_share=True)
        if (await self.connection.execute(held)).first() is None:
            raise lease_lost()


def held_by(fence: Fence) -> ColumnElement[bool]:
    """Of the job's row, as long as nobody has taken it over and it has not ended."""
    return and_(jobs.c.id == fence.job_id, jobs.c.epoch == fence.epoch, jobs.c.state == JobState.RUNNING.value)


class Database:
    """Use it on one event loop. ``open_database`` makes one."""

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock
        self._is_sqlite = self._connections.is_sqlite
        self._writing = asyncio.Lock()
        self._listening = Listening(self._connections, name=os.urandom(8).hex(), writing=self._writing)
        self.feed = Feed(None if self._connections.is_in_memory else self._listening)
        self.observe: Observe | None = None
        self._begin_with: Callable[[Transaction], Awaitable[None]] | None = None

    def beginning_with(self, check: Callable[[Transaction], Awaitable[None]]) -> "Database":
        """The same database, whose every transaction that writes begins with ``check``; what that raises, undoes it."""
        other = copy(self)
        other._begin_with = check  # noqa: SLF001 - our own
        return other

    @property
    def is_shared(self) -> bool:
        """Whether processes of other hosts may work with it."""
        return not self._is_sqlite

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        with self._observed("read"), Translated():
            async with self._connections.open() as connection:
                yield connection

    @asynccontextmanager
    async def write(self, *, fence: Fence | None = None) -> AsyncGenerator[Transaction]:
        """One transaction, all or nothing.

        Raises: LeaseLost: ``fence`` no longer holds. OutcomeUnknown: the connection broke while it was being committed.
        """
        with self._observed("write"), Translated():
            async with self._connected_to_write() as connection:
                transaction = Transaction(connection, await self.now(connection))
                if fence is not None:
                    await transaction.check(fence)
                if self._begin_with is not None:
                    await self._begin_with(transaction)
                yield transaction
                if not self._is_sqlite:
                    for payload in as_payloads(self._listening.name, transaction.news):
                        await connection.execute(select(func.pg_notify(CHANNEL, payload)))
                try:
                    await self._commit(connection)
                except BaseException:
                    # We may not know, for one who is cancelled here does not: they look for themselves.
                    self.feed.tell(transaction.news)
                    raise
                self.feed.tell_of(transaction.news)

    @asynccontextmanager
    async def _connected_to_write(self) -> AsyncGenerator[AsyncConnection]:
        # One at a time in this process, where waiting for SQLite's lock would cost retries.
        alone = self._writing if self._is_sqlite else nullcontext()
        async with alone, self._connections.open(writing=True) as connection:
            yield connection

    async def _commit(self, connection: AsyncConnection) -> None:
        try:
            with Translated():
                await connection.commit()
        except DatabaseAway as error:
            raise CommitUnknown(
                f"Nobody knows whether it was written. {error.message}", mend="Look before you repeat it."
            ) from error

    async def now(self, connection: AsyncConnection) -> float:
        """PostgreSQL's own clock, which all its workers share; SQLite is on this host, whose clock is the one."""
        if self._is_sqlite:
            return self._clock()
        return float((await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one())

    async def time(self) -> float:
        """``now``, for who has no connection."""
        if self._is_sqlite:
            return self._clock()
        async with self.read() as connection:
            return await self.now(connection)

    @contextmanager
    def _observed(self, kind: str) -> Generator[None]:
        began_at, code = time.monotonic(), None
        try:
            yield
        except FAILURES as error:
            code = error.code
            raise
        finally:
            if self.observe is not None:
                self.observe(kind, time.monotonic() - began_at, code)

    async def aclose(self) -> None:
        try:
            await self.feed.aclose()
        finally:
            await self._connections.aclose()


@asynccontextmanager
async def open_database(
    data_dir: Path, *, url: str | None = None, clock: Clock = time.time
) -> AsyncGenerator[Database]:
    """The database that ``url`` names, else the embedded one of the data directory; made or brought up to date.

    ``url``: ``postgresql://USER@HOST/NAME``, or ``sqlite://`` for one in memory.
    Raises: Denied, Broken, LimitExceeded, NotFound, SettingsRefused, Unavailable, Unsupported.
    """
    engine = make_engine(data_dir, url)
    async with AsyncExitStack() as opened:
        if url is None:
            await opened.enter_async_context(shared(data_dir / FILE))
        connections = Connections(engine)
        database = Database(connections, clock)
        opened.push_async_callback(database.aclose)
        with Translated():
            await bring_up_to_date(connections)
        yield database
