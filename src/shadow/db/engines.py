"""Connections to a database: what each kind needs on connecting, and how its transactions begin."""

import errno
import os
import sqlite3
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from shadow.core.errors import Denied, LimitExceeded, SettingsRefused, ShadowError, Unsupported
from shadow.db.errors import DatabaseAway, database_error
from shadow.db.patient import PatientConnection, keep_connections

FILE = "shadow.db"
BUSY_MS = 15_000
POOL = 10
CONNECT_S = 10
COMMAND_S = 60
"""How long one statement may take."""
PAUSED_S = 30
"""A process that stops in the middle of a transaction holds up the others for so long."""


def make_engine(data_dir: Path, url: str | None) -> AsyncEngine:
    """Connects to nothing yet. Raises: Denied, LimitExceeded, SettingsRefused, Unsupported."""
    if url is not None and url.startswith(("postgresql:", "postgres:")):
        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=_postgresql(url),
            pool_size=POOL,
            max_overflow=POOL,
            pool_pre_ping=True,
        )
    if url == "sqlite://":
        # What is in memory one connection sees, and nobody else; a transaction waits for the one before it.
        return _sqlite(None, pool_size=1, max_overflow=0)
    if url is None:
        return _sqlite(_make_file(data_dir), pool_size=POOL, max_overflow=POOL)
    raise SettingsRefused("SHADOW_DATABASE_URL names no database that Shadow knows.", mend=_URL_MEND)


def make_writer(engine: AsyncEngine) -> AsyncEngine:
    """What writes, of a database that ``engine`` reads. Of a SQLite file it is one connection, the same each time: to that one,
    what it sees change was changed by another process.
    """
    if engine.dialect.name != "sqlite" or engine.url.database is None:
        return engine
    return _sqlite(Path(engine.url.database), pool_size=1, max_overflow=0)


_URL_MEND = "Give postgresql://USER:PASSWORD@HOST/NAME, or unset it for the database in the data directory."


def _sqlite(path: Path | None, **pool: int) -> AsyncEngine:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)  # see patient.py

    async def connected() -> PatientConnection:
        connection = PatientConnection(connect)
        await connection
        return connection

    url = URL.create("sqlite+aiosqlite", database=None if path is None else str(path))
    engine = create_async_engine(url, async_creator=connected, poolclass=AsyncAdaptedQueuePool, **pool)
    event.listen(engine.sync_engine, "connect", _prepare)
    keep_connections(engine)
    return engine


def _postgresql(url: str) -> Callable[[], Awaitable[Any]]:
    """Connects as PostgreSQL's own programs do: from the URL, else from their variables and files (``PGPASSFILE``, …)."""
    try:
        import asyncpg
    except ImportError as error:
        raise Unsupported(
            "PostgreSQL needs its driver.", mend="Install it: pip install 'shadow-agents[postgresql]'."
        ) from error

    driver: Any = asyncpg  # its types say little

    async def connect() -> Any:
        try:
            return await driver.connect(
                url,
                timeout=CONNECT_S,
                command_timeout=COMMAND_S,
                server_settings={
                    "application_name": "shadow",
                    "idle_in_transaction_session_timeout": f"{PAUSED_S}s",
                },
            )
        except (asyncpg.PostgresError, ConnectionError, TimeoutError) as error:
            raise database_error(error) from error
        except ssl.SSLError as error:
            raise DatabaseAway(
                f"The database cannot be reached by TLS: {error.reason}.", mend="See its sslmode."
            ) from error
        except OSError as error:
            raise DatabaseAway(
                f"The database cannot be reached: {error.strerror or error}.",
                mend="See SHADOW_DATABASE_URL, and that it runs.",
            ) from error
        except (asyncpg.InterfaceError, ValueError, TypeError):
            # What they say may hold a part of the URL, and of its password.
            raise SettingsRefused("SHADOW_DATABASE_URL cannot be understood.", mend=_URL_MEND) from None

    return connect


def _make_file(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot(f"{data_dir} cannot be made", error) from error
    path = data_dir / FILE
    try:
        # What tasks say is for nobody else, whatever the directory allows.
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _cannot(f"{path} cannot be opened", error) from error
    return path


def _cannot(what: str, error: OSError) -> ShadowError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LimitExceeded(f"{what}: {error.strerror}.", mend="Make room on its disk.")
    return Denied(f"{what}: {error.strerror}.", mend="Give it to this user, or set SHADOW_DATA_DIR.")


def _prepare(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
