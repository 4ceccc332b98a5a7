"""Tasks and their event logs in a database: SQLite in the data directory."""

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event, insert, inspect, select, update
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shadow.core.errors import Broken, Conflict, Denied, LimitExceeded, NotFound, ShadowError, Unavailable
from shadow.core.events import Recorded, TaskEvent
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db.codec import decode_checkout, decode_event, encode_checkout, encode_event
from shadow.db.tables import SCHEMA_VERSION, events, metadata, schema, tasks

FILE = "shadow.db"
BUSY_MS = 15_000
PAGE = 1000
_WRITING = {"begin": "BEGIN IMMEDIATE"}
"""Who reads first and writes then would fail where another one wrote meanwhile: the lock is taken, or waited for, at once."""


class TaskStore:
    """Use it on one event loop. ``open_store`` makes one."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._writing = asyncio.Lock()

    async def add_task(self, task: Task) -> None:
        async with self._write() as connection:
            await connection.execute(insert(tasks).values(_row(task)))

    async def change_task(self, task_id: TaskId, **values: Any) -> None:
        """Set columns of a task. Raises: NotFound."""
        values = {**values, "updated_at": self._clock()}
        if "checkout" in values:
            values["checkout"] = encode_checkout(values["checkout"])
        async with self._write() as connection:
            done = await connection.execute(update(tasks).where(tasks.c.id == task_id).values(values))
            if done.rowcount == 0:
                raise _no_task(task_id)

    async def task(self, reference: str) -> Task:
        """By its id or a unique beginning of it. Raises: NotFound, Conflict."""
        if not reference.isascii():
            raise _no_task(reference)
        prefixed = reference if reference.startswith("task_") else f"task_{reference}"
        wanted = tasks.c.id.startswith(prefixed, autoescape=True)
        async with self._read() as connection:
            rows = (await connection.execute(select(tasks).where(wanted).limit(3))).mappings().all()
        if not rows or not reference:
            raise _no_task(reference)
        exact = [row for row in rows if row["id"] == reference]
        if len(rows) > 1 and not exact:
            raise Conflict(f"{reference!r} may mean several tasks.", mend="Give more of the id.")
        return _task((exact or list(rows))[0])

    async def list_tasks(self, *, limit: int = PAGE) -> Sequence[Task]:
        """Newest first."""
        query = select(tasks).order_by(tasks.c.created_at.desc(), tasks.c.id).limit(limit)
        async with self._read() as connection:
            return [_task(row) for row in (await connection.execute(query)).mappings()]

    async def append(self, task_id: TaskId, new: Sequence[TaskEvent]) -> Sequence[Recorded]:
        """Add events to the end of a task's log, all or none. Raises: NotFound."""
        if not new:
            return []
        at = self._clock()
        # The row of the task is written first: it makes writers of one log wait for each other.
        grow = update(tasks).where(tasks.c.id == task_id).values(events=tasks.c.events + len(new), updated_at=at)
        async with self._write() as connection:
            end = (await connection.execute(grow.returning(tasks.c.events))).scalar_one_or_none()
            if end is None:
                raise _no_task(task_id)
            first = end - len(new) + 1
            recorded = [Recorded(seq=first + number, at=at, event=e) for number, e in enumerate(new)]
            rows = [
                {"task_id": task_id, "seq": r.seq, "at": at, "kind": r.event.kind, "body": encode_event(r.event)}
                for r in recorded
            ]
            await connection.execute(insert(events), rows)
        return recorded

    async def events(self, task_id: TaskId, *, after: int = 0, limit: int = PAGE) -> Sequence[Recorded]:
        """At most ``limit`` events behind number ``after``, in order."""
        query = (
            select(events).where(events.c.task_id == task_id, events.c.seq > after).order_by(events.c.seq).limit(limit)
        )
        async with self._read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [Recorded(seq=row["seq"], at=row["at"], event=decode_event(row["kind"], row["body"])) for row in rows]

    async def all_events(self, task_id: TaskId) -> Sequence[Recorded]:
        found: list[Recorded] = []
        while page := await self.events(task_id, after=found[-1].seq if found else 0):
            found.extend(page)
        return found

    @asynccontextmanager
    async def _read(self) -> AsyncGenerator[AsyncConnection]:
        with _Translated():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def _write(self) -> AsyncGenerator[AsyncConnection]:
        """One transaction; one at a time in this process, where waiting for SQLite's lock would cost retries."""
        with _Translated():
            async with self._writing, self._engine.execution_options(**_WRITING).begin() as connection:
                yield connection


