"""A connection to SQLite that outlives whoever is cancelled while he uses it.

A statement runs in a thread and goes on there when its caller is cancelled: a connection given up in the middle of one would
keep the lock of its transaction, and one to a database in memory would take the database with it.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine


class PatientConnection(aiosqlite.Connection):
    """Who is cancelled is so when the statement has ended; what ran is undone by the rollback that follows.

    What its thread does is a future and no task: a loop that ends cancels all tasks, and would leave the thread behind.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=64)
        self._thread.daemon = True  # as SQLAlchemy does where it makes the connection
        self._ending: asyncio.Future[Any] | None = None

    def cursor(self) -> "WholeCursor":  # pyright: ignore[reportIncompatibleMethodOverride] - all that SQLAlchemy asks of one
        return WholeCursor(self)

    async def rollback(self) -> None:
        if self.in_transaction:
            await super().rollback()

    async def run(self, do: Callable[[sqlite3.Connection], Any]) -> Any:
        """In the connection's thread."""
        return await self._execute(lambda: do(self._conn))

    def is_closed(self) -> bool:
        return not self._running and (self._ending is None or self._ending.done())

    async def _connect(self) -> "PatientConnection":
        def connect() -> None:  # in the thread: whoever waits for it may be cancelled
            self._connection = self._connector()

        try:
            await self._in_thread(connect)
        except BaseException:
            await self.close()
            raise
        return self

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._running:
            raise ValueError("Connection closed")  # as SQLAlchemy knows it
        return await self._in_thread(partial(fn, *args, **kwargs))

    async def _in_thread(self, do: Callable[[], Any]) -> Any:
        doing: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((doing, do))  # pyright: ignore[reportUnknownMemberType]
        try:
            await until_done([doing])
        except asyncio.CancelledError:
            doing.exception()  # told to nobody: the caller has gone
            raise
        return doing.result()

    async def close(self) -> None:
        """When it has done what it was given. A repeat waits as well."""
        if (ending := self.stop()) is not None:
            await until_done([ending])

    def stop(self) -> "asyncio.Future[Any] | None":
        """As ``close``, for who does not wait. ``None``: there is no loop to wait on."""
        if self._running:
            self._ending = super().stop()  # pyright: ignore[reportUnknownMemberType]
        return self._ending

    def terminate(self) -> "asyncio.Future[Any] | None":
        """``stop``, as asyncpg calls it."""
        return self.stop()


_OUTSIDE = ("BEGIN", "PRAGMA")
"""Statements that begin a transaction, or would not work in one; any other begins one where there is none."""


class WholeCursor:
    """One way to the thread and back for a statement with all that it gives; aiosqlite's own cursor takes four.

    Each way costs more than most statements: two threads that wake each other, and contend for the interpreter.
    """

    arraysize = 1

    def __init__(self, connection: PatientConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> "WholeCursor":
        return self

    async def execute(self, operation: str, parameters: Any = ()) -> "WholeCursor":
        return await self._run(operation, lambda cursor: cursor.execute(operation, parameters))

    async def executemany(self, operation: str, parameters: Any) -> "WholeCursor":
        return await self._run(operation, lambda cursor: cursor.executemany(operation, parameters))

    async def _run(self, operation: str, execute: Callable[[sqlite3.Cursor], object]) -> "WholeCursor":
        def run(connection: sqlite3.Connection) -> None:
            if not connection.in_transaction and not operation.startswith(_OUTSIDE):
                connection.execute("BEGIN")
            with closing(connection.cursor()) as cursor:
                execute(cursor)
                self.description = cursor.description
                self._rows = cursor.fetchall() if cursor.description else []
                self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid

        await self._connection.run(run)
        return self

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """It is, since its statement ended."""


async def until_done(futures: Iterable["asyncio.Future[Any]"]) -> None:
    """Who is cancelled meanwhile is so when all are done."""
    cancelled: asyncio.CancelledError | None = None
    while waiting := [future for future in futures if not future.done()]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def keep_connections(engine: AsyncEngine) -> None:
    """SQLAlchemy takes every cancellation for the end of the connection; of patient ones it is none."""

    def keep(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, asyncio.CancelledError):
            context.is_disconnect = False

    event.listen(engine.sync_engine, "handle_error", keep)
