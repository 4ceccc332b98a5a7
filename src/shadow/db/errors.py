"""What databases raise, as typed errors that say what to do."""

import sqlite3

from sqlalchemy.exc import DBAPIError, ResourceClosedError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from shadow.core.errors import (
    Broken,
    Conflict,
    Denied,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Rejected,
    ShadowError,
    StaleEpoch,
    Unavailable,
)


class LeaseLost(StaleEpoch):
    """Another worker has taken the job over: nothing of what the caller wanted to write was written."""

    code = "lease_lost"


def lease_lost() -> LeaseLost:
    return LeaseLost("Another worker has taken this job over.", mend="Stop: whatever it still needs is done there.")


class WorkerLost(ShadowError):
    """As often as a job may begin, its worker did not come to an end with it."""

    code = "worker_lost"


class CommitUnknown(OutcomeUnknown):
    """The connection broke while a transaction was being committed."""

    code = "commit_unknown"


class DatabaseAway(Unavailable):
    """There is no connection to the database, or it broke."""

    code = "database_away"


class Clashed(Unavailable):
    """The database undid one of two transactions that stood in each other's way."""

    code = "clashed"


def database_closed() -> Conflict:
    return Conflict("The database is closed.", mend="Open it again.")


class Translated:
    """Turns what the database raises into typed errors. Holds nothing: safe around a ``yield``."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, SQLAlchemyError | sqlite3.Error | ConnectionError | TimeoutError | UnicodeEncodeError):
            raise database_error(error) from error


def database_error(error: BaseException) -> ShadowError:
    """``error``: of SQLAlchemy or of a driver."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if not isinstance(cause, sqlite3.Error) and cause.__cause__ is not None:
        cause = cause.__cause__  # SQLAlchemy wraps errors of asyncpg once more
    text = str(cause).partition("\n")[0] or type(cause).__name__
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return _of_postgresql(state, text)
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(text, getattr(cause, "sqlite_errorcode", 0))
    if isinstance(cause, UnicodeEncodeError):
        return Rejected("The database cannot hold that text: it is not Unicode.")
    if isinstance(error, ResourceClosedError):
        return database_closed()
    if isinstance(error, NoConnectionFree):
        return Unavailable("All connections to the database are in use.", mend="Try again.")
    if isinstance(cause, ConnectionError | TimeoutError) or getattr(error, "connection_invalidated", False):
        return DatabaseAway(f"The database does not answer: {text}.", mend="See that it runs; then try again.")
    return Broken(f"The database failed: {text}.")


def _of_sqlite(text: str, code: int) -> ShadowError:
    if code == sqlite3.SQLITE_IOERR_WRITE:  # a quota, or a limit of file sizes: only of ENOSPC it says that it is full
        return LimitExceeded(
            f"The database cannot be written: {text}.",
            mend="See that its disk has room and is sound, and that no quota or `ulimit -f` is in the way.",
        )
    if "I/O error" in text:
        return Unavailable(f"The database cannot be read or written: {text}.", mend="See its disk; then try again.")
    if text == "Connection closed":  # not SQLite's: see patient.py
        return database_closed()
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
            f"The database is damaged: {text}.",
            mend="Restore it from a backup (`shadow restore`), or move it away to start anew.",
        )
    if "constraint" in text:
        return Conflict(f"The database holds something that stands against it: {text}.")
    return Broken(f"The database failed: {text}.")


def _of_postgresql(state: str, text: str) -> ShadowError:
    """By the class of its SQLSTATE (PostgreSQL's manual, appendix A)."""
    if state == "53100":
        return LimitExceeded(f"The database cannot grow: {text}.", mend="Make room on the database server's disk.")
    if state in ("25006", "42501") or state.startswith("28"):
        return Denied(f"The database refuses it: {text}.", mend="See SHADOW_DATABASE_URL and the user's privileges.")
    if state == "3D000":
        return NotFound(f"The database is not there: {text}.", mend="Make it (`createdb`), or see SHADOW_DATABASE_URL.")
    if state.startswith("22"):
        return Rejected(f"The database cannot hold it: {text}.")
    if state.startswith("23"):
        return Conflict(f"The database holds something that stands against it: {text}.")
    if state.startswith("XX"):
        return Broken(f"The database is damaged: {text}.", mend="Restore it from a backup.")
    if state in ("40001", "40P01"):
        return Clashed(f"Two transactions stood in each other's way: {text}.", mend="Try again.")
    if state.startswith(("08", "57P")) or state == "25P03":
        return DatabaseAway(f"The database went away: {text}.", mend="See that it runs; then try again.")
    if state[:2] in ("40", "53", "55", "57"):
        return Unavailable(f"The database cannot do it now: {text}.", mend="Try again.")
    return Broken(f"The database failed: {text}.")
