"""What the server keeps attached to a workspace between requests: used while the workspace is the same, and no longer."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from shadow.api.attachments import Attachments
from shadow.core.commands import CommandSpec, Exited
from shadow.core.errors import NotFound, ShadowError, StaleEpoch, Unauthenticated, Unavailable
from shadow.core.ids import Operation, OperationId, WorkspaceId
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution.interface import ToolExecutor
from shadow.execution.local.directory import Workspaces
from shadow.execution.local.manager import LocalWorkspaceManager
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.sidecar_client.breaker import BreakerPolicy, BreakerState
from shadow.execution.sidecar_client.breakers import Breakers
from tests.support.local_workspaces import eventually, holder_pid, local_manager
from tests.support.waiting import until

pytestmark = pytest.mark.anyio
TRUE = CommandSpec(argv=("/bin/true",))


class Remembering(MockWorkspaceManager):
    """It can tell whether an executor is still good, as the local manager can."""

    def __init__(self) -> None:
        super().__init__()
        self.attached: list[ToolExecutor] = []
        self.good = True

    async def attach(self, workspace_id: WorkspaceId, *, take_over: bool = False) -> ToolExecutor:
        await asyncio.sleep(0)
        self.attached.append(await super().attach(workspace_id, take_over=take_over))
        return self.attached[-1]

    async def is_attached(self, workspace_id: WorkspaceId, executor: ToolExecutor) -> bool:
        await asyncio.sleep(0)
        return self.good


@asynccontextmanager
async def keeping(
    manager: MockWorkspaceManager | LocalWorkspaceManager, **bounds: float
) -> AsyncGenerator[Attachments]:
    most = int(bounds.pop("most", 128))
    attachments = Attachments(manager, clock=time.monotonic, most=most, **bounds)
    try:
        yield attachments
    finally:
        await attachments.aclose()


@asynccontextmanager
async def workspace(manager: LocalWorkspaceManager) -> AsyncGenerator[WorkspaceId]:
    status = await manager.create(WorkspaceSpec())
    try:
        yield status.id
    finally:
        await manager.destroy(status.id)


async def is_closed(executor: ToolExecutor) -> bool:
    try:
        await executor.health()
    except ShadowError:
        return True
    return False


async def used(attachments: Attachments, workspace_id: WorkspaceId) -> ToolExecutor:
    async with attachments.attached(workspace_id) as executor:
        assert (await executor.run(TRUE)).ending == Exited(code=0)
        return executor


# Whatever the manager


async def test_what_is_not_used_for_a_while_is_closed() -> None:
    manager = Remembering()
    status = await manager.create(WorkspaceSpec())
    async with keeping(manager, idle_s=0.06) as attachments:
        async with attachments.attached(status.id) as executor:
            async with attachments.attached(status.id) as again:
                assert again is executor
            await asyncio.sleep(0.2)
            assert not await is_closed(executor), "it is used"
        await until(lambda: is_closed(executor))
        async with attachments.attached(status.id) as another:
            assert another is not executor
        assert len(manager.attached) == 2


async def test_what_a_manager_cannot_tell_of_is_attached_each_time() -> None:
    manager = Remembering()
    manager.good = False
    status = await manager.create(WorkspaceSpec())
    async with keeping(manager) as attachments:
        for _ in range(3):
            async with attachments.attached(status.id) as executor:
                assert executor is manager.attached[-1]
                assert [await is_closed(one) for one in manager.attached] == [True] * (len(manager.attached) - 1) + [
                    False
                ]
    assert all([await is_closed(one) for one in manager.attached])


async def test_what_is_old_is_attached_anew_and_closed_when_its_last_user_leaves() -> None:
    manager = Remembering()
    status = await manager.create(WorkspaceSpec())
    async with keeping(manager, age_s=0.0) as attachments, AsyncExitStack() as stack:
        first = await stack.enter_async_context(attachments.attached(status.id))
        async with attachments.attached(status.id) as second:
            assert second is not first
            assert not await is_closed(first)
        await stack.aclose()
        assert await is_closed(first)
        assert not await is_closed(second)


async def test_so_many_are_kept_and_those_that_are_used_go_on() -> None:
    manager = Remembering()
    ids = [(await manager.create(WorkspaceSpec())).id for _ in range(5)]
    async with keeping(manager, most=2) as attachments, attachments.attached(ids[0]) as in_use:
        for id_ in ids[1:]:
            async with attachments.attached(id_):
                pass
        assert not await is_closed(in_use)
        assert [await is_closed(one) for one in manager.attached] == [False, True, True, False, False]
    assert all([await is_closed(one) for one in manager.attached])


async def test_many_at_once_lose_none() -> None:
    manager = Remembering()
    status = await manager.create(WorkspaceSpec())

    async def use(attachments: Attachments) -> None:
        async with attachments.attached(status.id) as executor:
            await asyncio.sleep(0)
            assert not await is_closed(executor)

    async with keeping(manager) as attachments:
        await asyncio.gather(*(use(attachments) for _ in range(20)))
        users = [asyncio.create_task(use(attachments)) for _ in range(20)]
        for turn, user in enumerate(users):
            await asyncio.sleep(0)
            if turn % 2:
                user.cancel()
        await asyncio.wait(users)
    assert all([await is_closed(one) for one in manager.attached])


# Of workspaces that are ones for real


async def test_a_second_request_uses_what_the_first_one_opened(tmp_path: Path) -> None:
    manager = local_manager(tmp_path, Isolation.NONE)
    async with workspace(manager) as id_, keeping(manager) as attachments:
        first = await used(attachments, id_)
        await manager.renew(id_, lease_s=60)  # which changes the manifest, and nothing that calls depend on
        assert await used(attachments, id_) is first


async def test_whoever_takes_it_over_is_heard_by_the_next_request(tmp_path: Path) -> None:
    manager, others = (local_manager(tmp_path, Isolation.NONE) for _ in range(2))
    async with workspace(manager) as id_, keeping(manager) as attachments:
        before = await used(attachments, id_)
        async with await others.attach(id_, take_over=True) as worker:
            async with attachments.attached(id_) as executor:
                assert executor is not before
                assert executor.epoch == worker.epoch > before.epoch
                operation = Operation(id=OperationId("op_new"), epoch=executor.epoch)
                await executor.make_directory("new", operation=operation)
                old = Operation(id=OperationId("op_old"), epoch=before.epoch)
                with pytest.raises(StaleEpoch):
                    await executor.make_directory("old", operation=old)


def is_answered(directory: Path) -> bool:
    """Whether the sidecar below still takes connections."""
    for path in directory.rglob("sidecar.sock"):
        inside = os.open(path.parent, os.O_PATH)  # the path itself may be too long for a socket's address
        try:
            with socket.socket(socket.AF_UNIX) as client, suppress(ConnectionRefusedError, FileNotFoundError):
                client.connect(f"/proc/self/fd/{inside}/{path.name}")
                return True
        finally:
            os.close(inside)
    return False


async def test_one_that_was_put_to_sleep_or_has_died_is_woken(tmp_path: Path) -> None:
    manager = local_manager(tmp_path, Isolation.NONE)
    async with workspace(manager) as id_, keeping(manager) as attachments:
        first = await used(attachments, id_)
        await manager.hibernate(id_, keep_s=60)
        second = await used(attachments, id_)
        assert second is not first
        pid = holder_pid(tmp_path, id_)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not Path(f"/proc/{pid}/exe").exists(), "the holder is gone")
        await eventually(lambda: not is_answered(tmp_path), "its sidecar is, too")
        assert await used(attachments, id_) is not second


async def test_one_that_was_removed_is_not_there_and_one_of_its_name_is_another(tmp_path: Path) -> None:
    def entropy(size: int) -> bytes:
        """Ids come out the same, tokens do not."""
        return bytes(size) if size == 16 else os.urandom(size)

    manager = local_manager(tmp_path, Isolation.NONE, entropy=entropy)
    async with keeping(manager) as attachments:
        async with workspace(manager) as id_:
            first = await used(attachments, id_)
        with pytest.raises(NotFound):
            await used(attachments, id_)
        async with workspace(manager) as again:
            assert again == id_
            assert await used(attachments, id_) is not first


async def test_with_another_token_nothing_is_asked_by_the_old_one(tmp_path: Path) -> None:
    manager = local_manager(tmp_path, Isolation.NONE)
    async with workspace(manager) as id_, keeping(manager) as attachments:
        first = await used(attachments, id_)
        with Workspaces(tmp_path).open(id_) as directory:
            await directory.change(lambda manifest: replace(manifest, token="another"))
        async with attachments.attached(id_) as executor:
            assert executor is not first
            with pytest.raises(Unauthenticated):
                await executor.health()


async def test_an_open_breaker_stays_open_and_closes_for_it_too(tmp_path: Path) -> None:
    breakers = Breakers(BreakerPolicy(failures=1, open_s=3600))
    manager = local_manager(tmp_path, Isolation.NONE, breakers=breakers)
    async with workspace(manager) as id_, keeping(manager) as attachments:
        first = await used(attachments, id_)
        breaker = breakers.of(id_)
        ticket = breaker.admit(time.monotonic())
        assert ticket is not None
        breaker.failed(ticket, time.monotonic())
        assert breaker.state is BreakerState.OPEN
        async with attachments.attached(id_) as executor:
            with pytest.raises(Unavailable, match="not sent"):
                await executor.health()
        breaker.try_soon(time.monotonic())
        assert await used(attachments, id_) is first
