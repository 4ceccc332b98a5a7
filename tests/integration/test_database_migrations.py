"""Older databases come up to date with everything in them, or stay as they were; newer ones are left alone."""

import asyncio
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from shadow.core.errors import Broken
from shadow.core.events import TextAdded
from shadow.core.ids import WorkspaceId
from shadow.core.repositories import Checkout
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db import tasks
from shadow.db.codec import encode_checkout, encode_event
from shadow.db.database import Database
from shadow.db.engines import make_engine
from shadow.db.migrating import HEAD, known_versions
from shadow.db.tables import metadata
from tests.support.database_processes import DatabaseProcess, opening
from tests.support.databases import POSTGRESQL, SQLITE, Place, make_place
from tests.support.rows import add_task, append, assert_gapless, log_of

pytestmark = pytest.mark.anyio
SRC = Path(__file__).parents[2] / "src"
# What version 1 made, before there were migrations.
VERSION_1 = (
    "CREATE TABLE schema (version INTEGER NOT NULL)",
    (
        "CREATE TABLE tasks (id VARCHAR(64) NOT NULL, title TEXT NOT NULL, state VARCHAR(32) NOT NULL, model TEXT NOT NULL, "
        "repository TEXT NOT NULL, checkout TEXT, workspace_id VARCHAR(64), outcome VARCHAR(32), summary TEXT, "
        "runs INTEGER NOT NULL, events INTEGER NOT NULL, created_at {double} NOT NULL, updated_at {double} NOT NULL, "
        "PRIMARY KEY (id))"
    ),
    "CREATE INDEX tasks_by_age ON tasks (created_at)",
    (
        "CREATE TABLE events (task_id VARCHAR(64) NOT NULL, seq INTEGER NOT NULL, at {double} NOT NULL, "
        "kind VARCHAR(32) NOT NULL, body TEXT NOT NULL, PRIMARY KEY (task_id, seq), "
        "FOREIGN KEY(task_id) REFERENCES tasks (id) ON DELETE CASCADE){without_rowid}"
    ),
    "INSERT INTO schema (version) VALUES (1)",
)
CHECKOUT = Checkout(repository="/r", base_branch=None, base_commit="b" * 40, branch="shadow/x")
STATES = ("starting", "running", "idle", "failed")
EVENTS = [TextAdded(text=odd) for odd in ("first", "nul \0 \ud800", "日本語", "x" * 5000)]


async def make_version_1(place: Place) -> None:
    """With a task in each state, and a log each."""
    postgresql = place.kind == POSTGRESQL
    types = {
        "double": "DOUBLE PRECISION" if postgresql else "FLOAT",
        "without_rowid": "" if postgresql else " WITHOUT ROWID",
    }
    engine = make_engine(place.data_dir, place.url)
    async with engine.begin() as connection:
        for statement in VERSION_1:
            await connection.execute(text(statement.format(**types)))
        for number, state in enumerate(STATES):
            await connection.execute(
                text(
                    "INSERT INTO tasks VALUES (:id, :title, :state, 'm', '/r', :checkout, 'ws_1', NULL, :title, 2, :events, "
                    ":at, :at)"
                ),
                {
                    "id": f"task_{number}",
                    "title": r"odd \u0000 \u005c",  # as the type writes NUL and a backslash
                    "state": state,
                    "checkout": encode_checkout(CHECKOUT),
                    "events": len(EVENTS),
                    "at": 1764000000.25 + number,
                },
            )
            for seq, event in enumerate(EVENTS, start=1):
                await connection.execute(
                    text("INSERT INTO events VALUES (:id, :seq, 1764000001.5, 'text_added', :body)"),
                    {"id": f"task_{number}", "seq": seq, "body": encode_event(event)},
                )
    await engine.dispose()


async def assert_everything_is_there(database: Database) -> None:
    states = {"starting": (TaskState.FAILED, None), "running": (TaskState.IDLE, "failed")}
    for number, before in enumerate(STATES):
        state, outcome = states.get(before, (TaskState(before), None))
        async with database.read() as connection:
            found = await tasks.get(connection, TaskId(f"task_{number}"))
        assert found == Task(
            id=TaskId(f"task_{number}"),
            title="odd \0 \\",
            state=state,
            model="m",
            repository="/r",
            checkout=CHECKOUT,
            workspace_id=WorkspaceId("ws_1"),
            outcome=outcome,
            summary="odd \0 \\",
            runs=2,
            events=len(EVENTS),
            created_at=1764000000.25 + number,
            updated_at=1764000000.25 + number,
        )
        recorded = await log_of(database, found.id)
        assert [r.event for r in recorded] == EVENTS
        assert {r.at for r in recorded} == {1764000001.5}
        await append(database, "goes on", to=found.id)
        await assert_gapless(database, len(EVENTS) + 1, found.id)


