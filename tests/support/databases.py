"""Databases to test on: in memory, a SQLite file, and PostgreSQL in a private cluster that the tests start and stop.

A process of tests has at most one cluster, started when the first test wants it. It listens on a unix socket alone, and its
keeper ends it as soon as the pipe from the tests closes: however they end, nothing of it stays.
"""

import asyncio
import atexit
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from shadow.db.database import Database, open_database

KINDS = MEMORY, SQLITE, POSTGRESQL = "memory", "sqlite", "postgresql"
STARTS_WITHIN_S = 60.0
_TEMPLATE = "shadow_template"
# The keeper has a process group of its own, so that Ctrl-C does not reach it: the pipe alone ends it.
_KEEPER = """
bin=$1 dir=$2
trap 'rm -rf "$dir"' EXIT
"$bin/initdb" -D "$dir/data" -U shadow -A trust --no-sync --no-locale -E UTF8 >"$dir/log" 2>&1 || exit 1
printf 'local all guarded scram-sha-256\\nlocal all all trust\\n' >"$dir/data/pg_hba.conf"
while true; do
    "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c full_page_writes=off \\
        -c max_connections=200 -c shared_buffers=32MB >>"$dir/log" 2>&1 </dev/null &
    read -r word || word=end
    kill -QUIT $!; wait $!
    [ "$word" = end ] && exit 0
    [ "$word" = stop ] && { read -r word || exit 0; }
done
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a test's database is. Each ``open`` of one in memory is another database."""

    kind: str
    data_dir: Path
    url: str | None = None

    def open(self, *, clock: Callable[[], float] = time.time) -> AbstractAsyncContextManager[Database]:
        return open_database(self.data_dir, url=self.url, clock=clock)


class Cluster:
    """PostgreSQL's processes. ``stop`` and ``start`` are abrupt, as a crash is; the databases stay."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._names = count()
        self._has_template = False
        self.directory = Path(tempfile.mkdtemp(prefix="shadow-pg-", dir="/tmp"))  # a socket's path is short
        argv = ["sh", "-c", _KEEPER, "keeper", str(programs), str(self.directory)]
        if os.geteuid() == 0:  # as which PostgreSQL refuses to run
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            argv = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *argv]
        self._keeper = subprocess.Popen(argv, stdin=subprocess.PIPE, cwd="/", start_new_session=True)
        atexit.register(self.end)
        self._wait_until_ready()

    def end(self) -> None:
        self._keeper.communicate()

    def stop(self) -> None:
        self._tell("stop")
        deadline = time.monotonic() + STARTS_WITHIN_S
        while self._is_ready():
            assert time.monotonic() < deadline, "PostgreSQL does not end"
            time.sleep(0.02)

    def start(self) -> None:
        self._tell("start")
        self._wait_until_ready()

    def make_database(self, *, empty: bool = False) -> str:
        """The URL of a new one: up to date, or with nothing in it."""
        if not self._has_template and not empty:
            self.sql(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0")
            with ThreadPoolExecutor(1) as thread:  # the caller may be inside an event loop
                thread.submit(asyncio.run, _make_tables(self.url(_TEMPLATE))).result()
            self._has_template = True
        name = f"shadow_{next(self._names)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else _TEMPLATE}")
        return self.url(name)

    def url(self, name: str, *, user: str = "shadow") -> str:
        return f"postgresql://{user}@/{name}?host={self.directory}"

    def sql(self, statement: str, *, database: str = "postgres") -> str:
        argv = ["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory), "-U", "shadow", "-d", database]
        done = subprocess.run(
            [self._programs / "psql", *argv, "-c", statement], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _tell(self, word: str) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{word}\n".encode())
        self._keeper.stdin.flush()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._is_ready():
            assert self._keeper.poll() is None, "PostgreSQL does not start"
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        argv = [self._programs / "pg_isready", "-q", "-h", str(self.directory)]
        return subprocess.run(argv, timeout=60, check=False).returncode == 0


async def _make_tables(url: str) -> None:
    async with open_database(Path("/nowhere"), url=url):
        pass


@functools.cache
def _cluster() -> Cluster | str:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    programs = found[-1].parent if found else Path(shutil.which("initdb") or "/nowhere").resolve().parent
    missing = [name for name in ("initdb", "postgres", "psql", "pg_isready") if not (programs / name).exists()]
    if missing:
        return f"PostgreSQL is not installed ({', '.join(missing)})"
    return Cluster(programs)


def cluster() -> Cluster:
    """Skips the test, with the reason, where PostgreSQL is not installed."""
    found = _cluster()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def make_place(kind: str, directory: Path, *, empty: bool = False) -> Place:
    """``empty``: without even the tables."""
    if kind == POSTGRESQL:
        return Place(kind=kind, data_dir=directory, url=cluster().make_database(empty=empty))
    return Place(kind=kind, data_dir=directory, url="sqlite://" if kind == MEMORY else None)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return make_place(request.param, tmp_path)


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """One that several processes can use."""
    return make_place(request.param, tmp_path)


@pytest.fixture
async def database(place: Place) -> AsyncGenerator[Database]:
    async with place.open() as opened:
        yield opened
