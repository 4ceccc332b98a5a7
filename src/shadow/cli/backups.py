"""``shadow backup`` and ``shadow restore``: the embedded database as one file, and back."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path

import typer

from shadow.cli.outcome import DONE, print_json, say
from shadow.core.errors import Unsupported
from shadow.db.backup import Contents, back_up, restore
from shadow.db.engines import FILE
from shadow.settings import Settings, load_settings


async def write(file: Path, *, force: bool, as_json: bool) -> int:
    database = _database(load_settings())
    contents = await asyncio.to_thread(back_up, database, file, force=force)
    if as_json:
        print_json({"backup": str(file), **asdict(contents)})
    else:
        typer.echo(f"{file}: {_shown(contents)}, verified.")
    return DONE


async def read(file: Path, *, as_json: bool) -> int:
    database = _database(load_settings())
    contents, replaced = await asyncio.to_thread(restore, database, file, now=time.time())
    if as_json:
        print_json(
            {"restored": str(database), "replaced": None if replaced is None else str(replaced), **asdict(contents)}
        )
        return DONE
    typer.echo(f"{database}: {_shown(contents)}, as in {file}.")
    if replaced is not None:
        say(f"What was there before is kept as {replaced}.")
    return DONE


def _database(settings: Settings) -> Path:
    """Raises: Unsupported: it is not the embedded one."""
    if settings.database_url.get_secret_value():
        raise Unsupported(
            "SHADOW_DATABASE_URL names a database of its own; this is for the one in the data directory.",
            mend="PostgreSQL has `pg_dump` and `pg_restore`.",
            details={"capability": "backup"},
        )
    return settings.data_dir / FILE


def _shown(contents: Contents) -> str:
    return f"{_count(contents.tasks, 'task')}, {_count(contents.events, 'event')}, {contents.size_bytes / 1e6:.1f} MB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
