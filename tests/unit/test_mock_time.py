"""Virtual time: it stands still while nobody waits, and goes through everything that is due in order."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.core.commands import CommandSpec
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.mock.manager import MockWorkspaceManager
from shadow.execution.mock.times import RealTime, VirtualTime

pytestmark = pytest.mark.anyio

SECONDS = st.floats(0.001, 1e7, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(st.lists(SECONDS, min_size=1, max_size=8))
def test_sleepers_wake_in_order_each_at_its_time(delays: list[float]) -> None:
    async def sleep_all() -> list[tuple[float, float]]:
        clock = VirtualTime(start=0.0)
        woken: list[tuple[float, float]] = []

        async def sleep(delay: float) -> None:
            await clock.background_sleep(delay)
            woken.append((delay, clock.now()))

        with clock.waiting():
            await asyncio.gather(*map(sleep, delays))
        return woken

    woken = asyncio.run(sleep_all())
    assert [delay for delay, _ in woken] == sorted(delays)
    assert all(delay == moment for delay, moment in woken)


async def test_no_time_passes_while_nobody_waits() -> None:
    clock = VirtualTime()
    began = clock.now()
    sleeping = asyncio.create_task(clock.background_sleep(10.0))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert (clock.now(), sleeping.done()) == (began, False)
    await clock.sleep(20.0)
    assert (clock.now(), sleeping.done()) == (began + 20.0, True)


async def test_quick_calls_do_not_move_time() -> None:
    clock = VirtualTime()
    async with MockWorkspaceManager(time=clock).open(WorkspaceSpec()) as executor:
        began = clock.now()
        command = await executor.start(CommandSpec(argv=("sleep", "3600")))
        for number in range(300):
            await executor.write_file("file", b"%d" % number)
            await executor.run(CommandSpec(argv=("true",)))
        assert clock.now() == began
        assert (await executor.get_command(command.id)).ending is None


async def test_a_cancelled_sleeper_holds_nobody_up() -> None:
    clock = VirtualTime()
    began = clock.now()
    sleeping = asyncio.create_task(clock.background_sleep(5.0))
    await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.wait([sleeping])
    await clock.sleep(7.0)
    assert clock.now() == began + 7.0


async def test_days_of_leases_and_commands_take_no_time() -> None:
    clock = VirtualTime()
    began, really = clock.now(), time.monotonic()
    async with MockWorkspaceManager(time=clock).open(WorkspaceSpec(lease_s=60.0)) as executor:
        result = await executor.run(CommandSpec(argv=("sleep", "1d")))
        assert result.command.ended_at == began + 86400.0
        assert (await executor.health()).lease_remaining_s is not None  # it was renewed thousands of times
    assert time.monotonic() - really < 60


async def test_real_time_is_what_it_was_given() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock = RealTime(clock=lambda: 42.0 + sum(slept), sleep=sleep)
    await clock.sleep(3.0)
    assert (clock.now(), slept) == (45.0, [3.0])
    assert not await clock.wait(asyncio.Event(), 4.0)
    assert slept == [3.0, 4.0]
