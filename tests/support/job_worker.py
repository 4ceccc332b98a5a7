"""A process that works: ``python -m tests.support.job_worker DATA_DIR URL NAME LEASE_S``; SIGTERM drains it.

Its jobs have steps, each with two effects: a file in the directory of its payload, which says who ran it, and a message in the
queue of the task ``task_effects``, written together with the step's record.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import structlog

from shadow.core.tasks import QueuedMessage, TaskId
from shadow.db import messages
from shadow.db.database import Transaction, open_database
from shadow.engine.context import Handler, JobContext
from shadow.engine.worker import Worker

EFFECTS = TaskId("task_effects")
KIND = "mark"


class Mark(Handler):
    async def run(self, context: JobContext) -> dict[str, Any]:
        directory = Path(context.job.payload["directory"])
        took = [await self._step(context, directory, number) for number in range(context.job.payload["steps"])]
        context.finish_with(_effect(f"{context.job.id}/end"))
        return {"took": took}

    async def _step(self, context: JobContext, directory: Path, number: int) -> int:
        name = f"step-{number}"

        async def action() -> int:
            mark = directory / f"{context.job.id}.{name}.{context.fence.epoch}"
            # There already: this worker has run the step before, under the same lease.
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            await asyncio.sleep(context.job.payload["step_s"])
            return context.fence.epoch

        async def also(transaction: Transaction, _result: object) -> None:
            await _effect(f"{context.job.id}/{name}")(transaction)

        return await context.step(name, action, also=also)


def _effect(text: str) -> Any:
    async def write(transaction: Transaction) -> None:
        message_id = f"message_{os.urandom(12).hex()}"
        # Nobody reads their order; a row of the task keeps those who write from taking the same place.
        await transaction.lock(1)
        await messages.add(transaction, QueuedMessage(id=message_id, task_id=EFFECTS, text=text))

    return write


async def main(data_dir: str, url: str, name: str, lease_s: str) -> None:
    async with open_database(Path(data_dir), url=url or None) as database:
        worker = Worker(
            database,
            {KIND: Mark()},
            host="here",
            name=name,
            slots=4,
            lease_s=float(lease_s),
            entropy=os.urandom,
            log=structlog.get_logger(),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: worker.drain(within_s=0.2))
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
