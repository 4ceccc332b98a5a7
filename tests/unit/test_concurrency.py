"""A group of tasks: what its failures are, and what they leave behind."""

import asyncio

import pytest

from shadow.core.concurrency import task_group

pytestmark = pytest.mark.anyio


async def fail_soon() -> None:
    await asyncio.sleep(0.001)
    raise ValueError("soon")


@pytest.mark.parametrize("in_block_s", [0, 10])
async def test_the_first_failure_is_raised_as_itself_and_leaves_no_cancellation(in_block_s: float) -> None:
    others: list[asyncio.Task[None]] = []

    async def work() -> None:
        async with task_group() as tasks:
            others.append(tasks.create_task(asyncio.sleep(10)))
            tasks.create_task(fail_soon())
            if in_block_s:
                await asyncio.sleep(in_block_s)

    with pytest.raises(ValueError, match="soon"):
        await work()
    assert others[0].cancelled()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_goes_through() -> None:
    async def wait() -> None:
        async with task_group() as tasks:
            tasks.create_task(asyncio.sleep(10))

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()


async def test_a_time_limit_goes_through() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001), task_group() as tasks:
            tasks.create_task(asyncio.sleep(10))
