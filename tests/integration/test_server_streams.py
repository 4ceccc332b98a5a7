"""A task's log as the server streams it: whole and in order by either way, encoded once for all; and what else lists many."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import aiohttp
import pytest

from shadow.api.events import MAX_KEPT, MAX_KEPT_BYTES, Encoded
from shadow.core.events import Recorded, TextAdded
from shadow.core.ids import WorkspaceId
from shadow.core.tasks import TaskState
from shadow.core.workspaces import WorkspaceSpec
from shadow.db import tasks
from shadow.db.database import Database
from shadow.db.events import PAGE
from shadow.db.group import EventWriter
from shadow.wire.events import encode_recorded
from shadow.wire.server_sent import EventDecoder
from tests.support.api_servers import Workspaces, serving_api
from tests.support.databases import Place
from tests.support.rows import make_task

pytestmark = pytest.mark.anyio
WITHIN_S = 60.0

Reading = Callable[[aiohttp.ClientSession, str, int], AsyncIterator[int]]


def entry(seq: int, text: str = "x") -> Recorded:
    return Recorded(seq=seq, at=1.0, event=TextAdded(text=text))


def test_an_entry_is_encoded_once_for_those_who_read_it_together() -> None:
    encoded, one = Encoded(), entry(1)
    assert encoded(one) is encoded(one)
    assert encoded(one) == encode_recorded(one)


def test_what_is_kept_of_encoded_entries_is_bounded() -> None:
    encoded, first, large = Encoded(), entry(1), entry(2, "x" * MAX_KEPT_BYTES)
    before = encoded(first)
    assert encoded(large) is not encoded(large)
    others = [entry(number) for number in range(MAX_KEPT)]
    for other in others:
        encoded(other)
    assert encoded(others[-1]) is encoded(others[-1])
    assert encoded(first) == before
    assert encoded(first) is not before


async def by_socket(session: aiohttp.ClientSession, log: str, after: int) -> AsyncIterator[int]:
    async with session.ws_connect(f"{log}/attach?after={after}") as socket:
        async for message in socket:
            yield json.loads(message.data)["seq"]


async def by_events(session: aiohttp.ClientSession, log: str, after: int) -> AsyncIterator[int]:
    decoder = EventDecoder()
    async with session.get(f"{log}/stream?after={after}") as response:
        async for data in response.content.iter_any():
            for _, told in decoder.feed(data):
                yield json.loads(told)["seq"]


async def test_every_reader_gets_the_log_whole_and_in_order_by_either_way(place: Place) -> None:
    async with place.open() as database, serving_api(database) as api:
        alice, token = await api.user("alice")
        task_id = await api.add_task("task_alice", owner=alice.id)
        writer = EventWriter(database)
        await writer.append(task_id, [TextAdded(text="x")] * (PAGE + 5))
        end = PAGE + 5 + 200
        headers = {"Authorization": f"Bearer {token}"}
        log = f"{api.url}/v1/tasks/{task_id}/events"

        async def read(by: Reading, after: int) -> None:
            expected = after + 1
            async for seq in by(session, log, after):
                assert seq == expected
                if seq == end:
                    return
                expected += 1

        async with aiohttp.ClientSession(headers=headers) as session, asyncio.timeout(WITHIN_S):
            async with asyncio.TaskGroup() as group:
                for after in (0, 7, PAGE, PAGE + 5):
                    for by in (by_socket, by_events):
                        group.create_task(read(by, after))
                for number in range(100):
                    await writer.append(task_id, [TextAdded(text=str(number))] * 2)


async def test_workspaces_are_listed_however_many_tasks_are_newer(database: Database) -> None:
    manager = Workspaces()
    mine, theirs, unknown = [(await manager.create(WorkspaceSpec())).id for _ in range(3)]
    async with serving_api(database, manager) as api:
        alice, token = await api.user("alice")
        bob, _ = await api.user("bob")
        await api.add_task("task_old", owner=alice.id, workspace_id=mine)
        await api.add_task("task_bob", owner=bob.id, workspace_id=theirs)
        async with database.write() as transaction:
            for number in range(1100):
                newer = replace(make_task(f"task_new{number}", created_at=10.0 + number), owner=alice.id)
                await tasks.add(
                    transaction, replace(newer, state=TaskState.IDLE, workspace_id=WorkspaceId(f"ws_{number}"))
                )
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            async with session.get(f"{api.url}/v1/workspaces") as response:
                listed = (await response.json())["workspaces"]
    assert [(one["id"], one["task_id"]) for one in listed] == [(mine, "task_old")]
    assert unknown not in str(listed)
