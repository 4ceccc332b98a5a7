"""Several things at once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


@asynccontextmanager
async def task_group() -> AsyncGenerator[asyncio.TaskGroup]:
    """``asyncio.TaskGroup``, whose first failure ends the rest and is raised as itself.

    Before Python 3.13 a failure that ends the wait at the end of the block leaves the ``cancelling()`` of the task around it
    raised for good; aiohttp then takes the end of its own writer for a cancellation of ours. Here it is taken back.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        if task.cancelling() > before:
            task.uncancel()
        raise failures.exceptions[0] from None
