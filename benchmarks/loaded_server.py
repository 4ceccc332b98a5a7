"""A server whose tasks run with a model that tells the time, in workspaces that are mocked.

Worker, loop of the agent, log and API are the product's, in one process as ``shadow serve`` has them; only the clone is left out,
for which the mock has no git.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from shadow.agent.model import Model
from shadow.api.main import serve
from shadow.bootstrap import make_repositories, open_artifacts, start_logging
from shadow.core.conversation import AssistantMessage, Delta, FinishReason, ModelRequest, Text, TextDelta, ToolCall
from shadow.core.models import Price
from shadow.core.repositories import Checkout
from shadow.core.tasks import Task, TaskStep
from shadow.core.tracing import Tracer
from shadow.core.workspaces import WorkspaceSpec
from shadow.db import tasks as rows
from shadow.db.database import Transaction
from shadow.db.group import EventWriter
from shadow.engine.context import Handler, JobContext
from shadow.engine.worker import Worker
from shadow.execution.interface import WorkspaceManager
from shadow.settings import Settings, load_settings
from shadow.tasks.running import Running
from shadow.tasks.service import INITIALISE, RUN, Tasks
from shadow.tasks.workshop import Workshop, task_id_of

PACE_S = 0.05
"""Between two pieces of an answer, on average."""
PIECES = 40
SLOTS = 1000
GO = Path("go")
"""In the server's directory: nobody says anything before it is there."""
_CALL = json.dumps({"command": "echo done"})


class Clock(Model):
    """Each piece is the time at which it is said; each answer ends with a call of a tool, and there is always another one."""

    def __init__(self) -> None:
        self._said = 0

    @property
    def name(self) -> str:
        return "bench:clock"

    @property
    def context_tokens(self) -> int:
        return 100_000_000

    @property
    def max_output_tokens(self) -> int:
        return 10_000

    @property
    def price(self) -> Price | None:
        return None

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | AssistantMessage]:
        while not GO.exists():
            await asyncio.sleep(0.1)
        pieces: list[str] = []
        for _ in range(PIECES):
            await asyncio.sleep(PACE_S * random.uniform(0.5, 1.5))
            pieces.append(f"{time.monotonic():.4f} ")
            yield TextDelta(text=pieces[-1])
        self._said += 1
        call = ToolCall(id=f"call_{self._said}", name="run_terminal_cmd", arguments=_CALL)
        parts = (Text(text="".join(pieces)), call)
        yield AssistantMessage(parts=parts, model=self.name, finish=FinishReason.TOOL_CALLS)

    async def aclose(self) -> None:
        pass


class Starting(Handler):
    """A workspace with nothing in it."""

    def __init__(self, tasks: Tasks, manager: WorkspaceManager) -> None:
        self._tasks = tasks
        self._manager = manager

    async def run(self, context: JobContext) -> Mapping[str, Any] | None:
        task_id = task_id_of(context)
        status = await self._manager.create(WorkspaceSpec())
        checkout = Checkout(repository="bench", base_branch="main", base_commit="0" * 40, branch="shadow/bench")

        async def ready(transaction: Transaction) -> None:
            await rows.change(transaction, task_id, workspace_id=status.id, checkout=checkout)
            task = await self._tasks.move(transaction, task_id, TaskStep.BE_READY)
            await self._tasks.add_job(transaction, task, RUN)

        context.finish_with(ready)
        return None


@asynccontextmanager
async def open_clock(_task: Task) -> AsyncGenerator[Model]:
    yield Clock()


async def make_worker(settings: Settings, tasks: Tasks, *, manager: WorkspaceManager, tracer: Tracer) -> Worker:
    shop = Workshop(
        tasks=tasks,
        writer=EventWriter(tasks.database),
        manager=manager,
        repositories=make_repositories(settings),
        artifacts=open_artifacts(settings),
        open_model=open_clock,
        co_authors=(),
        clock=time.time,
        entropy=os.urandom,
    )
    return Worker(
        tasks.database,
        {INITIALISE: Starting(tasks, manager), RUN: Running(shop)},
        host=tasks.host or "",
        name="bench",
        slots=SLOTS,
        lease_s=settings.worker_lease_s,
        entropy=os.urandom,
        log=structlog.get_logger("shadow.engine"),
        tracer=tracer,
    )


def main() -> None:
    settings = load_settings()
    start_logging(settings)
    asyncio.run(serve(settings, worker_from=make_worker))


if __name__ == "__main__":
    main()
