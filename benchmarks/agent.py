"""What a step of an agent costs beyond its model and its tool; and how long `shadow run` takes to its first request."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path

from benchmarks.result import Result, median, percentile
from benchmarks.workspaces import workspace
from shadow.agent.loop import ModelFacts, RunLimits, RunState
from shadow.agent.model import Model
from shadow.agent.runner import Agent, run
from shadow.agent.task_log import open_log
from shadow.agent.toolbox import Bench, Toolbox
from shadow.agent.tools.all import make_tools
from shadow.cli.run_display import Lines
from shadow.core.conversation import AssistantMessage, Delta, Message, ModelRequest, Text, ToolCall, UserMessage
from shadow.core.events import ModelAnswered, TaskEvent, TextAdded, ToolFinished
from shadow.core.ids import Operation, OperationId, make_id
from shadow.core.tasks import Task, TaskId, TaskState
from shadow.db import tasks
from shadow.db.database import open_database
from shadow.db.group import EventWriter

STEPS = 500
GOAL_MS, GOAL_START_S = 15.0, 2.0


class Instant(Model):
    """Answers at once: reads a file, ``STEPS`` times."""

    name, context_tokens, max_output_tokens, price = "bench:instant", 10_000_000, 1000, None  # type: ignore[assignment]

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | AssistantMessage]:
        number = sum(isinstance(message, AssistantMessage) for message in request.messages)
        call = ToolCall(id=f"call_{number}", name="read_file", arguments='{"path": "file"}')
        parts = (Text(text="Done."),) if number >= STEPS else (call,)
        yield AssistantMessage(parts=parts, model=self.name)

    def check_end(self, messages: Sequence[Message]) -> None: ...

    async def aclose(self) -> None: ...


async def _steps(directory: Path) -> tuple[list[float], float]:
    """Milliseconds of each step beyond its model and tool, and the growth of our memory in bytes."""
    task = Task(
        id=TaskId("task_bench"),
        title="bench",
        state=TaskState.RUNNING,
        model="bench",
        repository="bench",
        created_at=0,
        updated_at=0,
    )
    ends: list[tuple[float, float]] = []
    spent_ms = 0.0

    async with workspace() as (executor, _), open_database(directory) as database:
        await executor.write_file("file", b"line\n" * 50)
        async with database.write() as transaction:
            await tasks.add(transaction, task)
        writer = EventWriter(database)

        async def store(told: Sequence[TaskEvent]) -> None:
            nonlocal spent_ms
            for event in told:
                if isinstance(event, ModelAnswered | ToolFinished):
                    spent_ms += event.took_ms
            if any(isinstance(event, ToolFinished) for event in told):
                ends.append((time.perf_counter() * 1e3, spent_ms))
            await writer.append(task.id, told)

        async with open_log(store) as log:
            bench = Bench(
                executor=executor,
                told=log.tell,
                operation=lambda _: Operation(
                    id=OperationId(make_id("op", entropy=os.urandom(16))), epoch=executor.epoch
                ),
                clock=time.time,
            )
            toolbox = Toolbox(make_tools(), bench)
            facts = ModelFacts(context_tokens=10_000_000, max_output_tokens=1000, price=None)
            state = RunState(
                messages=(UserMessage(text="go"),),
                tools=toolbox.names,
                limits=RunLimits(steps=STEPS + 1),
                model=facts,
            )
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await run(Agent(model=Instant(), toolbox=toolbox, instructions="", log=log), state, stop=asyncio.Event())
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    overheads = [(b[0] - a[0]) - (b[1] - a[1]) for a, b in pairwise(ends)]
    return overheads, grown * 1024


def _start_s(directory: Path) -> float:
    """From the start of `shadow run` to its first request to the model."""
    source = directory / "source"
    source.mkdir()
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", "init", "-q"], cwd=source, check=True)
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "x"], cwd=source, check=True)
    script = directory / "script.yaml"
    script.write_text("version: 1\nsteps: [{text: Done.}]\n")
    shadow = str(Path(sys.executable).with_name("shadow"))
    env = {**os.environ, "SHADOW_DATA_DIR": str(directory / "data")}
    started = time.perf_counter()
    process = subprocess.Popen(
        [shadow, "run", str(source), "x", "--model", f"scripted:{script}", "--json"], env=env, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    took = 0.0
    for line in process.stdout:
        if not took and json.loads(line)["kind"] == "model_asked":
            took = time.perf_counter() - started
    process.wait()
    quiet = subprocess.DEVNULL
    subprocess.run([shadow, "workspace", "rm", "--all", "--yes"], env=env, check=True, stdout=quiet, stderr=quiet)
    return took


def _screen_us() -> float:
    """Microseconds that a piece of text takes from its event to what would be the terminal."""
    pieces = 10_000
    lines = Lines()
    with Path(os.devnull).open("w") as terminal, redirect_stdout(terminal):
        started = time.perf_counter()
        for _ in range(pieces):
            lines(TextAdded(text="a piece of text "))
        return (time.perf_counter() - started) / pieces * 1e6


async def measure() -> Result:
    with tempfile.TemporaryDirectory(prefix="shadow-bench-") as name:
        directory = Path(name)
        overheads, grown_bytes = await _steps(directory / "db")
        starts: list[float] = []
        for number in range(3):
            (directory / str(number)).mkdir()
            starts.append(await asyncio.to_thread(_start_s, directory / str(number)))
    p50 = median(overheads)
    return Result(
        name="agent",
        unit="ms, p50, a step beyond its model and its tool",
        ours=p50,
        floor=GOAL_MS,
        floor_is="the goal itself: there is no peer for it",
        better="lower",
        goal=f"at most {GOAL_MS:.0f} ms; the first request within {GOAL_START_S:.0f} s",
        reached=p50 <= GOAL_MS and median(starts) <= GOAL_START_S,
        details={
            "p99_ms": percentile(overheads, 99),
            "start_to_first_request_s": median(starts),
            "event_to_screen_us": _screen_us(),
            "memory_grown_over_500_steps_mb": grown_bytes / 1e6,
        },
    )
