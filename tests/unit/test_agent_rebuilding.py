"""The conversation that a log gives back is the one that was led."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.loop import ModelFacts, RunLimits, RunState
from shadow.agent.rebuilding import fold, interrupted_step, total_usage
from shadow.agent.task_log import TaskLog, open_log
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
from shadow.core.errors import Unavailable
from shadow.core.events import (
    CheckpointFailed,
    CheckpointTaken,
    CommandOutput,
    CommandStarted,
    ConversationCompacted,
    ModelAnswered,
    ModelRequestFailed,
    Recorded,
    RolledBack,
    RunFinished,
    RunStarted,
    TaskEvent,
    TextAdded,
    ToolFinished,
    ToolStarted,
    active,
)

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


def finished(id_: str, took_ms: float = 1) -> ToolFinished:
    return ToolFinished(result=ToolResult(call_id=id_, name="read", content=f"of {id_}"), took_ms=took_ms)


def begun(id_: str) -> ToolStarted:
    return ToolStarted(call_id=id_, name="read", arguments="{}")


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


def test_what_is_on_record_of_an_interrupted_step() -> None:
    cut: list[TaskEvent] = [
        started(1),
        answered("a", "b", "c"),
        ToolStarted(call_id="a", name="read", arguments="{}"),
        finished("a"),
        ToolStarted(call_id="b", name="read", arguments="{}"),
        CommandStarted(call_id="b", command_id="cmd_b"),
        CommandOutput(call_id="b", command_id="cmd_b", start=0, end=7, text="output"),
    ]
    step = interrupted_step(cut, step=1)
    assert (set(step.results), step.started, step.told_to, step.commands) == ({"a"}, {"a", "b"}, {"b": 7}, ("cmd_b",))
    assert step.waited_for == {"b": "cmd_b"}
    assert interrupted_step([*cut, finished("b")], step=1).waited_for == {}
    beside = CommandStarted(call_id="c", command_id="cmd_c", background=True)
    assert interrupted_step([*cut, beside], step=1).waited_for == {"b": "cmd_b"}
    later = interrupted_step([*cut, finished("b"), finished("c"), answered("a")], step=2)
    assert (later.results, later.started, later.commands) == ({}, frozenset(), ("cmd_b",))


def test_what_was_done_since_the_last_checkpoint_is_known() -> None:
    told: list[TaskEvent] = [started(1), answered("a"), begun("a"), finished("a")]
    assert interrupted_step(told, step=1).unsaved == {"read"}
    taken = CheckpointTaken(checkpoint_id="cp_1", run=1, branch="b", head=None, changes=())
    failed = CheckpointFailed(code="conflict", message="x")
    for settled in (taken, failed, started(2)):
        assert interrupted_step([*told, settled], step=1).unsaved == frozenset()
        assert interrupted_step([*told, settled, answered("b"), finished("b")], step=2).unsaved == {"read"}


def test_the_time_of_tools_comes_back_with_the_run() -> None:
    earlier = [started(1), answered("z"), begun("z"), finished("z", 1e6)]
    one_by_one = [answered("a", "b"), begun("a"), finished("a", 3000), begun("b"), finished("b", 4000)]
    together = [answered("c", "d"), begun("c"), begun("d"), finished("d", 500), finished("c", 2000)]
    cut = [answered("e", "f"), begun("e"), finished("e", 6000), begun("f")]
    events = [*earlier, started(2), *one_by_one, *together, *cut]
    assert fold(FRESH, events).elapsed_s == pytest.approx(7 + 2 + 6 + 0.003)
    assert fold(FRESH, [*events, finished("f", 1000)]).elapsed_s == pytest.approx(7 + 2 + 6 + 1 + 0.003)


@given(st.lists(st.lists(st.integers(0, 10_000), min_size=1, max_size=4), max_size=6), st.data())
def test_tools_take_no_less_than_the_longest_call_and_no_more_than_all(
    steps: list[list[int]], data: st.DataObject
) -> None:
    events: list[TaskEvent] = [started(1)]
    least = most = 0
    for number, took_ms in enumerate(steps):
        ids = [f"{number}-{position}" for position in range(len(took_ms))]
        events.append(answered(*ids))
        running: list[str] = []
        for id_ in ids:
            events.append(begun(id_))
            running.append(id_)
            while running and (id_ == ids[-1] or data.draw(st.booleans())):
                done = running.pop(data.draw(st.integers(0, len(running) - 1)))
                events.append(finished(done, took_ms[ids.index(done)]))
        least, most = least + max(took_ms), most + sum(took_ms)
    tools_s = fold(FRESH, events).elapsed_s - 0.001 * len(steps)
    assert least / 1000 - 1e-6 <= tools_s <= most / 1000 + 1e-6


@given(st.lists(st.integers(0, 30), max_size=30))
def test_what_was_rolled_back_does_not_count_and_can_be_returned_to(targets: Sequence[int]) -> None:
    """Against a model that keeps each branch whole."""
    log: list[Recorded] = []
    branches: list[list[int]] = [[]]  # after each event, which count
    for target in targets:
        seq = len(log) + 1
        if target < seq and target % 3 == 0:
            event: TaskEvent = RolledBack(to_seq=target, checkpoint_id="cp")
            branches.append([*branches[target], seq])
        else:
            event = TextAdded(text=str(seq))
            branches.append([*branches[-1], seq])
        log.append(Recorded(seq=seq, at=0.0, event=event))
    assert [one.seq for one in active(log)] == branches[-1]


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
async def test_telling_never_waits_for_the_store() -> None:
    may_store = asyncio.Event()
    stored: list[TaskEvent] = []

    async def store(events: Sequence[TaskEvent]) -> None:
        await may_store.wait()
        stored.extend(events)

    log = TaskLog(store)
    storing = asyncio.create_task(log.flush())
    for _ in range(10_000):
        log.tell(TextAdded(text="x"))
    may_store.set()
    await storing
    await log.flush()
    assert "".join(event.text for event in stored if isinstance(event, TextAdded)) == "x" * 10_000
    assert len(stored) <= 10  # pieces are put together


@pytest.mark.anyio
async def test_what_may_have_been_stored_is_never_stored_again() -> None:
    asked: list[Sequence[TaskEvent]] = []

    async def store(events: Sequence[TaskEvent]) -> None:
        asked.append(events)
        raise Unavailable("the answer was lost")

    log = TaskLog(store)
    log.tell(TextAdded(text="x"))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await log.flush()
        log.tell(TextAdded(text="y"))
    assert asked == [[TextAdded(text="x")]]


@pytest.mark.anyio
async def test_who_is_cancelled_while_events_are_stored_waits_for_it() -> None:
    may_store = asyncio.Event()
    stored: list[TaskEvent] = []

    async def store(events: Sequence[TaskEvent]) -> None:
        await may_store.wait()
        stored.extend(events)

    async with open_log(store) as log:
        log.tell(TextAdded(text="x"))
        flushing = asyncio.create_task(log.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.sleep(0)
        assert not flushing.done()
        may_store.set()
        with pytest.raises(asyncio.CancelledError):
            await flushing
    assert stored == [TextAdded(text="x")]
