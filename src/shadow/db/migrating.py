"""Making a database, and bringing an older one up to date: each step in one transaction, one process at a time."""

from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from shadow.core.errors import Broken
from shadow.db.connections import Connections

HEAD = "0008"
"""The newest migration."""
BEFORE_ALEMBIC = "0001"
"""What a database is at that only has a table ``schema`` with version 1."""
_LOCK = 0x5AAD0
_MIGRATIONS = Path(__file__).parent / "migrations"


async def bring_up_to_date(connections: Connections) -> None:
    """Raises: Broken: it was made by a newer version."""
    async with connections.open() as connection:
        if await connection.run_sync(_is_up_to_date):
            return
    async with connections.open(writing=True) as connection:
        if not connections.is_sqlite:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        await connection.run_sync(_upgrade)
        await connection.commit()


def _is_up_to_date(connection: Connection) -> bool:
    """Also while another process migrates: what it has not committed does not count, and nothing else is looked at."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none() == HEAD


def version(connection: Connection) -> str | None:
    """The last migration that was done; ``None``: there is nothing yet."""
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        found: str = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        return found
    if "schema" not in tables:
        return None
    old: int = connection.execute(text("SELECT version FROM schema")).scalar_one()
    if old != 1:
        raise too_new(str(old))
    return BEFORE_ALEMBIC


def _upgrade(connection: Connection, to: str = HEAD) -> None:
    from alembic import command  # a database that is up to date needs none of it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    current = version(connection)
    if current is not None:
        if current not in known_versions():
            raise too_new(current)
        if current == BEFORE_ALEMBIC and not inspect(connection).has_table("alembic_version"):
            command.stamp(config, BEFORE_ALEMBIC)
    command.upgrade(config, to)


def known_versions() -> Collection[str]:
    return {path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")}


def too_new(found: str) -> Broken:
    return Broken(
        f"The database has version {found} of its schema; this Shadow knows {HEAD}.", mend="Use a newer Shadow."
    )
