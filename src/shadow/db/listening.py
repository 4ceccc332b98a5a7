"""How this process hears of what others wrote: PostgreSQL notifies; of SQLite a counter in memory is looked at."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.db.connections import Connections
from shadow.db.errors import DatabaseAway, Translated
from shadow.db.feed import Feed
from shadow.db.tables import tasks

CHANNEL = "shadow"
LOOK_EVERY_S = 0.05
_TOPICS_IN_PAYLOAD = 100
"""A payload has less than 8000 bytes."""
_IDS_IN_QUERY = 500


def as_payloads(name: str, topics: Collection[str]) -> Sequence[str]:
    """``name``: of the process that tells; it has told itself by then."""
    return [" ".join((name, *some)) for some in _parts(sorted(topics), _TOPICS_IN_PAYLOAD)]


def _parts(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


class Listening:
    """``await listening(feed)`` goes on while the feed is read. Raises: ShadowError: the connection does not hold."""

    def __init__(self, connections: Connections, *, name: str, writing: asyncio.Lock) -> None:
        self._connections = connections
        self._writing = writing
        self.name = name

    async def __call__(self, feed: Feed) -> None:
        with Translated():
            async with self._connections.open() as connection:
                await self._listen_by(connection, feed)

    async def _listen_by(self, connection: AsyncConnection, feed: Feed) -> None:
        if self._connections.is_sqlite:
            await self._look(connection, feed)
        else:
            await self._listen(connection, feed)

    async def _look(self, connection: AsyncConnection, feed: Feed) -> None:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        last: int | None = None
        while feed.is_read:
            ((seen,),) = await raw.execute_fetchall("PRAGMA data_version")
            if seen != last:
                last = seen
                async with self._writing:  # what this process has committed, it has told by then
                    await _tell_those_behind(connection, feed)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _listen(self, connection: AsyncConnection, feed: Feed) -> None:
        from asyncpg import InterfaceError, PostgresError

        raw: Any = (await connection.get_raw_connection()).driver_connection
        ended = asyncio.Event()

        def told(_connection: object, _pid: int, _channel: str, payload: str) -> None:
            name, *topics = payload.split(" ")
            if name != self.name:
                feed.tell(topics)

        def end(_connection: object) -> None:
            ended.set()

        raw.add_termination_listener(end)
        try:
            await raw.add_listener(CHANNEL, told)
        except (PostgresError, InterfaceError) as error:
            raise DatabaseAway(f"The database tells nothing: {error}.") from error
        feed.tell_all()  # what was written before we listened
        try:
            await ended.wait()
        finally:
            raw.remove_termination_listener(end)
            if not raw.is_closed():
                await raw.remove_listener(CHANNEL, told)


async def _tell_those_behind(connection: AsyncConnection, feed: Feed) -> None:
    """Any write moves SQLite's counter, ours too: readers of logs that stand at the end are spared."""
    for ids in _parts(feed.topics, _IDS_IN_QUERY):
        rows = (await connection.execute(select(tasks.c.id, tasks.c.events).where(tasks.c.id.in_(ids)))).all()
        ends: dict[str, int] = {row.id: row.events for row in rows}
        for id_ in ids:
            feed.tell_behind(id_, ends.get(id_))
    await connection.rollback()  # a transaction left open would keep the log from being emptied
