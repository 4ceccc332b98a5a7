"""Backups: whole at one moment, verified, never half under their name; and restoring takes the database from nobody."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from shadow.core.errors import AlreadyExists, Broken, Conflict, Denied, NotFound, Rejected, ShadowError
from shadow.core.events import TextAdded
from shadow.db.backup import Contents, back_up, restore, verify
from shadow.db.database import open_database
from shadow.db.engines import FILE
from shadow.db.group import EventWriter
from shadow.db.guard import lock_path
from shadow.db.migrating import HEAD
from tests.support.database_processes import appending, opening
from tests.support.databases import SQLITE, Place
from tests.support.rows import ID, add_task, append, assert_gapless, texts_of
from tests.support.shadow_cli import ShadowCli

pytestmark = pytest.mark.anyio
NOW = 1764000000.0


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def make(data_dir: Path, *texts: str) -> Path:
    """The file of a database with a task and its log."""
    async with open_database(data_dir) as database:
        await add_task(database)
        await append(database, *texts)
    return data_dir / FILE


async def texts_in(data_dir: Path) -> list[str]:
    async with open_database(data_dir) as database:
        texts = await texts_of(database)
        await assert_gapless(database, len(texts))
        return texts


def left_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def test_a_backup_holds_what_was_there_and_restoring_gives_it_back(tmp_path: Path, data_dir: Path) -> None:
    database = await make(data_dir, "a", "b")
    backup = tmp_path / "backup"
    made = back_up(database, backup)
    assert made == Contents(version=HEAD, tasks=1, events=2, size_bytes=backup.stat().st_size)
    assert backup.stat().st_mode & 0o777 == 0o600
    async with open_database(data_dir) as opened:
        await append(opened, "later")
    assert restore(database, backup, now=NOW) == (made, data_dir / f"{FILE}.replaced-20251124T160000Z")
    assert await texts_in(data_dir) == ["a", "b"]
    assert database.stat().st_mode & 0o777 == 0o600
    # And what was replaced is a database as well.
    _, second = restore(database, data_dir / f"{FILE}.replaced-20251124T160000Z", now=NOW)
    assert second == data_dir / f"{FILE}.replaced-20251124T160000Z-2"
    assert await texts_in(data_dir) == ["a", "b", "later"]
    assert left_in(tmp_path) == {"data", "backup"}


async def test_a_backup_is_whole_while_others_write(tmp_path: Path, data_dir: Path) -> None:
    """Pairs are written in one transaction each; a backup has both of a pair or none."""
    await make(data_dir)
    place = Place(kind=SQLITE, data_dir=data_dir)
    process = appending(place, 100_000)
    process.go_on()
    assert process.line() == "open"
    sizes: list[int] = []
    async with open_database(data_dir) as database:
        writer = EventWriter(database)
        for number in range(6):
            assert process.line()
            writing = asyncio.gather(
                *(writer.append(ID, [TextAdded(text="begins"), TextAdded(text="ends")]) for _ in "abc")
            )
            backup = tmp_path / f"backup-{number}"
            made = await asyncio.to_thread(back_up, data_dir / FILE, backup)
            await writing
            sizes.append(made.events)
            with closing(sqlite3.connect(backup)) as connection:
                bodies = [body for (body,) in connection.execute("SELECT body FROM events ORDER BY seq")]
                ((counted,),) = connection.execute("SELECT events FROM tasks")
            assert len(bodies) == made.events == counted
            words = [json.loads(body)["text"].split()[-1] for body in bodies]
            assert words == ["begins", "ends"] * (len(words) // 2)
    process.kill()
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


async def test_a_backup_replaces_only_what_it_may(tmp_path: Path, data_dir: Path) -> None:
    database = await make(data_dir, "a")
    backup = tmp_path / "backup"
    backup.write_bytes(b"mine")
    with pytest.raises(AlreadyExists):
        back_up(database, backup)
    assert backup.read_bytes() == b"mine"
    assert back_up(database, backup, force=True).events == 1
    for own in (FILE, f"{FILE}-wal", f"{FILE}-shm", lock_path(database).name, f"../data/{FILE}"):
        for act in (lambda path: back_up(database, path, force=True), lambda path: restore(database, path, now=NOW)):
            with pytest.raises(Rejected):
                act(data_dir / own)
    (tmp_path / "link").symlink_to(database)
    with pytest.raises(Rejected):
        back_up(database, tmp_path / "link", force=True)
    with pytest.raises(NotFound):
        back_up(database, tmp_path / "no" / "backup")
    with pytest.raises(NotFound):
        back_up(tmp_path / "elsewhere" / FILE, tmp_path / "other")
    assert left_in(tmp_path) == {"data", "backup", "link"}
    assert await texts_in(data_dir) == ["a"]


async def test_a_backup_of_a_damaged_database_is_none(tmp_path: Path, data_dir: Path) -> None:
    database = await make(data_dir, *map(str, range(1000)))
    with database.open("r+b") as file:
        file.seek(40_000)
        file.write(b"\xa5" * 20_000)
    backup = tmp_path / "backup"
    backup.write_bytes(b"the last good one")
    with pytest.raises(Broken):
        back_up(database, backup, force=True)
    assert backup.read_bytes() == b"the last good one"
    assert left_in(tmp_path) == {"data", "backup"}


async def test_a_damaged_database_is_replaced_and_kept(tmp_path: Path, data_dir: Path) -> None:
    database = await make(data_dir, "a")
    back_up(database, tmp_path / "backup")
    damaged = b"no database at all" * 500
    database.write_bytes(damaged)
    (data_dir / f"{FILE}-wal").write_bytes(b"nor its log")
    _, replaced = restore(database, tmp_path / "backup", now=NOW)
    assert replaced is not None
    assert replaced.read_bytes() == damaged
    assert await texts_in(data_dir) == ["a"]


async def test_restoring_where_there_is_nothing_makes_it(tmp_path: Path, data_dir: Path) -> None:
    back_up(await make(data_dir, "a"), tmp_path / "backup")
    _, replaced = restore(tmp_path / "new" / FILE, tmp_path / "backup", now=NOW)
    assert replaced is None
    assert await texts_in(tmp_path / "new") == ["a"]


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def _another(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE tasks (id)")


def _trigger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON tasks BEGIN DELETE FROM events; END")


def _orphans(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM tasks")


def _versionless(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM alembic_version")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


def _damaged(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(9000)
        file.write(b"\xa5" * 8000)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _with_log(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"something")


SPOILT: list[tuple[Callable[[Path], object], type[ShadowError]]] = [
    (_newer, Broken),
    (_another, Rejected),
    (_trigger, Rejected),
    (_orphans, Broken),
    (_versionless, Broken),
    (_cut, Broken),
    (_damaged, Broken),
    (_pipe, Rejected),
    (_directory, Denied),
    (_with_log, Rejected),
    (lambda path: path.write_bytes(b""), Rejected),
    (lambda path: path.write_bytes(b"x" * 10_000), Broken),
    (lambda path: path.unlink(), NotFound),
]


@pytest.mark.parametrize(("spoil", "kind"), SPOILT)
async def test_what_is_no_backup_changes_nothing(
    tmp_path: Path, data_dir: Path, spoil: Callable[[Path], object], kind: type[ShadowError]
) -> None:
    database = await make(data_dir, *map(str, range(300)))
    backup = tmp_path / "backup"
    back_up(database, backup)
    spoil(backup)
    before = database.read_bytes()
    with pytest.raises(kind):
        restore(database, backup, now=NOW)
    assert database.read_bytes() == before
    assert not [name for name in left_in(data_dir) if "replaced" in name or "partial" in name]


async def test_a_database_in_use_is_not_replaced(tmp_path: Path, data_dir: Path) -> None:
    database = await make(data_dir, "a")
    back_up(database, tmp_path / "backup")
    place = Place(kind=SQLITE, data_dir=data_dir)
    process = opening(place)
    process.go_on()
    assert process.line() == "open"
    with pytest.raises(Conflict) as caught:
        restore(database, tmp_path / "backup", now=NOW)
    assert caught.value.mend
    assert back_up(database, tmp_path / "meanwhile").events == 1
    process.kill()  # and its lock with it
    restore(database, tmp_path / "backup", now=NOW)
    assert await texts_in(data_dir) == ["a"]


async def test_an_older_backup_comes_up_to_date_when_it_is_opened(tmp_path: Path, data_dir: Path) -> None:
    from tests.integration.test_database_migrations import assert_everything_is_there, make_version_1

    old = Place(kind=SQLITE, data_dir=tmp_path / "old")
    await make_version_1(old)
    made = back_up(old.data_dir / FILE, tmp_path / "backup")
    assert (made.version, made.tasks) == ("0001", 4)
    await make(data_dir, "newer")
    restore(data_dir / FILE, tmp_path / "backup", now=NOW)
    async with open_database(data_dir) as database:
        await assert_everything_is_there(database)


_KILLED = """
import os, signal, sys
from pathlib import Path
import shadow.db.backup as module