class _Translated:
    """Turns what the database raises into typed errors."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, DatabaseError | sqlite3.DatabaseError):
            raise database_error(error) from error


def database_error(error: Exception) -> ShadowError:
    text = str(getattr(error, "orig", None) or error)
    if "full" in text:
        return LimitExceeded(f"The database cannot grow: {text}.", mend="Make room on the disk of the data directory.")
    if "locked" in text or "busy" in text:
        return Unavailable(f"The database is in use by somebody else: {text}.", mend="Try again.")
    if "readonly" in text or "unable to open" in text:
        return Denied(
            f"The database cannot be written: {text}.", mend="Make the data directory writable for this user."
        )
    if "malformed" in text or "not a database" in text:
        return Broken(
            f"The database is damaged: {text}.", mend="Restore it from a backup, or move it away to start anew."
        )
    kind = Unavailable if isinstance(error, OperationalError) else Broken
    return kind(f"The database failed: {text}.")


def _no_task(reference: str) -> NotFound:
    return NotFound(f"There is no task {reference!r}.", mend="`shadow task list` shows those there are.")


def _row(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "title": task.title,
        "state": task.state.value,
        "model": task.model,
        "repository": task.repository,
        "checkout": encode_checkout(task.checkout),
        "workspace_id": task.workspace_id,
        "outcome": task.outcome,
        "summary": task.summary,
        "runs": task.runs,
        "events": task.events,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
    }


def _task(row: Any) -> Task:
    values = dict(row)
    values["state"] = TaskState(values["state"])
    values["checkout"] = decode_checkout(values["checkout"])
    return Task(**values)


@asynccontextmanager
async def open_store(data_dir: Path, *, clock: Callable[[], float] = time.time) -> AsyncGenerator[TaskStore]:
    """The embedded database of a data directory, made where it is not there. Raises: Denied, Broken, LimitExceeded."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Denied(f"{data_dir} cannot be made: {error.strerror}.", mend="Set SHADOW_DATA_DIR.") from error
    path = data_dir / FILE
    try:
        # What tasks say is for nobody else, whatever the directory allows.
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _cannot_open(path, error) from error
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)))
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    try:
        with _Translated():
            async with engine.connect() as connection:
                is_new = await connection.run_sync(_is_new)
            if is_new:
                async with engine.execution_options(**_WRITING).begin() as connection:
                    await connection.run_sync(_make_tables)
        yield TaskStore(engine, clock)
    finally:
        await engine.dispose()


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, see _begin
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _is_new(connection: Connection) -> bool:
    """Whether the tables are still to be made. Raises: Broken: by a newer version."""
    if not inspect(connection).has_table(schema.name):
        return True
    version = connection.execute(select(schema.c.version)).scalar_one()
    if version > SCHEMA_VERSION:
        raise Broken(
            f"The database has version {version} of its schema; this Shadow knows {SCHEMA_VERSION}.",
            mend="Use a newer Shadow.",
        )
    return False


def _make_tables(connection: Connection) -> None:
    if _is_new(connection):  # another process may have made them meanwhile
        metadata.create_all(connection)
        connection.execute(insert(schema).values(version=SCHEMA_VERSION))


def _cannot_open(path: Path, error: OSError) -> ShadowError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LimitExceeded(f"{path} cannot be made: {error.strerror}.", mend="Make room on its disk.")
    return Denied(f"{path} cannot be opened: {error.strerror}.", mend="Give it to this user, or set SHADOW_DATA_DIR.")
