"""Other processes that use a test's database: small programs that say what they have done, a line each."""

import subprocess
import sys

from tests.support.databases import Place

_HEAD = """
import asyncio, sys
from pathlib import Path
from shadow.core.events import TextAdded
from shadow.db import events
from shadow.db.database import open_database

def place():
    return open_database(Path(sys.argv[1]), url=sys.argv[2] or None)

def say(*words):
    print(*words, flush=True)
"""
_APPEND = """
async def main():
    async with place() as database:
        say("open")
        input()
        for number in range(int(sys.argv[3])):
            async with database.write() as transaction:
                pair = [TextAdded(text=f"{number} begins"), TextAdded(text=f"{number} ends")]
                await events.append(transaction, "task_one", pair)
            say(number)
"""
_FOLLOW = """
async def main():
    async with place() as database:
        say("open")
        async for recorded in events.follow(database, "task_one", after=int(sys.argv[3])):
            say(recorded.seq)
"""
_OPEN = """
async def main():
    input()
    async with place():
        say("open")
        input()
"""


class DatabaseProcess:
    """Waits for a line on its stdin where its program says ``input()``."""

    def __init__(self, program: str, place: Place, *arguments: object) -> None:
        argv = [sys.executable, "-c", f"{_HEAD}{program}\nasyncio.run(main())", str(place.data_dir), place.url or ""]
        self.process = subprocess.Popen(
            [*argv, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def line(self) -> str:
        """What it says next; empty where it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> int:
        self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.end()


def appending(place: Place, times: int) -> DatabaseProcess:
    """Opens the database, waits, appends ``times`` pairs to the log of ``rows.ID``, and says the number of each."""
    return DatabaseProcess(_APPEND, place, times)


def following(place: Place, *, after: int = 0) -> DatabaseProcess:
    """Reads that log and says the number of each event, without end."""
    return DatabaseProcess(_FOLLOW, place, after)


def opening(place: Place) -> DatabaseProcess:
    """Waits, opens the database, and waits again before it closes it."""
    return DatabaseProcess(_OPEN, place)
