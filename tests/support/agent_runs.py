"""Whole runs of the agent on a directory of this host: any model, the real tools, the real log."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path

from shadow.agent.loop import ModelFacts, Outcome, RunLimits, RunState
from shadow.agent.model import Model
from shadow.agent.runner import Agent, run
from shadow.agent.task_log import open_log
from shadow.agent.toolbox import Bench, Toolbox
from shadow.agent.tools.all import make_tools
from shadow.core.conversation import UserMessage
from shadow.core.events import TaskEvent
from shadow.core.ids import Operation, OperationId
from shadow.execution.host.executor import open_host
from shadow.execution.interface import ToolExecutor

Watcher = Callable[[TaskEvent], None]


async def run_agent(
    model: Model,
    directory: Path,
    *,
    instruction: str = "Mend it.",
    watchers: Sequence[Watcher] = (),
    workspace: AbstractAsyncContextManager[ToolExecutor] | None = None,
) -> RunState:
    """A run in ``workspace``, or in ``directory / "files"``, which is made where it is not there; the state at its end."""

    async def store(events: Sequence[TaskEvent]) -> None:
        for event in events:
            for watcher in watchers:
                watcher(event)

    async with workspace or opened(directory) as executor:
        async with open_log(store) as log:
            bench = Bench(
                executor=executor,
                told=log.tell,
                operation=lambda call_id: Operation(
                    id=OperationId(f"op_{sha256(call_id.encode()).hexdigest()[:20]}"), epoch=executor.epoch
                ),
                clock=time.monotonic,
            )
            toolbox = Toolbox(make_tools(), bench)
            state = RunState(
                messages=(UserMessage(text=instruction),),
                tools=toolbox.names,
                limits=RunLimits(time_s=100),
                model=ModelFacts(
                    context_tokens=model.context_tokens, max_output_tokens=model.max_output_tokens, price=model.price
                ),
            )

            async def no_wait(_seconds: float) -> None:
                await asyncio.sleep(0)

            agent = Agent(model=model, toolbox=toolbox, instructions="", log=log, sleep=no_wait)
            return await run(agent, state, stop=asyncio.Event())


@asynccontextmanager
async def opened(directory: Path) -> AsyncGenerator[ToolExecutor]:
    (directory / "files").mkdir(parents=True, exist_ok=True)
    (directory / "state").mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8"}
    async with open_host(directory / "files", directory / "state", base_env=env) as executor:
        yield executor


def outcome_of(state: RunState) -> Outcome:
    assert state.outcome is not None
    return state.outcome
