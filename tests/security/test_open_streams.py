"""What is open ends soon after its user may no longer, whichever server was told so."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from shadow.accounts.service import Accounts
from shadow.core.accounts import Role, UserId
from shadow.core.commands import CommandSpec
from shadow.core.ids import WorkspaceId
from shadow.core.terminals import TerminalSpec
from tests.support.api_servers import Api, Workspaces, serving_api, workspaces
from tests.support.databases import Place

pytestmark = pytest.mark.anyio

ENDS_WITHIN_S = 15.0
"""Far below the time after which a server looks by itself."""

Shut = Callable[[Accounts, Api, UserId, str], Awaitable[object]]


async def revoke(elsewhere: Accounts, api: Api, user: UserId, token: str) -> object:
    return await elsewhere.revoke(user, (await api.principal(token)).credential.id)


async def disable(elsewhere: Accounts, api: Api, user: UserId, token: str) -> object:
    return await elsewhere.change(user, disabled=True)


async def demote(elsewhere: Accounts, api: Api, user: UserId, token: str) -> object:
    return await elsewhere.change(user, role=Role.VIEWER)


@asynccontextmanager
async def opened(api: Api, manager: Workspaces, token: str) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """Everything that stays open, by one user; each task ends with its connection."""
    async with await manager.attach(WorkspaceId("ws_alice")) as executor:
        command = await executor.start(CommandSpec(argv=("/bin/sleep", "600")))
        terminal = await executor.create_terminal(TerminalSpec(argv=("/bin/cat",)))
        workspace = f"{api.url}/v1/workspaces/ws_alice"
        streams = [
            f"{api.url}/v1/tasks/task_alice/events/stream",
            f"{workspace}/commands/{command.id}/output?follow=true",
            f"{workspace}/watch",
        ]
        sockets = [
            f"{api.url}/v1/tasks/task_alice/events/attach",
            f"{workspace}/terminals/{terminal.id}/attach?after=0&writer=w1",
        ]
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
            ready = [asyncio.Event() for _ in (*streams, *sockets)]
            tasks = [
                *(group.create_task(_read(session, url, one)) for url, one in zip(streams, ready, strict=False)),
                *(group.create_task(_listen(session, url, one)) for url, one in zip(sockets, ready[3:], strict=True)),
            ]
            async with asyncio.timeout(ENDS_WITHIN_S):
                for one in ready:
                    await one.wait()
            yield tasks
            for task in tasks:
                task.cancel()
        await executor.kill(command.id)
        await executor.close_terminal(terminal.id)


async def _read(session: aiohttp.ClientSession, url: str, ready: asyncio.Event) -> None:
    async with session.get(url) as response:
        assert response.status == 200, await response.text()
        ready.set()
        try:
            async for _ in response.content.iter_any():
                pass
        except aiohttp.ClientError:
            return  # cut, so that nobody takes it for whole


async def _listen(session: aiohttp.ClientSession, url: str, ready: asyncio.Event) -> None:
    async with session.ws_connect(url) as socket:
        ready.set()
        async for _ in socket:
            pass
        assert socket.close_code == 1008


@pytest.mark.parametrize("shut", [revoke, disable])
async def test_all_that_is_open_ends(shared_place: Place, tmp_path: Path, shut: Shut) -> None:
    async with (
        shared_place.open() as database,
        shared_place.open() as others,
        workspaces(tmp_path / "w", "ws_alice") as manager,
        serving_api(database, manager) as api,
    ):
        elsewhere = Accounts(database=others, entropy=os.urandom)
        await elsewhere.first_user()
        alice, token = await api.user("alice")
        await api.add_task("task_alice", owner=alice.id, workspace_id="ws_alice")
        async with opened(api, manager, token) as tasks:
            await shut(elsewhere, api, alice.id, token)
            async with asyncio.timeout(ENDS_WITHIN_S):
                await asyncio.wait(tasks)


async def test_a_user_with_less_rights_keeps_what_these_are_enough_for(shared_place: Place, tmp_path: Path) -> None:
    async with (
        shared_place.open() as database,
        shared_place.open() as others,
        workspaces(tmp_path / "w", "ws_alice") as manager,
        serving_api(database, manager) as api,
    ):
        elsewhere = Accounts(database=others, entropy=os.urandom)
        await elsewhere.first_user()
        alice, token = await api.user("alice")
        await api.add_task("task_alice", owner=alice.id, workspace_id="ws_alice")
        async with opened(api, manager, token) as tasks:
            *reading, typing = tasks
            await demote(elsewhere, api, alice.id, token)
            async with asyncio.timeout(ENDS_WITHIN_S):
                await asyncio.wait((typing,))
            assert not any(task.done() for task in reading)


async def test_who_is_no_administrator_any_more_sees_nothing_of_others(shared_place: Place, tmp_path: Path) -> None:
    async with (
        shared_place.open() as database,
        shared_place.open() as others,
        workspaces(tmp_path / "w", "ws_alice") as manager,
        serving_api(database, manager) as api,
    ):
        elsewhere = Accounts(database=others, entropy=os.urandom)
        await elsewhere.first_user()
        alice, _ = await api.user("alice")
        root, token = await api.user("root", Role.ADMIN)
        await api.add_task("task_alice", owner=alice.id, workspace_id="ws_alice")
        async with opened(api, manager, token) as tasks:
            await elsewhere.change(root.id, role=Role.MEMBER)
            async with asyncio.timeout(ENDS_WITHIN_S):
                await asyncio.wait(tasks)
