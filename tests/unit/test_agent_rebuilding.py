"""The conversation that a log gives back is the one that was led."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.loop import ModelFacts, RunLimits, RunState
from shadow.agent.rebuilding import fold, total_usage
from shadow.agent.task_log import TaskLog
from shadow.core.conversation import (
    AssistantMessage,
    Message,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)
from shadow.core.events import (
    ConversationCompacted,
    ModelAnswered,
    ModelRequestFailed,
    RunFinished,
    RunStarted,
    TaskEvent,
    TextAdded,
    ToolFinished,
    ToolStarted,
)
from shadow.core.tasks import TaskId

FRESH = RunState(
    messages=(),
    tools=frozenset({"read"}),
    limits=RunLimits(),
    model=ModelFacts(context_tokens=100_000, max_output_tokens=1000, price=None),
)


def started(run: int, text: str = "go") -> RunStarted:
    return RunStarted(run=run, message=UserMessage(text=text))


def answered(*ids: str, text: str = "x") -> ModelAnswered:
    calls = tuple(ToolCall(id=id_, name="read", arguments="{}") for id_ in ids)
    message = AssistantMessage(parts=(Text(text=text), *calls), model="m", usage=Usage(input_tokens=3, output_tokens=2))
    return ModelAnswered(message=message, took_ms=1)


def finished(id_: str) -> ToolFinished:
    return ToolFinished(result=ToolResult(call_id=id_, name="read", content=f"of {id_}"), took_ms=1)


def test_a_run_comes_back_as_it_was() -> None:
    state = fold(FRESH, [started(1), answered("a", "b"), finished("b"), finished("a"), answered()])
    assert [message.kind for message in state.messages] == ["user", "assistant", "tool", "assistant"]
    tools = state.messages[2]
    assert isinstance(tools, ToolMessage)
    assert [result.call_id for result in tools.results] == ["a", "b"]  # in the order of the calls
    assert state.steps == 2
    assert state.outcome is not None


def test_a_step_that_was_cut_off_is_open_until_the_next_run_settles_it() -> None:
    cut = [started(1), answered("a", "b"), ToolStarted(call_id="a", name="read", arguments="{}"), finished("a")]
    assert isinstance(fold(FRESH, cut).messages[-1], AssistantMessage)
    state = fold(FRESH, [*cut, started(2, "go on")])
    tools = state.messages[-2]
    assert isinstance(tools, ToolMessage)
    assert [(r.call_id, r.is_error) for r in tools.results] == [("a", False), ("b", True)]
    assert state.messages[-1] == UserMessage(text="go on")
    assert state.steps == 0


def test_pieces_and_failures_decide_nothing_twice() -> None:
    noise: list[TaskEvent] = [
        TextAdded(text="half an ans"),
        ModelRequestFailed(code="model_unreachable", message="cut", repeat_is_safe=True),
    ]
    state = fold(FRESH, [started(1), *noise, answered()])
    assert len(state.messages) == 2
    assert state.retries == 0


def test_a_compaction_is_done_again() -> None:
    long = "y" * 5000
    events: list[TaskEvent] = [started(1)]
    for number in range(12):
        result = ToolResult(call_id=f"c{number}", name="read", content=long)
        events += [answered(f"c{number}"), ToolFinished(result=result, took_ms=1)]
    whole = fold(FRESH, events)
    events.append(ConversationCompacted(target_chars=20_000, before_chars=0, after_chars=0))
    compacted = fold(FRESH, events)
    assert len(str(compacted.messages)) < len(str(whole.messages))
    assert compacted.compactions == 1


def test_usage_of_all_runs_together() -> None:
    usage, cost = total_usage([started(1), answered(), started(2), answered()])
    assert (usage.input_tokens, usage.output_tokens, cost) == (6, 4, None)


@given(st.lists(st.sampled_from(["run", "answer", "tool", "fail", "end", "text"]), max_size=40))
def test_any_prefix_of_a_log_gives_a_conversation_that_providers_take(kinds: Sequence[str]) -> None:
    events: list[TaskEvent] = [started(1)]
    for number, kind in enumerate(kinds, start=1):
        state = fold(FRESH, events)
        last = state.messages[-1]
        open_calls = last.calls if isinstance(last, AssistantMessage) else ()
        match kind:
            case "run":
                events.append(started(number))
            case "answer" if not open_calls and state.outcome is None:
                events.append(answered(f"call{number}"))
            case "tool" if open_calls:
                events.append(finished(open_calls[0].id))
            case "fail" if not open_calls and state.outcome is None:
                events.append(ModelRequestFailed(code="x", message="x", repeat_is_safe=True))
            case "text":
                events.append(TextAdded(text="x"))
            case "end":
                events.append(RunFinished(run=1, status="failed", summary="", usage=Usage(), cost_usd=None, took_ms=1))
            case _:
                pass
    state = fold(FRESH, [*events, started(999)])
    check_valid(state.messages)


def check_valid(messages: Sequence[Message]) -> None:
    assert isinstance(messages[0], UserMessage)
    for before, after in pairwise(messages):
        if isinstance(before, AssistantMessage) and before.calls:
            assert isinstance(after, ToolMessage)
            assert [r.call_id for r in after.results] == [c.id for c in before.calls]
        else:
            assert not isinstance(after, ToolMessage)


@pytest.mark.anyio
async def test_a_watcher_never_waits_for_the_store() -> None:
    may_store = asyncio.Event()
    stored: list[TaskEvent] = []

    class Slow:
        async def append(self, _: str, events: Sequence[TaskEvent]) -> None:
            await may_store.wait()
            stored.extend(events)

    seen: list[TaskEvent] = []
    log = TaskLog(Slow(), TaskId("task_x"), [seen.append])  # type: ignore[arg-type]
    storing = asyncio.create_task(log.flush())
    for _ in range(10_000):
        log.tell(TextAdded(text="x"))
    assert len(seen) == 10_000
    may_store.set()
    await storing
    await log.flush()
    assert "".join(event.text for event in stored if isinstance(event, TextAdded)) == "x" * 10_000
    assert len(stored) <= 10  # pieces are put together
