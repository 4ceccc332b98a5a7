"""What is wrong with a database is said by a typed error, costs nothing that was kept, and is over when it is mended."""

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from shadow.core.errors import (
    Broken,
    Denied,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    SettingsRefused,
    ShadowError,
    Unavailable,
)
from shadow.core.events import TextAdded
from shadow.db import events
from shadow.db.database import Database, open_database
from shadow.db.engines import FILE
from shadow.db.errors import DatabaseAway
from shadow.db.group import EventWriter
from shadow.db.guard import lock_path
from tests.support.databases import POSTGRESQL, Cluster, Place, cluster, make_place
from tests.support.rows import ID, add_task, append, assert_gapless, log_of
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


async def append_until_it_fails(database: Database) -> None:
    for _ in range(200):
        await append(database, "x" * 20_000)


async def assert_refused(place: Place, kind: type[ShadowError]) -> ShadowError:
    with pytest.raises(kind) as caught:
        async with place.open():
            pass
    assert caught.value.mend
    return caught.value


def at(directory: Path) -> Place:
    return Place(kind="sqlite", data_dir=directory)


# The file


async def test_the_database_is_for_its_user_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    async with open_database(tmp_path) as database:
        await add_task(database)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert set(modes.values()) == {0o600}
        assert {FILE, f"{FILE}-wal"} <= set(modes)


@pytest.mark.parametrize("name", ["a b", "a?mode=ro", "a%20b", "a#b", "é"])
async def test_a_data_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    async with open_database(tmp_path / name) as database:
        await add_task(database)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / FILE).stat().st_size


async def test_what_is_no_database_is_told_as_such_and_left_alone(tmp_path: Path) -> None:
    content = b"this is no database" * 1000
    (tmp_path / FILE).write_bytes(content)
    await assert_refused(at(tmp_path), Broken)
    assert (tmp_path / FILE).read_bytes() == content


async def test_a_file_that_is_damaged_in_the_middle_is_told_as_such(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await add_task(database)
        await append(database, *map(str, range(1000)))
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (os.path.getsize(file.name) - 8192))
    with pytest.raises(Broken):
        async with open_database(tmp_path) as database:
            await log_of(database)


async def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await assert_refused(at(tmp_path / "file"), Denied)


async def test_a_database_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    await assert_refused(at(tmp_path), Denied)


# The disk


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MiB of its own, of which the empty database takes about a third."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system: root alone can")
    path = Path(tempfile.mkdtemp(prefix="shadow-disk-"))
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path]
    mounted = subprocess.run(argv, capture_output=True, check=False)
    try:
        if mounted.returncode != 0:
            pytest.skip(f"mount refuses: {mounted.stderr.decode()}")
        yield path
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", path], check=True)
        shutil.rmtree(path)


async def test_a_full_disk_is_a_limit_until_there_is_room(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 200_000)
    async with open_database(small_disk) as database:
        await add_task(database)
        with pytest.raises(LimitExceeded):
            await append_until_it_fails(database)
        writer = EventWriter(database)
        with pytest.raises(LimitExceeded):
            await writer.append(ID, [TextAdded(text="x" * 100_000)])
        kept = len(await log_of(database))
        assert kept > 3
        await assert_gapless(database, kept)
        (small_disk / "filler").unlink()
        await append(database, "again")
        await writer.append(ID, [TextAdded(text="again")])
        await assert_gapless(database, kept + 2)


