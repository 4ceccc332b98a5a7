"""Checks of a workspace manager: what it makes is there, apart from others, and gone when it is gone."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shadow.core.commands import CommandSpec, Exited, StdinMode, shell
from shadow.core.errors import NotFound, Rejected, ShadowError, StaleEpoch
from shadow.core.ids import WorkspaceId, is_id, make_id
from shadow.core.workspaces import WorkspaceSpec, WorkspaceState, WorkspaceStatus
from shadow.execution.interface import WorkspaceManager
from shadow.testing.contract import DEADLINE_S, each_refused, eventually, expect, expect_equal, refused, together

LEASE_S = 300.0
UNKNOWN = WorkspaceId("ws_nobodymadethis")


@asynccontextmanager
async def a_workspace(manager: WorkspaceManager, **spec: object) -> AsyncGenerator[WorkspaceStatus, None]:
    """A workspace for the length of a block."""
    status = await manager.create(WorkspaceSpec(**{"lease_s": LEASE_S, **spec}))  # type: ignore[arg-type]
    try:
        yield status
    finally:
        await manager.destroy(status.id)


async def _fail() -> None:
    raise EOFError("the block fails")


async def _ids(manager: WorkspaceManager) -> list[WorkspaceId]:
    return [status.id for status in await manager.list()]


async def check_a_workspace_is_made_and_destroyed(manager: WorkspaceManager) -> None:
    """A workspace is ready when it was made, is listed, and is gone when it was destroyed."""
    async with a_workspace(manager, name="a name") as made:
        expect(is_id(made.id), f"{made.id!r} is no id.")
        expect_equal((made.state, made.name), (WorkspaceState.READY, "a name"), "state and name")
        expect_equal(made.isolation, manager.capabilities.isolation, "the isolation")
        status = await manager.status(made.id)
        expect_equal((status.id, status.state, status.name), (made.id, made.state, made.name), "by status")
        expect(made.id in await _ids(manager), "The workspace is not listed.")
    with refused(NotFound, what="the status of a destroyed workspace"):
        await manager.status(made.id)
    expect(made.id not in await _ids(manager), "The destroyed workspace is listed.")


async def check_destroying_may_be_repeated(manager: WorkspaceManager) -> None:
    """Destroying what is gone, or never was, does nothing."""
    async with a_workspace(manager) as made:
        await manager.destroy(made.id)
        await manager.destroy(made.id)
    await manager.destroy(UNKNOWN)


async def check_unknown_workspaces_are_not_found(manager: WorkspaceManager) -> None:
    """A workspace that nobody made is NotFound; an id that leads elsewhere is refused too."""
    for id_ in (UNKNOWN, WorkspaceId("../workspaces"), WorkspaceId(""), WorkspaceId("a/b"), WorkspaceId("a\0b")):
        await each_refused(
            {
                "attach": manager.attach(id_),
                "status": manager.status(id_),
                "renew": manager.renew(id_, lease_s=LEASE_S),
            },
            NotFound,
            Rejected,
            what=f"of {id_!r}",
        )


async def check_an_executor_is_attached(manager: WorkspaceManager) -> None:
    """An attached executor claims what its manager claims, and works."""
    async with a_workspace(manager) as made, await manager.attach(made.id) as executor:
        expect_equal(executor.capabilities, manager.capabilities, "the capabilities")
        result = await executor.run(CommandSpec(argv=("echo", "hello")), wait_s=DEADLINE_S)
        expect_equal((result.exit_code, result.stdout), (0, b"hello\n"), "a command")


async def check_a_new_workspace_is_empty(manager: WorkspaceManager) -> None:
    """A new workspace holds no file."""
    async with manager.open(WorkspaceSpec()) as executor:
        expect_equal((await executor.list_directory()).entries, (), "the files")


async def check_workspaces_are_apart(manager: WorkspaceManager) -> None:
    """Two workspaces share neither files nor commands."""
    async with manager.open(WorkspaceSpec()) as one, manager.open(WorkspaceSpec()) as other:
        await one.write_file("file", b"one")
        command = await one.start(CommandSpec(argv=("sleep", "1000")))
        with refused(NotFound, what="the other workspace's file"):
            await other.read_file("file")
        with refused(NotFound, what="the other workspace's command"):
            await other.get_command(command.id)


async def check_work_outlives_its_executor(manager: WorkspaceManager) -> None:
    """Closing an executor leaves files and commands; the next one finds them."""
    async with a_workspace(manager) as made:
        async with await manager.attach(made.id) as first:
            await first.write_file("file", b"kept")
            spec = CommandSpec(argv=shell("echo before; read; echo after"), stdin=StdinMode.OPEN)
            command = await first.start(spec)
        async with await manager.attach(made.id) as second:
            expect_equal((await second.read_file("file")).content, b"kept", "the file")
            await second.write_stdin(command.id, b"\n")
            ended = await second.wait(command.id, timeout_s=DEADLINE_S)
            expect_equal(ended.ending, Exited(code=0), "the ending")
            output = [item async for item in second.read_output(command.id)]
            data = b"".join(getattr(item, "data", b"") for item in output)
            expect_equal(data, b"before\nafter\n", "the output")


async def check_two_executors_share_a_workspace(manager: WorkspaceManager) -> None:
    """Two executors of one workspace see the same, and neither fences off the other."""
    async with (
        a_workspace(manager) as made,
        await manager.attach(made.id) as one,
        await manager.attach(made.id) as other,
    ):
        await one.write_file("file", b"one")
        await other.search_replace("file", old="one", new="two")
        expect_equal((await one.read_file("file")).content, b"two", "the file")
        command = await one.start(CommandSpec(argv=("true",)))
        expect_equal((await other.wait(command.id, timeout_s=DEADLINE_S)).ending, Exited(code=0), "the ending")


async def check_taking_over_fences_off(manager: WorkspaceManager) -> None:
    """Who takes over raises the epoch: executors from before are refused, later ones are not."""
    async with a_workspace(manager) as made, await manager.attach(made.id) as old:
        await old.write_file("file", b"old")
        async with await manager.attach(made.id, take_over=True) as new:
            expect(new.epoch > old.epoch, f"The epoch went from {old.epoch} to {new.epoch}.")
            await each_refused(
                {
                    "write_file": old.write_file("file", b"evil"),
                    "start": old.start(CommandSpec(argv=("touch", "evil"))),
                    "delete": old.delete("file"),
                },
                StaleEpoch,
                what="by an executor that was fenced off",
            )
            expect_equal((await old.read_file("file")).content, b"old", "what the old executor still reads")
            await new.write_file("file", b"new")
        async with await manager.attach(made.id) as later:
            expect_equal((await later.read_file("file")).content, b"new", "the file")
            await later.write_file("file", b"later")


async def check_variables_reach_every_command(manager: WorkspaceManager) -> None:
    """Variables of the workspace reach every command, which may replace them."""
    async with manager.open(WorkspaceSpec(env={"COLOUR": "blue", "SHAPE": "a b"})) as executor:
        argv = ("printenv", "COLOUR", "SHAPE")
        result = await executor.run(CommandSpec(argv=argv), wait_s=DEADLINE_S)
        expect_equal(result.stdout, b"blue\na b\n", "the variables")
        result = await executor.run(CommandSpec(argv=argv, env={"COLOUR": "red"}), wait_s=DEADLINE_S)
        expect_equal(result.stdout, b"red\na b\n", "a variable that the command replaces")


async def check_the_size_is_measured(manager: WorkspaceManager) -> None:
    """The size of the files is told when it is asked for."""
    async with a_workspace(manager) as made, await manager.attach(made.id) as executor:
        await executor.write_file("sub/file", secrets.token_bytes(500_000))
        size = (await manager.status(made.id, measure=True)).size_bytes
        expect(size is not None and 500_000 <= size <= 1_000_000, f"500000 bytes are measured as {size}.")


async def check_a_lease_is_renewed(manager: WorkspaceManager) -> None:
    """Renewing moves the end of the lease; a lease of no time is Rejected."""
    async with a_workspace(manager) as made:
        before = (await manager.status(made.id)).lease_expires_at
        await manager.renew(made.id, lease_s=LEASE_S * 10)
        after = (await manager.status(made.id)).lease_expires_at
        expect(before is not None and after is not None, f"The lease ends at {before}, then at {after}.")
        moved = (after or 0.0) - (before or 0.0)
        expect(LEASE_S * 8 < moved < LEASE_S * 10, f"The end of the lease moved by {moved} s.")
        for lease_s in (0.0, -1.0, float("nan")):
            with refused(Rejected, what=f"a lease of {lease_s} s"):
                await manager.renew(made.id, lease_s=lease_s)
        expect_equal((await manager.status(made.id)).state, WorkspaceState.READY, "the state after the refusals")


async def check_the_living_are_no_orphans(manager: WorkspaceManager) -> None:
    """A living workspace is no orphan, and reaping does nothing to it."""
    async with a_workspace(manager) as made, await manager.attach(made.id) as executor:
        await executor.write_file("file", b"kept")
        expect(made.id not in await manager.list_orphans(), "A living workspace is called an orphan.")
        expect(made.id not in await manager.reap(), "A living workspace was reaped.")
        expect_equal((await executor.read_file("file")).content, b"kept", "the file after reaping")


async def check_a_workspace_ends_with_its_lease(manager: WorkspaceManager) -> None:
    """A workspace whose lease nobody renews ends itself, and reaping removes what is left."""
    made = await manager.create(WorkspaceSpec(lease_s=3.0))  # a loaded machine takes a second to start it

    async def gone() -> bool:
        await manager.reap()
        try:
            await manager.status(made.id)
        except NotFound:
            return True
        return False

    try:
        await eventually(gone, what="the workspace ends and is reaped")
        with refused(NotFound, what="attaching to a workspace that ended"):
            await manager.attach(made.id)
    finally:
        await manager.destroy(made.id)


async def check_open_destroys_at_the_end(manager: WorkspaceManager) -> None:
    """A workspace that is opened for a block is gone after it, also when the block fails."""
    before = set(await _ids(manager))
    own = f"own-{make_id('n', entropy=secrets.token_bytes(8))}"

    async def opened() -> set[WorkspaceId]:
        return {status.id for status in await manager.list() if status.name == own and status.id not in before}

    async with manager.open(WorkspaceSpec(name=own)) as executor:
        await executor.health()
        expect_equal(len(await opened()), 1, "how many workspaces there are within the block")
    expect_equal(await opened(), set[WorkspaceId](), "what is left after the block")
    failed = False
    try:
        async with manager.open(WorkspaceSpec(name=own)):
            await _fail()
    except EOFError:
        failed = True
    expect(failed, "The failure of the block did not come through.")
    expect_equal(await opened(), set[WorkspaceId](), "what is left after a block that failed")


async def check_a_destroyed_workspace_answers_nobody(manager: WorkspaceManager) -> None:
    """Calls to a workspace that was destroyed end with a typed error, also those that were waiting."""
    async with a_workspace(manager) as made, await manager.attach(made.id) as executor:
        command = await executor.start(CommandSpec(argv=("sleep", "1000")))
        waiting = asyncio.ensure_future(executor.wait(command.id))
        await executor.get_command(command.id)
        await manager.destroy(made.id)
        calls = {
            "health": executor.health(),
            "write_file": executor.write_file("file", b""),
            "start": executor.start(CommandSpec(argv=("true",))),
        }
        # At the same time: an executor may try again for some seconds before it gives up.
        async with asyncio.timeout(DEADLINE_S):
            await together(
                each_refused({name: call}, ShadowError, what="of a destroyed workspace") for name, call in calls.items()
            )
            with refused(ShadowError, what="a wait in a workspace that is destroyed"):
                await waiting


async def check_many_are_made_at_once(manager: WorkspaceManager) -> None:
    """Workspaces that are made at the same time have ids of their own, and all of them work."""

    async def one(number: int) -> str:
        async with manager.open(WorkspaceSpec(lease_s=LEASE_S)) as executor:
            await executor.write_file("number", b"%d" % number)
            result = await executor.run(CommandSpec(argv=("cat", "number")), wait_s=DEADLINE_S)
            expect_equal(result.stdout, b"%d" % number, "the workspace's own number")
            return result.command.id

    ids = await together(one(number) for number in range(4))
    expect_equal(len(set(ids)), 4, "how many commands there were")


async def check_impossible_workspaces_are_rejected(manager: WorkspaceManager) -> None:
    """A lease of no time and variables that no system takes are Rejected, and nothing is left."""
    before = set(await _ids(manager))
    await each_refused(
        {
            "a lease of no time": manager.create(WorkspaceSpec(lease_s=0.0)),
            "a lease of less": manager.create(WorkspaceSpec(lease_s=-5.0)),
            "a lease of no number": manager.create(WorkspaceSpec(lease_s=float("nan"))),
            "a variable with NUL": manager.create(WorkspaceSpec(env={"A": "a\0b"}, lease_s=LEASE_S)),
            "a variable with half a character": manager.create(WorkspaceSpec(env={"A": "\ud800"}, lease_s=LEASE_S)),
            "a variable without a name": manager.create(WorkspaceSpec(env={"": "b"}, lease_s=LEASE_S)),
        },
        Rejected,
        what="at create",
    )
    expect_equal(set(await _ids(manager)) - before, set[WorkspaceId](), "what is left")
