"""How this process hears of what others wrote: PostgreSQL notifies; of SQLite a counter in memory is looked at.

So many logs as are read here are one query, however many read them.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shadow.db.connections import Connections
from shadow.db.errors import DatabaseAway, Translated
from shadow.db.feed import SAFETY_NET_S, Feed
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
            if self._connections.is_sqlite:
                await self._look(feed)
            else:
                async with self._connections.open() as connection:
                    await self._listen(connection, feed)

    async def _look(self, feed: Feed) -> None:
        """By the one connection that writes here: it sees the commits of other processes, and its own it does not count."""
        last: tuple[object, int] | None = None
        looked_at = time.monotonic()
        while feed.is_read:
            async with (
                self._writing,  # what this process has committed, it has told by then
                self._connections.open(by_writer=True) as connection,
            ):
                raw: Any = (await connection.get_raw_connection()).driver_connection
                ((version,),) = await raw.execute_fetchall("PRAGMA data_version")
                is_news = (raw, version) != last
                if is_news or time.monotonic() - looked_at > SAFETY_NET_S:
                    last, looked_at = (raw, version), time.monotonic()
                    await _tell_those_behind(connection, feed, feed.topics if is_news else feed.logs)
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
            while not await _is_set(ended, within_s=SAFETY_NET_S):
                async with self._connections.open() as reading:
                    await _tell_those_behind(reading, feed, feed.logs)
        finally:
            raw.remove_termination_listener(end)
            if not raw.is_closed():
                await raw.remove_listener(CHANNEL, told)


async def _is_set(event: asyncio.Event, *, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()


async def _tell_those_behind(connection: AsyncConnection, feed: Feed, topics: Sequence[str]) -> None:
    """Readers of logs that stand at the end are spared; of ``topics`` that are no logs everybody is told."""
    for ids in _parts(topics, _IDS_IN_QUERY):
        rows = (await connection.execute(select(tasks.c.id, tasks.c.events).where(tasks.c.id.in_(ids)))).all()
        ends: dict[str, int] = {row.id: row.events for row in rows}
        for id_ in ids:
            feed.tell_behind(id_, ends.get(id_))
    await connection.rollback()  # a transaction left open would keep the log from being emptied