async def test_a_full_disk_before_the_database_is_there_is_a_limit(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(b"x" * 2 * 1024 * 1024)
    await assert_refused(at(small_disk), LimitExceeded)
    (small_disk / "filler").unlink()
    async with open_database(small_disk) as database:
        await add_task(database)


async def test_a_database_on_a_read_only_disk_is_denied(small_disk: Path) -> None:
    async with open_database(small_disk) as database:
        await add_task(database)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(Denied) as caught:
        async with open_database(small_disk) as database:
            await append(database, "a")
    assert caught.value.mend
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    async with open_database(small_disk) as database:
        await append(database, "a")
        await assert_gapless(database, 1)


async def test_a_file_that_may_not_grow_is_told_and_keeps_what_it_has(tmp_path: Path) -> None:
    """As under a quota, or `ulimit -f`."""
    async with open_database(tmp_path) as database:
        await add_task(database)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
        try:
            with pytest.raises(ShadowError) as caught:
                await append_until_it_fails(database)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert isinstance(caught.value, LimitExceeded), caught.value
        kept = len(await log_of(database))
        await append(database, "again")
        await assert_gapless(database, kept + 1)


# Others at the same file


async def test_who_waits_for_another_process_too_long_is_told_that_it_is_busy(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await add_task(database)
        async with database.write() as transaction:  # of the one connection that writes
            await transaction.connection.exec_driver_sql("PRAGMA busy_timeout=50")
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable) as caught:
                await append(database, "a")
            assert caught.value.repeat_is_safe
            assert await log_of(database) == []  # readers go on
            other.execute("ROLLBACK")
        await append(database, "a")
        await assert_gapless(database, 1)


async def test_a_process_that_holds_the_database_a_while_is_waited_for(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await add_task(database)
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(append(database, "a"))
            await asyncio.wait({waiting}, timeout=0.3)
            assert not waiting.done()
            other.execute("COMMIT")
            await waiting
        await assert_gapless(database, 1)


# PostgreSQL


@pytest.fixture
def postgresql(tmp_path: Path) -> Place:
    return make_place(POSTGRESQL, tmp_path)


@asynccontextmanager
async def stopped(own: Cluster) -> AsyncGenerator[None]:
    await asyncio.to_thread(own.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(own.start)


async def test_a_server_that_is_down_is_unavailable_and_then_works_again(postgresql: Place) -> None:
    own = cluster()
    async with postgresql.open() as database:
        await add_task(database)
        await append(database, "before")
        seen: list[int] = []

        async def follow() -> None:
            while True:
                try:
                    async for recorded in events.follow(database, ID, after=len(seen)):
                        seen.append(recorded.seq)  # noqa: PERF401 - it has no end
                except DatabaseAway:
                    await asyncio.sleep(0.05)

        reader = asyncio.create_task(follow())
        await until(lambda: seen == [1])
        writer = EventWriter(database)
        async with stopped(own):
            for _ in range(3):
                with pytest.raises(DatabaseAway) as caught:
                    await append(database, "while it is down")
                assert caught.value.repeat_is_safe
                assert caught.value.mend
                with pytest.raises(DatabaseAway):
                    await log_of(database)
                with pytest.raises(DatabaseAway):
                    await writer.append(ID, [TextAdded(text="while it is down")])
            await assert_refused(postgresql, DatabaseAway)
        await append(database, "after")
        await writer.append(ID, [TextAdded(text="after")])
        await assert_gapless(database, 3)
        await until(lambda: seen == [1, 2, 3])
        reader.cancel()
        await asyncio.wait({reader})


async def test_a_server_that_restarts_in_the_middle_loses_nothing_that_was_confirmed(postgresql: Place) -> None:
    own = cluster()
    async with postgresql.open() as database:
        await add_task(database)
        confirmed: list[int] = []
        unknown = 0
        done = asyncio.Event()

        async def write() -> None:
            nonlocal unknown
            while not done.is_set():
                try:
                    confirmed.extend(r.seq for r in await append(database, "x"))
                except OutcomeUnknown:
                    unknown += 1
                except DatabaseAway:
                    await asyncio.sleep(0.01)

        writing = [asyncio.create_task(write()) for _ in range(3)]
        for _ in range(2):
            enough = len(confirmed) + 30
            await until(lambda: len(confirmed) >= enough, within_s=30)  # noqa: B023
            async with stopped(own):
                pass
        done.set()
        await asyncio.gather(*writing)
        kept = [r.seq for r in await log_of(database)]
        assert kept == list(range(1, len(kept) + 1))
        assert set(confirmed) <= set(kept)
        assert len(kept) <= len(confirmed) + unknown


async def test_a_commit_without_an_answer_is_an_unknown_outcome(postgresql: Place) -> None:
    """A deferred trigger ends the connection while it is being committed."""
    async with postgresql.open() as database:
        await add_task(database)
        assert postgresql.url is not None
        name = postgresql.url.partition("@/")[2].partition("?")[0]
        body = "BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END"
        own = cluster()
        own.sql(f"CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $${body}$$", database=name)
        own.sql(
            "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
            "EXECUTE FUNCTION die()",
            database=name,
        )
        with pytest.raises(OutcomeUnknown) as caught:
            await append(database, "x")
        assert not caught.value.repeat_is_safe
        own.sql("DROP TRIGGER dies ON events", database=name)
        await append(database, "x")
        await assert_gapless(database, 1)


async def test_who_may_not_come_in_is_denied_and_no_password_is_told(tmp_path: Path) -> None:
    own = cluster()
    guarded = own.make_database()
    name = guarded.partition("@/")[2].partition("?")[0]
    if not own.sql("SELECT 1 FROM pg_roles WHERE rolname = 'guarded'"):
        own.sql("CREATE ROLE guarded LOGIN PASSWORD 'right-one'")
    refused: list[tuple[str, type[ShadowError]]] = [
        (own.url(name, user="guarded:wrong-secret"), Denied),
        (own.url(name, user="guarded"), Denied),
        (own.url(name, user="nobody:wrong-secret"), Denied),
        (own.url("not_there", user="shadow:wrong-secret"), NotFound),
        (own.url(name, user="guarded:right-one"), Denied),  # comes in, and may not read the tables
        ("postgresql://shadow:wrong-secret@127.0.0.1:1/x", DatabaseAway),
        ("postgresql://shadow:wrong-secret@/x?host=/nowhere", DatabaseAway),
    ]
    for url, kind in refused:
        error = await assert_refused(Place(kind=POSTGRESQL, data_dir=tmp_path, url=url), kind)
        told = f"{error} {error.__cause__} {error.details}"
        assert "wrong-secret" not in told
        assert "right-one" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://u:wrong-secret@h/d",
        "sqlite:///elsewhere.db",
        "postgresql://u:wrong-secret@h:port/d",
        "postgresql://u:wrong-secret@h:99999999/d",
        "postgresql://u:wrong@secret:1/2@[::1/d",
        "postgresql://u:wrong-secret@h/d?sslmode=wrong-secret",
        "postgresql+psycopg2://u:wrong-secret@h/d",
        "\0",
        "postgres:wrong-secret",
    ],
)
async def test_what_is_no_url_of_a_database_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises((SettingsRefused, DatabaseAway)) as caught:
        async with open_database(tmp_path, url=url):
            pass
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"
    assert caught.value.mend
    assert list(tmp_path.iterdir()) == []


async def test_a_transaction_whose_process_stops_in_it_gives_way(postgresql: Place) -> None:
    """What the server itself would end after a while is ended here at once; the one who slept is told."""
    async with postgresql.open() as sleeper, postgresql.open() as others:
        await add_task(others)
        with pytest.raises(DatabaseAway):
            await _sleep_in_a_transaction(sleeper, others)
        await assert_gapless(others, 1)
        await append(sleeper, "awake")
        await assert_gapless(others, 2)


async def _sleep_in_a_transaction(sleeper: Database, others: Database) -> None:
    async with sleeper.write() as transaction:
        await transaction.connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 50")
        await events.append(transaction, ID, [TextAdded(text="asleep")])
        await append(others, "meanwhile")  # waits until the sleeper's lock is gone
        await events.append(transaction, ID, [TextAdded(text="too late")])


async def test_the_lock_beside_the_database_may_be_removed(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await add_task(database)
    lock_path(tmp_path / FILE).unlink()
    async with open_database(tmp_path) as database:
        await assert_gapless(database, 0)