left = int(sys.argv[1])

def count(name, arguments):
    global left
    if name in ("open", "os.link", "os.rename", "os.remove", "os.truncate", "sqlite3.connect", "sqlite3.connect/handle"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
{act}
print(left)
"""
BACK_UP = "module.back_up(Path(sys.argv[2]), Path(sys.argv[3]), force=True)"
RESTORE = f"module.restore(Path(sys.argv[2]), Path(sys.argv[3]), now={NOW})"


def run_until(act: str, point: int, database: Path, backup: Path) -> int:
    """Kills itself at the file operation of this number."""
    argv = [sys.executable, "-c", _KILLED.format(act=act), str(point), str(database), str(backup)]
    return subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode


async def test_a_killed_backup_leaves_the_old_one_or_the_new_one(tmp_path: Path, data_dir: Path) -> None:
    database = await make(data_dir, "a")
    backup = tmp_path / "backup"
    back_up(database, backup)
    async with open_database(data_dir) as opened:
        await append(opened, "b")
    codes: set[int] = set()
    for point in range(40):
        code = run_until(BACK_UP, point, database, backup)
        codes.add(code)
        assert verify(backup).events in ((2,) if code == 0 else (1, 2))
        if code == 0:
            break
    assert codes == {0, -signal.SIGKILL}
    assert left_in(tmp_path) == {"data", "backup"}, "what the killed ones left is cleared away by the next"
    assert await texts_in(data_dir) == ["a", "b"]


async def test_a_killed_restore_leaves_the_old_database_or_the_new_one(tmp_path: Path, data_dir: Path) -> None:
    database = await make(data_dir, "a")
    backup = tmp_path / "backup"
    back_up(database, backup)
    codes: set[int] = set()
    for point in range(60):
        if await texts_in(data_dir) == ["a"]:
            async with open_database(data_dir) as opened:
                await append(opened, "b")
        code = run_until(RESTORE, point, database, backup)
        codes.add(code)
        assert await texts_in(data_dir) in ((["a"],) if code == 0 else (["a"], ["a", "b"]))
        if code == 0:
            break
    assert codes == {0, -signal.SIGKILL}


# The commands


@pytest.fixture
def cli(tmp_path: Path) -> ShadowCli:
    return ShadowCli(tmp_path)


async def test_the_commands_say_what_they_did(tmp_path: Path, data_dir: Path, cli: ShadowCli) -> None:
    done = await asyncio.to_thread(cli.run, "backup", "backup")
    assert done.returncode == 1
    assert b"no database" in done.stderr
    await make(data_dir, "a", "b")
    done = await asyncio.to_thread(cli.run, "backup", "backup")
    assert done.returncode == 0
    assert b"1 task, 2 events" in done.stdout
    done = await asyncio.to_thread(cli.run, "backup", "backup")
    assert done.returncode == 1
    assert b"--force" in done.stderr
    made = await asyncio.to_thread(cli.json, "backup", "backup", "--force")
    assert (made["backup"], made["tasks"], made["events"], made["version"]) == ("backup", 1, 2, HEAD)
    restored = await asyncio.to_thread(cli.json, "restore", "backup")
    assert restored["restored"] == str(data_dir / FILE)
    assert Path(restored["replaced"]).exists()
    async with open_database(data_dir):
        done = await asyncio.to_thread(cli.run, "restore", "backup", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "conflict"
    assert await texts_in(data_dir) == ["a", "b"]


@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_with_a_database_elsewhere_they_name_its_own_tools(tmp_path: Path, command: str) -> None:
    cli = ShadowCli(tmp_path, env={"SHADOW_DATABASE_URL": "postgresql://u:some-secret@h/d"})
    done = await asyncio.to_thread(cli.run, command, "backup")
    assert done.returncode == 3
    assert b"pg_dump" in done.stderr
    assert b"some-secret" not in done.stderr + done.stdout
    assert left_in(tmp_path) == set()
