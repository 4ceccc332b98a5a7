"""No connection is left to the garbage collector: whoever is cancelled at whatever moment, and however the loop ends."""

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text

from shadow.core.errors import Conflict, ShadowError
from shadow.db.database import Database
from shadow.db.patient import PatientConnection
from tests.support.databases import Place

Life = Callable[[Place, random.Random], Coroutine[Any, Any, None]]


async def use(database: Database, some: random.Random) -> None:
    """Raises: Conflict: the database was closed."""
    while True:
        if some.random() < 0.5:
            async with database.read() as connection:
                await connection.execute(text("SELECT 1"))
        else:
            async with database.write() as transaction:
                await transaction.connection.execute(text("UPDATE tasks SET title = title"))


async def let_run(some: random.Random, turns: int) -> None:
    for _ in range(some.randrange(turns)):
        await asyncio.sleep(some.choice((0, 0, 0, 0.0005)))


async def users_are_cancelled(place: Place, some: random.Random) -> None:
    async with place.open() as database:
        for _ in range(10):
            users = [asyncio.create_task(use(database, some)) for _ in range(some.randrange(1, 5))]
            await let_run(some, 30)
            for user in users:
                user.cancel()
                if some.random() < 0.3:
                    await asyncio.sleep(0)
                    user.cancel()
            if some.random() < 0.7:
                await asyncio.wait(users)
        async with asyncio.timeout(10), database.write():
            """It works as before."""


async def it_is_closed_while_it_is_used(place: Place, some: random.Random) -> None:
    async with place.open() as database:
        users = [asyncio.create_task(use(database, some)) for _ in range(some.randrange(1, 5))]
        await let_run(some, 60)
    for user in users:
        with pytest.raises(Conflict, match="closed"):
            await user


async def opening_is_cancelled(place: Place, some: random.Random) -> None:
    async def open_it() -> None:
        async with place.open():
            await asyncio.sleep(some.random() * 0.001)

    opening = asyncio.create_task(open_it())
    await let_run(some, 120)
    opening.cancel()
    if some.random() < 0.5:
        await asyncio.sleep(0)
        opening.cancel()
    if some.random() < 0.7:
        await asyncio.wait({opening})


async def the_loop_ends_in_the_middle(place: Place, some: random.Random) -> None:
    users: list[asyncio.Task[None]] = []

    async def hold() -> None:
        async with place.open() as database:
            while True:
                users.append(asyncio.create_task(use(database, some)))
                await let_run(some, 30)
                some.choice(users).cancel()

    holding = asyncio.create_task(hold())
    await let_run(some, 300)
    if some.random() < 0.5:
        holding.cancel()
        await let_run(some, 5)


LIVES = [users_are_cancelled, it_is_closed_while_it_is_used, opening_is_cancelled, the_loop_ends_in_the_middle]


def unclosed() -> list[object]:
    """One that is collected before we look warns, and the test fails for that."""
    kinds: list[type] = [PatientConnection]
    try:
        import asyncpg
    except ImportError:
        pass
    else:
        kinds.append(asyncpg.Connection)
    return [each for each in gc.get_objects() if type(each) in kinds and not each.is_closed()]


@pytest.mark.parametrize("life", LIVES)
def test_every_connection_is_closed_however_it_ends(place: Place, life: Life) -> None:
    def quiet(_loop: object, _context: object) -> None:
        """What tasks raise that nobody waits for, as they were left alone on purpose."""

    before = set(map(id, unclosed()))
    for seed in range(12):
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(quiet)
            runner.run(life(place, random.Random(seed)))
        assert not [each for each in unclosed() if id(each) not in before], f"seed {seed}"


@pytest.mark.anyio
async def test_who_uses_a_database_that_is_closed_is_told(shared_place: Place) -> None:
    held, closed = asyncio.Event(), asyncio.Event()

    async def hold(database: Database) -> None:
        async with database.read() as connection:
            await connection.execute(text("SELECT 1"))
            held.set()
            await closed.wait()
            await connection.execute(text("SELECT 1"))

    async with shared_place.open() as database:
        holding = asyncio.create_task(hold(database))
        await held.wait()
    closed.set()
    with pytest.raises(ShadowError):
        await holding
    with pytest.raises(Conflict, match="closed"):
        async with database.read():
            """Nobody comes here."""
    assert not unclosed()
