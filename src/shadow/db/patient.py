"""A connection to SQLite that outlives whoever is cancelled while he uses it.

A statement runs in a thread and goes on there when its caller is cancelled: a connection given up in the middle of one would
keep the lock of its transaction, and one to a database in memory would take the database with it.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine


class PatientConnection(aiosqlite.Connection):
    """Who is cancelled is so when the statement has ended; what ran is undone by the rollback that follows."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=64)
        self._thread.daemon = True  # as SQLAlchemy does where it makes the connection

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        doing: asyncio.Future[Any] = asyncio.ensure_future(super()._execute(fn, *args, **kwargs))  # pyright: ignore[reportUnknownMemberType]
        cancelled: asyncio.CancelledError | None = None
        while not doing.done():
            try:
                await asyncio.wait((doing,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is None:
            return doing.result()
        doing.exception()  # told to nobody: the caller has gone
        raise cancelled


def keep_connections(engine: AsyncEngine) -> None:
    """SQLAlchemy takes every cancellation for the end of the connection; of patient ones it is none."""

    def keep(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, asyncio.CancelledError):
            context.is_disconnect = False

    event.listen(engine.sync_engine, "handle_error", keep)
