"""The state of a task's conversation from its log: the same fold as when it happened. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from shadow.agent.compaction import compact
from shadow.agent.loop import (
    Answered,
    Compacted,
    ModelFailed,
    RunState,
    ToolsAnswered,
    apply,
    with_open_calls_settled,
)
from shadow.core.conversation import AssistantMessage, Message, ToolMessage, ToolResult, Usage
from shadow.core.events import (
    CheckpointFailed,
    CheckpointTaken,
    CommandOutput,
    CommandStarted,
    ConversationCompacted,
    ModelAnswered,
    ModelRequestFailed,
    RunStarted,
    TaskEvent,
    TodoChanged,
    TodoItem,
    ToolFinished,
    ToolStarted,
)
from shadow.core.models import ContextTooLong


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedStep:
    """What is on record of a step of tool calls that was begun and not finished, and of its run so far."""

    step: int = -1
    results: Mapping[str, tuple[ToolResult, bool]] = field(default_factory=dict[str, tuple[ToolResult, bool]])
    """By call: what it answered, and whether the call itself was wrong."""
    started: frozenset[str] = frozenset()
    told_to: Mapping[str, int] = field(default_factory=dict[str, int])
    """By call: the end of the output that was told."""
    commands: tuple[str, ...] = ()
    """That the run has started."""
    waited_for: Mapping[str, str] = field(default_factory=dict[str, str])
    """By call without an answer: the command whose end it waits for."""
    spent_s: Mapping[str, float] = field(default_factory=dict[str, float])
    """By call: what it had taken of the run's time when it was taken up again."""
    todo: tuple[TodoItem, ...] = ()
    unsaved: frozenset[str] = frozenset()
    """The tools whose calls have ended since the last checkpoint: its worker may have died before it took the next one."""


def interrupted_step(events: Iterable[TaskEvent], *, step: int) -> InterruptedStep:
    """``step``: how many answers the model has given in the run that the log ends in."""
    results: dict[str, tuple[ToolResult, bool]] = {}
    started: set[str] = set()
    told_to: dict[str, int] = {}
    commands: list[str] = []
    waited_for: dict[str, str] = {}
    todo: tuple[TodoItem, ...] = ()
    unsaved: set[str] = set()
    for event in events:
        match event:
            case RunStarted():
                commands.clear()
                unsaved.clear()
                todo = ()
            case ModelAnswered():
                results, started, told_to, waited_for = {}, set(), {}, {}
            case ToolStarted():
                started.add(event.call_id)
            case CheckpointTaken() | CheckpointFailed():
                unsaved.clear()
            case ToolFinished():
                results[event.result.call_id] = (event.result, event.is_fault)
                unsaved.add(event.result.name)
                waited_for.pop(event.result.call_id, None)
            case CommandStarted():
                commands.append(event.command_id)
                if not event.background:
                    waited_for[event.call_id] = event.command_id
            case CommandOutput():
                told_to[event.call_id] = event.end
            case TodoChanged():
                todo = event.items
            case _:
                pass
    return InterruptedStep(
        step=step,
        results=results,
        started=frozenset(started),
        told_to=told_to,
        commands=tuple(commands),
        waited_for=waited_for,
        todo=todo,
        unsaved=frozenset(unsaved),
    )


def fold(fresh: RunState, events: Iterable[TaskEvent]) -> RunState:
    """``fresh``: a state without messages, with the limits and the model of the run to come.

    The result stands where the last run of ``events`` stands: finished, or in the middle of a step.
    """
    state = fresh
    results: dict[str, tuple[ToolResult, bool]] = {}
    clock = _ToolClock()
    for event in events:
        match event:
            case RunStarted():
                messages = settled(state.messages, results)
                state = replace(fresh, messages=(*messages, event.message))
                results, clock = {}, _ToolClock()
            case ModelAnswered():
                state = apply(state, Answered(message=event.message, elapsed_s=event.took_ms / 1000))
                results = {}
            case ToolStarted():
                clock.start(event.call_id)
            case ModelRequestFailed():
                failed = ModelFailed(
                    code=event.code,
                    message=event.message,
                    repeat_is_safe=event.repeat_is_safe,
                    retry_after_s=event.retry_after_s,
                    context_too_long=event.code == ContextTooLong.code,
                    elapsed_s=event.took_ms / 1000,
                )
                state = apply(state, failed)
            case ToolFinished():
                results[event.result.call_id] = (event.result, event.is_fault)
                clock.finish(event.result.call_id, event.took_ms / 1000)
                state = _with_results(state, results)
            case ConversationCompacted():
                state = apply(state, Compacted(messages=compact(state.messages, target_chars=event.target_chars)))
            case _:
                pass  # tells readers, decides nothing
    return replace(state, elapsed_s=state.elapsed_s + clock.taken_s)


class _ToolClock:
    """How long the tool calls of a run took. Those that went together count as long as the longest of them."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._before_s = self._together_s = 0.0

    @property
    def taken_s(self) -> float:
        return self._before_s + self._together_s

    def start(self, call_id: str) -> None:
        self._open.add(call_id)

    def finish(self, call_id: str, took_s: float) -> None:
        self._open.discard(call_id)
        self._together_s = max(self._together_s, took_s)
        if not self._open:
            self._before_s, self._together_s = self.taken_s, 0.0


def _with_results(state: RunState, results: dict[str, tuple[ToolResult, bool]]) -> RunState:
    """The step ends with the last of its results."""
    last = state.messages[-1] if state.messages else None
    if not isinstance(last, AssistantMessage) or any(call.id not in results for call in last.calls):
        return state
    done = [results[call.id] for call in last.calls]
    return apply(
        state, ToolsAnswered(results=tuple(result for result, _ in done), faults=sum(fault for _, fault in done))
    )


def settled(messages: tuple[Message, ...], results: dict[str, tuple[ToolResult, bool]]) -> tuple[Message, ...]:
    """Providers refuse a conversation with calls that nobody answered: what is known of them is kept, the rest is named."""
    last = messages[-1] if messages else None
    if not isinstance(last, AssistantMessage) or not last.calls:
        return messages
    *before, answers = with_open_calls_settled(messages)
    assert isinstance(answers, ToolMessage)
    known = tuple(results.get(result.call_id, (result, False))[0] for result in answers.results)
    return (*before, ToolMessage(results=known))


def total_usage(events: Iterable[TaskEvent]) -> tuple[Usage, Decimal | None]:
    """Tokens of all runs, and what they cost; ``None`` where the price of any was unknown."""
    usage, cost = Usage(), Decimal(0)
    known = True
    for event in events:
        if isinstance(event, ModelAnswered):
            usage += event.message.usage
            known = known and event.cost_usd is not None
            cost += Decimal(event.cost_usd or 0)
    return usage, cost if known else None