async def schema_of(place: Place) -> list[str]:
    """What the database says of itself."""
    query = (
        "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'public' UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
        if place.kind == POSTGRESQL
        else "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
    )
    engine = make_engine(place.data_dir, place.url)
    async with engine.connect() as connection:
        found = sorted((await connection.execute(text(query))).scalars())
    await engine.dispose()
    return found


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def empty_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return make_place(request.param, tmp_path, empty=True)


async def test_a_database_of_version_1_comes_up_to_date_with_everything_in_it(empty_place: Place) -> None:
    await make_version_1(empty_place)
    async with empty_place.open() as database:
        await assert_everything_is_there(database)
    async with empty_place.open() as database:
        async with database.read() as connection:
            assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [HEAD]


async def test_migrations_make_what_the_tables_say(empty_place: Place) -> None:
    async with empty_place.open() as database:
        async with database.read() as connection:
            assert await connection.run_sync(_differences) == []
    old = make_place(empty_place.kind, empty_place.data_dir / "old", empty=True)
    await make_version_1(old)
    async with old.open() as database:
        async with database.read() as connection:
            assert await connection.run_sync(_differences) == []


def _differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def test_the_newest_migration_is_the_head() -> None:
    assert max(known_versions()) == HEAD


async def test_processes_that_make_or_migrate_the_database_at_once_do_not_disturb_each_other(
    empty_place: Place,
) -> None:
    for is_old in (False, True):
        place = make_place(empty_place.kind, empty_place.data_dir / str(is_old), empty=True)
        if is_old:
            await make_version_1(place)
        processes = [opening(place) for _ in range(5)]
        for process in processes:
            process.go_on()
        assert [await asyncio.to_thread(process.line) for process in processes] == ["open"] * 5
        for process in processes:
            process.go_on()
        assert [await asyncio.to_thread(process.end) for process in processes] == [0] * 5
        async with place.open() as database:
            if is_old:
                await assert_everything_is_there(database)
            async with database.read() as connection:
                assert len((await connection.execute(text("SELECT * FROM alembic_version"))).all()) == 1


# Kills itself before the statement of this number, counted over all connections.
_DIE = """
import os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine

left = int(sys.argv[3])

def count(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", count)
event.listen(Engine, "commit", count)

async def main():
    async with place():
        say(left)
"""
POINTS = (6, 11, 16, 21, 26, 31, 36, 41, 46, 55)


@pytest.mark.parametrize(
    "point", [*POINTS, *(pytest.param(n, marks=pytest.mark.slow) for n in range(80) if n not in POINTS)]
)
async def test_a_migration_that_is_killed_was_done_or_was_not(empty_place: Place, point: int) -> None:
    await make_version_1(empty_place)
    before = await schema_of(empty_place)
    process = DatabaseProcess(_DIE, empty_place, point)
    code = await asyncio.to_thread(process.end)
    assert code in (0, -signal.SIGKILL)
    after = await schema_of(empty_place)
    if code != 0:
        assert after == before, "half of a migration"
    async with empty_place.open() as database:
        await assert_everything_is_there(database)


async def test_the_points_at_which_it_is_killed_lie_in_the_migration(empty_place: Place) -> None:
    await make_version_1(empty_place)
    process = DatabaseProcess(_DIE, empty_place, 1000)
    counted = 1000 - int(await asyncio.to_thread(process.line))
    assert await asyncio.to_thread(process.end) == 0
    assert POINTS[-3] < counted < 80


async def _version_is(place: Place, statement: str) -> None:
    engine = make_engine(place.data_dir, place.url)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.mark.parametrize("version_1", [True, False])
async def test_the_schema_of_a_newer_version_is_left_alone(empty_place: Place, version_1: bool) -> None:
    if version_1:
        await make_version_1(empty_place)
        await _version_is(empty_place, "UPDATE schema SET version = 99")
    else:
        async with empty_place.open() as database:
            await add_task(database)
        await _version_is(empty_place, "UPDATE alembic_version SET version_num = '9999'")
    before = await schema_of(empty_place)
    for _ in range(2):
        with pytest.raises(Broken, match="99") as caught:
            async with empty_place.open():
                pass
        assert caught.value.mend
        assert await schema_of(empty_place) == before


async def test_a_database_that_is_up_to_date_opens_without_alembic(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from shadow.db.database import open_database

async def main():
    async with open_database(Path({str(tmp_path)!r})):
        print("alembic" in sys.modules)

asyncio.run(main())
"""
    shown = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in range(2)]
    assert shown == [b"True\n", b"False\n"]


@pytest.mark.slow
def test_the_wheel_carries_the_migrations(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(argv, cwd=SRC.parent, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if name.startswith("shadow/db/migrations/")}
    wanted = {str(path.relative_to(SRC)) for path in (SRC / "shadow/db/migrations").rglob("*.py")}
    assert wanted
    assert packed == wanted
