"""The decisions of a run: it ends within its limits, whatever model and tools do."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.compaction import compact
from shadow.agent.loop import (
    LONGEST_ASKED_WAIT_S,
    MAX_COMPACTIONS_IN_A_ROW,
    MAX_MODEL_RETRIES,
    Answered,
    AskModel,
    CallTools,
    Compact,
    Compacted,
    End,
    Event,
    Interrupted,
    ModelFacts,
    ModelFailed,
    RunLimits,
    RunState,
    RunStatus,
    ToolsAnswered,
    apply,
    decide,
    estimated_tokens,
)
from shadow.core.conversation import (
    AssistantMessage,
    FinishReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
)
from shadow.core.errors import Broken
from shadow.core.models import Price
from tests.support.conversations import answers, assert_providers_take, assistant_messages

PRICE = Price(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"), cache_write=Decimal("3.75"))


def run_of(*, limits: RunLimits | None = None, context_tokens: int = 100_000, price: Price | None = PRICE) -> RunState:
    return RunState(
        messages=(UserMessage(text="Mend it."),),
        tools=frozenset({"read_file", "run_terminal_cmd", "finish"}),
        limits=limits or RunLimits(),
        model=ModelFacts(context_tokens=context_tokens, max_output_tokens=1000, price=price),
    )


def said(*calls: ToolCall, text: str = "", finish: FinishReason = FinishReason.STOP) -> Answered:
    parts = (*((Text(text=text),) if text else ()), *calls)
    return Answered(message=AssistantMessage(parts=parts, model="m", finish=finish))


def finish(arguments: str) -> ToolCall:
    return ToolCall(id="f", name="finish", arguments=arguments)


def answered(state: RunState, *, is_error: bool = False, faults: int = 0) -> RunState:
    action = decide(state)
    assert isinstance(action, CallTools)
    results = tuple(ToolResult(call_id=c.id, name=c.name, content="ok", is_error=is_error) for c in action.calls)
    return apply(state, ToolsAnswered(results=results, faults=faults))


def overloaded(**details: float) -> ModelFailed:
    return ModelFailed(code="model_overloaded", message="busy", repeat_is_safe=True, **details)


# Any sequence of events

limits = st.builds(
    RunLimits,
    steps=st.integers(0, 6),
    tokens=st.none() | st.integers(0, 20_000),
    output_tokens=st.none() | st.integers(0, 5_000),
    cost_usd=st.none() | st.decimals(0, "0.2", places=4),
    time_s=st.floats(0, 600),
)
elapsed = st.floats(0, 30)


@st.composite
def events_for(draw: st.DrawFn, state: RunState) -> Event:
    """What can come back for the action that ``state`` decides on, from a model that keeps to the bounds of a request."""
    action = decide(state)
    if draw(st.integers(0, 30)) == 0:
        return Interrupted()
    if isinstance(action, CallTools):
        message = draw(answers(action.calls))
        return ToolsAnswered(
            results=message.results, faults=draw(st.integers(0, len(action.calls))), elapsed_s=draw(elapsed)
        )
    if isinstance(action, Compact):
        enough = draw(st.booleans())
        return Compacted(messages=compact(state.messages, target_chars=action.target_chars if enough else 10**9))
    assert isinstance(action, AskModel)
    if draw(st.booleans()):
        return ModelFailed(
            code="c",
            message="m",
            repeat_is_safe=draw(st.integers(0, 4)) > 0,
            retry_after_s=draw(st.none() | st.floats(0, 400)),
            context_too_long=draw(st.booleans()),
            elapsed_s=draw(elapsed),
        )
    cached = draw(st.integers(0, estimated_tokens(state)))
    usage = st.builds(
        Usage,
        input_tokens=st.integers(cached, estimated_tokens(state)),
        output_tokens=st.integers(0, state.model.max_output_tokens),
        cache_read_tokens=st.integers(0, cached // 2),
        cache_write_tokens=st.integers(0, cached // 2),
    )
    return Answered(message=draw(assistant_messages(usage=usage)), elapsed_s=draw(elapsed))


@given(st.data(), limits, st.sampled_from([2_000, 5_000, 100_000]), st.sampled_from([PRICE, None]))
def test_every_run_ends_within_its_limits(
    data: st.DataObject, given_limits: RunLimits, context_tokens: int, price: Price | None
) -> None:
    state = run_of(limits=given_limits, context_tokens=context_tokens, price=price)
    per_step = 2 + MAX_MODEL_RETRIES + 2 * MAX_COMPACTIONS_IN_A_ROW + 2
    requests = failures_in_a_row = compactions_in_a_row = 0
    for _ in range(per_step * (given_limits.steps + 1)):
        action = decide(state)
        if isinstance(action, End):
            break
        if isinstance(action, AskModel):
            assert_providers_take(state.messages)
            assert state.steps < given_limits.steps
            assert state.elapsed_s + action.after_s < given_limits.time_s
            assert action.after_s <= LONGEST_ASKED_WAIT_S
            requests += 1
        event = data.draw(events_for(state))
        failures_in_a_row = failures_in_a_row + 1 if isinstance(event, ModelFailed) else 0
        compactions_in_a_row = 0 if isinstance(event, Answered) else compactions_in_a_row + isinstance(event, Compacted)
        assert failures_in_a_row <= MAX_MODEL_RETRIES + 1
        assert compactions_in_a_row <= MAX_COMPACTIONS_IN_A_ROW
        state = apply(state, event)
        if given_limits.tokens is not None:
            assert state.usage.input_tokens + state.usage.output_tokens <= given_limits.tokens
        if given_limits.output_tokens is not None:
            assert state.usage.output_tokens <= given_limits.output_tokens
        if given_limits.cost_usd is not None:
            assert state.cost_usd is None or state.cost_usd <= given_limits.cost_usd
    action = decide(state)
    assert isinstance(action, End)
    assert_providers_take(state.messages)
    assert requests >= state.steps


@given(st.data())
def test_nothing_changes_a_run_that_has_its_outcome(data: st.DataObject) -> None:
    state = run_of()
    while state.outcome is None:
        state = apply(state, data.draw(events_for(state)) if state.steps < 4 else Interrupted())
    for event in (Interrupted(), said(text="more"), overloaded(), Compacted(messages=()), ToolsAnswered(results=())):
        assert apply(state, event) == state


# What was asked and answered belongs together


def test_the_model_is_not_asked_before_its_calls_are_answered() -> None:
    state = apply(run_of(), said(ToolCall(id="1", name="read_file", arguments="{}")))
    assert isinstance(decide(state), CallTools)
    with pytest.raises(Broken):
        apply(state, said(text="done"))


@pytest.mark.parametrize("ids", [(), ("1",), ("2", "1"), ("1", "2", "3"), ("1", "1")])
def test_answers_that_are_not_those_to_the_calls_are_a_fault_of_ours(ids: tuple[str, ...]) -> None:
    calls = (ToolCall(id="1", name="a", arguments=""), ToolCall(id="2", name="a", arguments=""))
    state = apply(run_of(), said(*calls))
    with pytest.raises(Broken):
        apply(state, ToolsAnswered(results=tuple(ToolResult(call_id=i, name="a", content="") for i in ids)))


def test_answers_nobody_asked_for_are_a_fault_of_ours() -> None:
    with pytest.raises(Broken):
        apply(run_of(), ToolsAnswered(results=()))


def test_an_interrupted_step_leaves_no_call_unanswered() -> None:
    state = apply(run_of(), said(ToolCall(id="1", name="read_file", arguments="{}")))
    state = apply(state, Interrupted())
    assert_providers_take(state.messages)
    assert state.outcome is not None
    assert state.outcome.status is RunStatus.INTERRUPTED


# How a run ends


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ('{"summary": "s"}', RunStatus.DONE),
        ('{"summary": "s", "success": true}', RunStatus.DONE),
        ('{"summary": "s", "success": "true"}', RunStatus.DONE),
        ("", RunStatus.DONE),
        ('{"summary": "s", "success": false}', RunStatus.GAVE_UP),
        ('{"summary": "s", "success": "false"}', RunStatus.GAVE_UP),
        ('{"summary": "s", "success": "no"}', RunStatus.GAVE_UP),
        ('{"summary": "s", "success": 0}', RunStatus.GAVE_UP),
    ],
)
def test_finish_says_how_it_ended_as_its_tool_reads_it(arguments: str, status: RunStatus) -> None:
    outcome = answered(apply(run_of(), said(finish(arguments)))).outcome
    assert outcome is not None
    assert outcome.status is status


def test_a_refused_finish_ends_nothing() -> None:
    assert answered(apply(run_of(), said(finish("{}"))), is_error=True).outcome is None


def test_of_two_calls_of_finish_the_refused_one_does_not_count() -> None:
    first, second = finish('{"summary": "refused"}'), finish('{"summary": "taken"}')
    state = apply(run_of(), said(first, second))
    results = (
        ToolResult(call_id="f", name="finish", content="", is_error=True),
        ToolResult(call_id="f", name="finish", content=""),
    )
    outcome = apply(state, ToolsAnswered(results=results)).outcome
    assert outcome is not None
    assert outcome.summary == "taken"


def test_a_text_without_a_call_is_the_last_word() -> None:
    outcome = apply(run_of(), said(text="It was right already.")).outcome
    assert outcome is not None
    assert (outcome.status, outcome.summary) == (RunStatus.DONE, "It was right already.")


@pytest.mark.parametrize(
    "event", [said(), said(text="half", finish=FinishReason.LENGTH), said(text="  \n")], ids=["empty", "cut", "blank"]
)
def test_an_answer_that_leads_nowhere_may_be_mended_once(event: Answered) -> None:
    once = apply(run_of(), event)
    assert isinstance(decide(once), AskModel)
    assert isinstance(once.messages[-1], UserMessage)
    twice = apply(once, event)
    assert twice.outcome is not None
    assert twice.outcome.status is RunStatus.FAILED


def test_a_wrong_call_may_be_mended_once_and_a_right_one_in_between_counts() -> None:
    call = said(ToolCall(id="1", name="no_such_tool", arguments="{}"))
    once = answered(apply(run_of(), call), is_error=True, faults=1)
    assert isinstance(decide(once), AskModel)
    mended = answered(apply(once, call), is_error=False)
    assert isinstance(decide(answered(apply(mended, call), is_error=True, faults=1)), AskModel)
    outcome = answered(apply(once, call), is_error=True, faults=1).outcome
    assert outcome is not None
    assert outcome.code == "bad_tool_call"


def test_a_refusal_of_the_model_is_a_failure() -> None:
    outcome = apply(run_of(), said(text="I will not.", finish=FinishReason.REFUSED)).outcome
    assert outcome is not None
    assert (outcome.status, outcome.code) == (RunStatus.FAILED, "content_refused")


# Repeats


def test_waits_grow_and_a_provider_that_asks_for_longer_is_heard() -> None:
    state, waits = run_of(), []
    for retry_after_s in (None, None, 20.0, None):
        state = apply(state, overloaded() if retry_after_s is None else overloaded(retry_after_s=retry_after_s))
        action = decide(state)
        assert isinstance(action, AskModel)
        waits.append(action.after_s)
    assert waits == [1.0, 2.0, 20.0, 8.0]
    outcome = apply(state, overloaded()).outcome
    assert outcome is not None
    assert outcome.code == "model_overloaded"


def test_an_answer_gives_new_repeats() -> None:
    state = run_of()
    for _ in range(3):
        for _ in range(MAX_MODEL_RETRIES):
            state = apply(state, overloaded())
        state = answered(apply(state, said(ToolCall(id="1", name="read_file", arguments="{}"))))
    assert isinstance(decide(state), AskModel)


def test_what_may_have_been_done_is_not_repeated() -> None:
    event = replace(overloaded(), repeat_is_safe=False)
    assert isinstance(decide(apply(run_of(), event)), End)


def test_a_wait_that_would_pass_the_time_limit_ends_the_run_at_once() -> None:
    state = apply(run_of(limits=RunLimits(time_s=60)), overloaded(elapsed_s=10, retry_after_s=55))
    action = decide(state)
    assert isinstance(action, End)
    assert (action.outcome.status, action.outcome.code) == (RunStatus.LIMIT_REACHED, "time")


def test_waits_count_as_time_of_the_run() -> None:
    state = apply(run_of(limits=RunLimits(time_s=100)), overloaded(elapsed_s=1, retry_after_s=40))
    state = apply(state, overloaded(elapsed_s=1, retry_after_s=40))
    assert (state.elapsed_s, state.wait_s) == (42, 40)
    assert apply(state, said(ToolCall(id="1", name="read_file", arguments="{}"))).elapsed_s == 82


# Limits


def test_a_limit_of_cost_needs_a_price() -> None:
    action = decide(run_of(limits=RunLimits(cost_usd=Decimal(1)), price=None))
    assert isinstance(action, End)
    assert (action.outcome.status, action.outcome.code) == (RunStatus.LIMIT_REACHED, "cost")


@pytest.mark.parametrize("tokens", [0, 1000, 1001])
def test_a_limit_of_tokens_counts_the_answer_too(tokens: int) -> None:
    assert isinstance(decide(run_of(limits=RunLimits(tokens=tokens))), End)
    assert isinstance(decide(run_of(limits=RunLimits(tokens=2000))), AskModel)


# Room


def test_what_cannot_be_made_smaller_is_for_the_provider_to_judge() -> None:
    state = replace(run_of(context_tokens=2000), messages=(UserMessage(text="x" * 100_000),))
    for _ in range(MAX_COMPACTIONS_IN_A_ROW):
        action = decide(state)
        assert isinstance(action, Compact)
        state = apply(state, Compacted(messages=compact(state.messages, target_chars=action.target_chars)))
    assert isinstance(decide(state), AskModel)
    too_long = ModelFailed(code="context_too_long", message="no", repeat_is_safe=False, context_too_long=True)
    outcome = apply(state, too_long).outcome
    assert outcome is not None
    assert outcome.code == "context_too_long"


def test_each_compaction_asks_for_less() -> None:
    state, targets = run_of(), []
    too_long = ModelFailed(code="context_too_long", message="no", repeat_is_safe=False, context_too_long=True)
    for _ in range(MAX_COMPACTIONS_IN_A_ROW):
        state = apply(state, too_long)
        action = decide(state)
        assert isinstance(action, Compact)
        targets.append(action.target_chars)
        state = apply(state, Compacted(messages=state.messages))
    assert targets == sorted(set(targets), reverse=True)
    assert isinstance(decide(apply(state, too_long)), End)


def test_scripts_with_a_token_for_each_character_are_not_underestimated() -> None:
    state = replace(run_of(), messages=(UserMessage(text="語" * 3000),))
    assert estimated_tokens(state) >= 3000
