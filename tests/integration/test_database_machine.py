"""The log as a machine: writers of all kinds, readers that leave and come back, databases that are closed and opened again."""

import asyncio
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shadow.core.events import TextAdded
from shadow.core.tasks import TaskId
from shadow.db import events
from shadow.db.database import Database
from shadow.db.group import EventWriter
from tests.support.databases import POSTGRESQL, SQLITE, Place, make_place
from tests.support.rows import add_task, append, texts_of
from tests.support.waiting import until

_IDS = count()
_PLACES: dict[str, Place] = {}


class Reader:
    """Remembers what it saw when it leaves, and goes on behind it."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.seen: list[int] = []
        self.task: asyncio.Task[None] | None = None

    def come(self, database: Database, task_id: TaskId) -> None:
        self.task = asyncio.create_task(self._read(database, task_id))

    async def leave(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})
            self.task = None

    async def _read(self, database: Database, task_id: TaskId) -> None:
        async for recorded in events.follow(database, task_id, after=self.start + len(self.seen)):
            self.seen.append(recorded.seq)


class LogMachine(RuleBasedStateMachine):
    kind = SQLITE

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.readers: list[Reader] = []
        self.kept: list[str] = []
        self.maybe: set[str] = set()
        """What was cancelled: it is there whole, or not."""
        self.names = count()

    def teardown(self) -> None:
        self.runner.run(self._end())
        self.runner.close()

    async def _end(self) -> None:
        await self._check()
        for reader in self.readers:
            await reader.leave()
        await self.opened.aclose()

    @initialize()
    def begin(self) -> None:
        self.task_id = TaskId(f"task_{next(_IDS)}")
        self.runner.run(self._open())
        self.runner.run(add_task(self.databases[0], self.task_id))

    async def _open(self) -> None:
        """Twice, as two processes would."""
        self.opened = AsyncExitStack()
        self.databases = [await self.opened.enter_async_context(_PLACES[self.kind].open()) for _ in range(2)]
        self.writers = [EventWriter(database) for database in self.databases]

    @rule(which=st.integers(0, 1), size=st.integers(0, 3))
    def write(self, which: int, size: int) -> None:
        texts = [str(next(self.names)) for _ in range(size)]
        self.runner.run(append(self.databases[which], *texts, to=self.task_id))
        self.kept += texts

    @rule(calls=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2), st.booleans()), min_size=1, max_size=5))
    def write_at_once(self, calls: list[tuple[int, int, bool]]) -> None:
        """Some in groups, some alone, in both places."""
        self.runner.run(self._write_at_once(calls))

    async def _write_at_once(self, calls: list[tuple[int, int, bool]]) -> None:
        async def one(which: int, texts: list[str], grouped: bool) -> None:
            if grouped:
                await self.writers[which].append(self.task_id, [TextAdded(text=text) for text in texts])
            else:
                await append(self.databases[which], *texts, to=self.task_id)

        named = [(which, [str(next(self.names)) for _ in range(size)], grouped) for which, size, grouped in calls]
        await asyncio.gather(*(one(*call) for call in named))
        now = await texts_of(self.databases[0], self.task_id)
        new = [text for text in now[len(self.kept) :] if text not in self.maybe]
        assert sorted(new) == sorted(text for _, texts, _ in named for text in texts)
        self.kept = now

    @rule(which=st.integers(0, 1), turns=st.integers(0, 25), grouped=st.booleans())
    def write_and_be_cancelled(self, which: int, turns: int, grouped: bool) -> None:
        self.runner.run(self._cancelled(which, turns, grouped))

    async def _cancelled(self, which: int, turns: int, grouped: bool) -> None:
        texts = [str(next(self.names)) for _ in "ab"]
        self.maybe.update(texts)
        new = [TextAdded(text=text) for text in texts]
        work = (
            self.writers[which].append(self.task_id, new)
            if grouped
            else append(self.databases[which], *texts, to=self.task_id)
        )
        writing = asyncio.ensure_future(work)
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait({writing})
        # One more of the same writer: behind it nothing of the cancelled one is on its way.
        mark = str(next(self.names))
        await self.writers[which].append(self.task_id, [TextAdded(text=mark)])
        self.kept = await texts_of(self.databases[0], self.task_id)
        assert mark in self.kept
        assert len({text in self.kept for text in texts}) == 1, "half of it"

    @precondition(lambda self: len(self.readers) < 4)
    @rule(which=st.integers(0, 1), share=st.floats(0, 1))
    def read(self, which: int, share: float) -> None:
        reader = Reader(int(share * len(self.kept)))
        self.readers.append(reader)
        self.runner.run(self._come(reader, which))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 1), number=st.integers(0, 3))
    def come_back(self, which: int, number: int) -> None:
        self.runner.run(self._come(self.readers[number % len(self.readers)], which))

    async def _come(self, reader: Reader, which: int) -> None:
        await reader.leave()
        reader.come(self.databases[which], self.task_id)

    @precondition(lambda self: self.readers)
    @rule(number=st.integers(0, 3))
    def leave(self, number: int) -> None:
        self.runner.run(self.readers[number % len(self.readers)].leave())

    @rule()
    def open_again(self) -> None:
        self.runner.run(self._open_again())

    async def _open_again(self) -> None:
        for reader in self.readers:
            await reader.leave()
        await self.opened.aclose()
        await self._open()

    @rule()
    def check(self) -> None:
        self.runner.run(self._check())

    async def _check(self) -> None:
        assert await texts_of(self.databases[1], self.task_id) == self.kept
        for reader in self.readers:
            if reader.task is not None:
                await until(lambda: len(reader.seen) == len(self.kept) - reader.start)  # noqa: B023

    @invariant()
    def readers_see_each_event_once_and_in_order(self) -> None:
        for reader in self.readers:
            assert reader.seen == list(range(reader.start + 1, reader.start + 1 + len(reader.seen)))
            assert reader.task is None or not reader.task.done(), reader.task


class PostgresqlLogMachine(LogMachine):
    kind = POSTGRESQL


@pytest.mark.parametrize("machine", [LogMachine, PostgresqlLogMachine], ids=[SQLITE, POSTGRESQL])
def test_no_reader_misses_or_repeats_an_event(machine: type[LogMachine], tmp_path: Path) -> None:
    _PLACES[machine.kind] = make_place(machine.kind, tmp_path)
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))
