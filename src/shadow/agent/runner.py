"""Acting on what ``agent.loop`` decides: asks the model, calls the tools, records each step before the next begins."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import assert_never

from shadow.agent.compaction import compact
from shadow.agent.loop import (
    Action,
    Answered,
    AskModel,
    CallTools,
    Compact,
    Compacted,
    End,
    Event,
    Interrupted,
    ModelFailed,
    Outcome,
    RunState,
    RunStatus,
    ToolsAnswered,
    apply,
    decide,
    message_chars,
)
from shadow.agent.model import Model
from shadow.agent.rebuilding import InterruptedStep
from shadow.agent.task_log import TaskLog
from shadow.agent.toolbox import Called, Toolbox
from shadow.core.conversation import (
    AssistantMessage,
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from shadow.core.errors import ShadowError
from shadow.core.events import (
    CallAdded,
    ConversationCompacted,
    ModelAnswered,
    ModelAsked,
    ModelRequestFailed,
    TextAdded,
    ToolFinished,
    ToolStarted,
)
from shadow.core.ids import CommandId
from shadow.core.models import ContextTooLong, ModelUnreachable
from shadow.core.quota import BudgetSpent
from shadow.core.tracing import Span, Traced
from shadow.execution.streams import closing

STOP_LIMIT_S = 0.8
"""How long the ending of what a stopped run started may take before the run is told to have ended."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What a run is made of."""

    model: Model
    toolbox: Toolbox
    instructions: str
    log: TaskLog
    checkpoint: Callable[[], Awaitable[None]] | None = None
    """Called after each step that may have changed files, when what it answered is stored; while the model thinks."""
    interrupted: InterruptedStep = field(default_factory=InterruptedStep)
    """Where the run is taken up again."""
    may_ask: Callable[[], Awaitable[None]] | None = None
    """Called before each request to the model. Raises: BudgetSpent: nothing more may be spent, and the run ends with that."""
    may_call: Callable[[], Awaitable[None]] | None = None
    """The same before the calls of an answer."""
    clock: Clock = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def run(agent: Agent, state: RunState, *, stop: asyncio.Event) -> RunState:
    """Until the run has an outcome. ``stop`` ends it within a second, with everything that it started.

    Cancelling it leaves everything as it is, for whoever takes the run up again. Raises: what the log raises where an event
    cannot be stored.
    """
    unsaved = not all(map(agent.toolbox.only_reads, agent.interrupted.unsaved))
    while True:
        action = decide(state)
        reached = await _budget_spent(agent, action)
        if reached is not None:
            state = _ended_with(state, reached)
            action = End(outcome=reached)
        if isinstance(action, End):
            await _end_commands(agent)  # what runs in the background must not write into what is delivered
            async with _checkpointing(agent, unsaved):
                return _as_the_model_expects(agent, replace(state, outcome=action.outcome))
        event = await _unless_stopped(agent, _act(agent, state, action, unsaved), stop, left_s=_left_s(state))
        if event is None:
            state = _stopped(state, stop)
            await _end_commands(agent)
            return state
        state = apply(state, event)
        await agent.log.flush()
        if isinstance(action, CallTools):
            unsaved = unsaved or not all(agent.toolbox.only_reads(call.name) for call in action.calls)
        elif isinstance(event, Answered):
            unsaved = False


async def _budget_spent(agent: Agent, action: Action) -> Outcome | None:
    match action:
        case AskModel():
            may = agent.may_ask
        case CallTools():
            may = agent.may_call
        case _:
            return None
    try:
        if may is not None:
            await may()
    except BudgetSpent as error:
        return limit_reached(error)
    return None


def limit_reached(error: BudgetSpent) -> Outcome:
    return Outcome(status=RunStatus.LIMIT_REACHED, summary=str(error), code=str(error.details["limit"]))


def _ended_with(state: RunState, reached: Outcome) -> RunState:
    """What the model wanted done and nobody did is answered."""
    return replace(apply(state, Interrupted(reason=reached.summary)), outcome=reached)


