"""Backups of the embedded database: one file, whole at one moment however many write meanwhile, verified before it counts."""

import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from shadow.core.errors import (
    AlreadyExists,
    Broken,
    Conflict,
    Denied,
    LimitExceeded,
    NotFound,
    Rejected,
    ShadowError,
)
from shadow.db.engines import BUSY_MS
from shadow.db.errors import database_error
from shadow.db.guard import alone, lock_path, reading
from shadow.db.migrating import BEFORE_ALEMBIC, known_versions, too_new

_BESIDE = ("-wal", "-shm", "-journal")
"""Names of what SQLite keeps beside a database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    version: str
    """The last migration that it has seen."""
    tasks: int
    events: int
    size_bytes: int


def back_up(database: Path, to: Path, *, force: bool = False) -> Contents:
    """Copy ``database`` as it is now to ``to``, readable for this user alone; a half of it is never there under that name.

    ``force``: replaces what is there. Raises: NotFound: there is no database; AlreadyExists; Rejected: ``to`` is the database;
    Conflict: another backup is being written there; Denied, LimitExceeded, Broken, Unavailable.
    """
    with _typed(to):
        _check_apart(database, to)
        if not database.exists():
            raise NotFound(f"There is no database at {database} yet.", mend="See SHADOW_DATA_DIR.")
        if to.exists() and not force:
            raise AlreadyExists(f"{to} is there already.", mend="Give another name, or --force to replace it.")
        with reading(database), _partial(to) as partial:
            with closing(_connect(database)) as source, closing(_connect(partial)) as copy:
                source.backup(copy)  # in one step: one moment of the source
                copy.execute("PRAGMA journal_mode=DELETE")  # all of it in the one file
            contents = verify(partial)
            _keep(partial, to, force=force)
        return contents


def restore(database: Path, source: Path, *, now: float) -> tuple[Contents, Path | None]:
    """Put the backup ``source`` in the place of ``database``; gives what it has, and where the replaced one is kept.

    ``now``: seconds since 1970, for the name of the replaced one. Nothing is changed where it fails.
    Raises: Conflict: somebody uses the database; NotFound, Broken: no backup that this version can use; Rejected; Denied,
    LimitExceeded.
    """
    with _typed(source):
        _check_apart(database, source)
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _partial(database) as partial:
            _copy(source, partial)
            contents = verify(partial)  # what is put there, not what somebody may write meanwhile
            with alone(database):
                replaced = _set_aside(database, now)
                partial.replace(database)
                _sync(database.parent)
        return contents, replaced


def verify(path: Path) -> Contents:
    """Read all of a database that nobody uses. Raises: Broken: damaged, or newer than this version; Rejected: not Shadow's."""
    with _typed(path), closing(_connect(path)) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        found: list[str] = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise Broken(f"{path} is damaged: {found[0]}.", mend="Use another backup.")
        names = {(kind, name) for kind, name in connection.execute("SELECT type, name FROM sqlite_master")}
        if not {("table", "tasks"), ("table", "events")} <= names or any(k in ("trigger", "view") for k, _ in names):
            raise Rejected(f"{path} is not a database of Shadow's.", mend="Give a file that `shadow backup` wrote.")
        if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise Broken(f"{path} is damaged: rows belong to a task that is not there.", mend="Use another backup.")
        ((tasks,),) = connection.execute("SELECT count(*) FROM tasks")
        ((events,),) = connection.execute("SELECT count(*) FROM events")
        return Contents(version=_version(connection, names), tasks=tasks, events=events, size_bytes=path.stat().st_size)


def _version(connection: sqlite3.Connection, names: set[tuple[str, str]]) -> str:
    if ("table", "alembic_version") in names:
        found = [str(row[0]) for row in connection.execute("SELECT version_num FROM alembic_version")]
    else:
        old = [row[0] for row in connection.execute("SELECT version FROM schema")]
        found = [BEFORE_ALEMBIC if version == 1 else str(version) for version in old]
    if len(found) != 1:
        raise Broken("The database does not say which version of its schema it has.", mend="Use another backup.")
    if found[0] not in known_versions():
        raise too_new(found[0])
    return found[0]


def _check_apart(database: Path, other: Path) -> None:
    own = {database, lock_path(database), *(database.with_name(database.name + end) for end in _BESIDE)}
    if other.parent.resolve() / other.name in {path.parent.resolve() / path.name for path in own} or (
        other.exists() and any(path.exists() and path.samefile(other) for path in own)
    ):
        raise Rejected(f"{other} is the database itself, or belongs to it.", mend="Give the name of a backup.")


@contextmanager
def _partial(target: Path) -> Generator[Path]:
    """A file beside ``target`` for what is not whole yet. One that a killed process left is used again."""
    path = target.with_name(f".{target.name}.partial")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"Another process is writing {target}.", mend="Wait until it is done.") from error
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, 0)
        _remove(path, *_BESIDE)
        try:
            yield path
        finally:
            _remove(path, *_BESIDE)
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(fd).st_ino:  # not that of somebody who came when ours had its name
                    path.unlink()
    finally:
        os.close(fd)


def _remove(path: Path, *endings: str) -> None:
    for ending in endings:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _keep(partial: Path, to: Path, *, force: bool) -> None:
    _sync(partial)
    if force:
        partial.replace(to)
    else:
        os.link(partial, to)  # unlike a rename, it replaces nothing that came meanwhile
    _sync(to.parent)


def _copy(source: Path, to: Path) -> None:
    if not source.exists():
        raise NotFound(f"There is no {source}.")
    # Opening a pipe would wait for its writer otherwise.
    with open(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as read:
        if not stat.S_ISREG(os.fstat(read.fileno()).st_mode):
            raise Rejected(f"{source} is not a regular file.", mend="Give a file that `shadow backup` wrote.")
        wal = source.with_name(f"{source.name}-wal")
        if wal.exists() and wal.stat().st_size:
            raise Rejected(
                f"{source} is in use, or was copied while it was: a part of it is in {wal.name}.",
                mend="Give a file that `shadow backup` wrote.",
            )
        with to.open("r+b") as written:
            shutil.copyfileobj(read, written, 1024 * 1024)
    _sync(to)


def _set_aside(database: Path, now: float) -> Path | None:
    """Give the database a second name, and leave nothing beside it that SQLite would apply to the new one."""
    if not database.exists():
        _remove(database, *_BESIDE)
        return None
    with suppress(sqlite3.Error), closing(_connect(database)) as connection:  # a damaged one is kept as it is
        connection.execute("PRAGMA journal_mode=DELETE")
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    kept = next(path for path in _names(database, f"replaced-{stamp}") if not path.exists())
    os.link(database, kept)
    for ending in _BESIDE:
        beside = database.with_name(database.name + ending)
        if beside.exists():
            os.link(beside, kept.with_name(kept.name + ending))
    _sync(database.parent)
    _remove(database, *_BESIDE)
    return kept


def _names(database: Path, word: str) -> Generator[Path]:
    yield database.with_name(f"{database.name}.{word}")
    for number in range(2, 1000):
        yield database.with_name(f"{database.name}.{word}-{number}")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _typed(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise database_error(error) from error
    except FileExistsError as error:
        raise AlreadyExists(f"{path} is there already.", mend="Give another name, or --force to replace it.") from error
    except OSError as error:
        raise _of_file(error, path) from error


def _of_file(error: OSError, path: Path) -> ShadowError:
    what = f"{error.filename or path}: {error.strerror}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return LimitExceeded(what, mend="Make room on that disk.")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(what, mend="Make the directory first.")
    return Denied(what, mend="Choose a place that this user can write.")
