"""What the tests' own PostgreSQL promises: nothing of it stays, however the tests end."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shadow.db.database import Database
from tests.support.databases import cluster
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_a_cluster_ends_with_the_process_of_the_tests(number: int) -> None:
    cluster()
    program = (
        "import time; from tests.support.databases import cluster; print(cluster().directory, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    directory = Path(process.stdout.readline().decode().strip())
    postmaster = int((directory / "data" / "postmaster.pid").read_text().split()[0])
    process.send_signal(number)
    process.communicate(timeout=30)
    await until(lambda: not directory.exists() and not Path(f"/proc/{postmaster}").exists())


async def test_each_test_has_a_database_of_its_own(database: Database) -> None:
    async with database.read() as connection:
        tables = await connection.run_sync(lambda c: c.dialect.get_table_names(c))
    assert "events" in tables