def _as_the_model_expects(agent: Agent, state: RunState) -> RunState:
    """A run that ended by itself has failed where a script or a recording expects another end."""
    if state.outcome is None or state.outcome.status not in (RunStatus.DONE, RunStatus.GAVE_UP):
        return state
    try:
        agent.model.check_end(state.messages)
    except ShadowError as error:
        return replace(state, outcome=Outcome(status=RunStatus.FAILED, summary=str(error), code=error.code))
    return state


def _left_s(state: RunState) -> float:
    return max(0.0, state.limits.time_s - state.elapsed_s)


def _stopped(state: RunState, stop: asyncio.Event) -> RunState:
    if stop.is_set():
        return apply(state, Interrupted())
    summary = f"The run has taken {state.limits.time_s:.0f} s, as long as it may."
    return _ended_with(state, Outcome(status=RunStatus.LIMIT_REACHED, summary=summary, code="time"))


async def _unless_stopped(agent: Agent, work: Awaitable[Event], stop: asyncio.Event, *, left_s: float) -> Event | None:
    """The event, or ``None`` where the run was stopped or its time was up first."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        agent.toolbox.bench.stopping = not task.done()
        return task.result() if task.done() else None
    finally:
        for future in (task, stopped):
            future.cancel()
        # A step that does not let go at once (a call that waits for an answer) must not hold up the end.
        await asyncio.wait({task, stopped}, timeout=STOP_LIMIT_S / 2)
        if task.done() and not task.cancelled():
            task.exception()


@asynccontextmanager
async def _checkpointing(agent: Agent, unsaved: bool) -> AsyncGenerator[None]:
    """Takes a checkpoint of what is ``unsaved`` beside the block, and waits for it at its end."""
    if agent.checkpoint is None or not unsaved:
        yield
        return
    taking = asyncio.ensure_future(agent.checkpoint())
    try:
        yield
        await taking
    finally:
        taking.cancel()
        await asyncio.wait({taking})


async def _act(agent: Agent, state: RunState, action: AskModel | CallTools | Compact, unsaved: bool) -> Event:
    match action:
        case AskModel():
            if action.after_s:
                await agent.sleep(action.after_s)
            return await _ask(agent, state, unsaved)
        case CallTools():
            agent.toolbox.bench.step = state.steps
            return await _call(agent, action.calls)
        case Compact():
            messages = compact(state.messages, target_chars=action.target_chars)
            before, after = (sum(map(message_chars, m)) for m in (state.messages, messages))
            agent.log.tell(
                ConversationCompacted(target_chars=action.target_chars, before_chars=before, after_chars=after)
            )
            return Compacted(messages=messages)
        case _:
            assert_never(action)


# The model


async def _ask(agent: Agent, state: RunState, unsaved: bool) -> Answered | ModelFailed:
    began = agent.clock()
    agent.log.tell(ModelAsked(step=state.steps + 1))
    request = ModelRequest(
        instructions=agent.instructions,
        messages=state.messages,
        tools=agent.toolbox.descriptions,
        max_output_tokens=agent.model.max_output_tokens,
    )
    async with _checkpointing(agent, unsaved):  # on record before the answer is
        try:
            answer: AssistantMessage | ShadowError = await _answer(agent, request)
        except ShadowError as error:
            answer = error
    elapsed_s = agent.clock() - began
    if isinstance(answer, ShadowError):
        return _model_failed(agent, answer, elapsed_s)
    price = agent.model.price
    cost = None if price is None else str(price.of(answer.usage))
    agent.log.tell(ModelAnswered(message=answer, took_ms=elapsed_s * 1000, cost_usd=cost))
    return Answered(message=answer, elapsed_s=elapsed_s)


def _model_failed(agent: Agent, error: ShadowError, elapsed_s: float) -> ModelFailed:
    failed = ModelFailed(
        code=error.code,
        message=str(error),
        repeat_is_safe=error.repeat_is_safe,
        retry_after_s=_seconds(error.details.get("retry_after_s")),
        context_too_long=isinstance(error, ContextTooLong),
        elapsed_s=elapsed_s,
    )
    agent.log.tell(
        ModelRequestFailed(
            code=failed.code,
            message=failed.message,
            repeat_is_safe=failed.repeat_is_safe,
            retry_after_s=failed.retry_after_s,
            took_ms=elapsed_s * 1000,
        )
    )
    return failed


async def _answer(agent: Agent, request: ModelRequest) -> AssistantMessage:
    with agent.log.tracer.span(Traced.MODEL_REQUEST, agent.model.name) as span:
        answer = await _streamed(agent, request)
        _tell_answer(span, answer)
        return answer


def _tell_answer(span: Span, answer: AssistantMessage) -> None:
    span.tell(
        model=answer.model,
        finish=answer.finish.value,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        cache_read_tokens=answer.usage.cache_read_tokens,
        cache_write_tokens=answer.usage.cache_write_tokens,
    )


async def _streamed(agent: Agent, request: ModelRequest) -> AssistantMessage:
    async with closing(agent.model.stream(request)) as pieces:
        async for piece in pieces:
            match piece:
                case TextDelta():
                    agent.log.tell(TextAdded(text=piece.text))
                case ReasoningDelta():
                    agent.log.tell(TextAdded(text=piece.text, reasoning=True))
                case ToolCallDelta():
                    agent.log.tell(CallAdded(call_id=piece.call_id, name=piece.name, arguments=piece.arguments))
                case AssistantMessage():
                    return piece
                case _:
                    assert_never(piece)
    raise ModelUnreachable("The model's answer ended in the middle.")


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


# The tools


async def _call(agent: Agent, calls: Sequence[ToolCall]) -> ToolsAnswered:
    """What only reads goes together; what may change something goes alone, in its turn."""
    began = agent.clock()
    done: list[Called] = []
    for group in groups(calls, agent.toolbox):
        done += await asyncio.gather(*(_call_one(agent, call) for call in group))
    return ToolsAnswered(
        results=tuple(called.result for called in done),
        faults=sum(called.is_fault for called in done),
        elapsed_s=agent.clock() - began,
    )


def groups(calls: Sequence[ToolCall], toolbox: Toolbox) -> list[list[ToolCall]]:
    found: list[list[ToolCall]] = []
    together = False
    for call in calls:
        reads = toolbox.only_reads(call.name)
        if reads and together:
            found[-1].append(call)
        else:
            found.append([call])
        together = reads
    return found


async def _call_one(agent: Agent, call: ToolCall) -> Called:
    """What was interrupted in the middle is called again: its operation is the same, and is answered with what came of it."""
    began = agent.clock()
    interrupted = agent.interrupted if agent.toolbox.bench.step == agent.interrupted.step else InterruptedStep()
    if call.id in interrupted.results:
        result, is_fault = interrupted.results[call.id]
        return Called(result=result, is_fault=is_fault)
    if call.id not in interrupted.started:
        agent.log.tell(ToolStarted(call_id=call.id, name=call.name, arguments=call.arguments))
    if not agent.toolbox.only_reads(call.name):
        await agent.log.flush()  # on record before it can have an effect
    # What a model makes up as a name is its own words, and goes nowhere.
    known = call.name if call.name in agent.toolbox.names else "unknown"
    with agent.log.tracer.span(Traced.TOOL_CALL, known) as span:
        called = await agent.toolbox.call(call)
        if called.result.is_error:
            span.fail("fault" if called.is_fault else "error")
    took_ms = (agent.clock() - began + interrupted.spent_s.get(call.id, 0.0)) * 1000
    agent.log.tell(ToolFinished(result=called.result, took_ms=took_ms, is_fault=called.is_fault))
    return called


async def _end_commands(agent: Agent) -> None:
    """Everything that the run started, all at once."""
    bench = agent.toolbox.bench

    async def end(command_id: str) -> None:
        with suppress(ShadowError):
            await bench.executor.kill(CommandId(command_id))

    ending = [asyncio.create_task(end(command_id)) for command_id in bench.commands]
    if ending:
        _, late = await asyncio.wait(ending, timeout=STOP_LIMIT_S)
        for task in late:
            task.cancel()
