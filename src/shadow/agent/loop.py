"""What an agent does next: pure decisions over the state of one run. No I/O, no clock, no randomness.

``RunState`` is a fold: ``apply(state, event)`` for each thing that happened, in order, so that a run can be taken up again from
its record. ``decide(state)`` says what to do now; whoever acts brings back the event. Time comes in with events.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, assert_never, cast

from shadow.core.conversation import (
    AssistantMessage,
    FinishReason,
    Message,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)
from shadow.core.errors import Broken
from shadow.core.models import Price

MAX_MODEL_RETRIES = 4
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
LONGEST_ASKED_WAIT_S = 300.0
"""A provider that asks for a longer wait than this has refused."""
MAX_COMPACTIONS_IN_A_ROW = 3
"""Before one request: what still does not fit then is for the provider to judge, whose count is the exact one."""
MAX_FAULTS_IN_A_ROW = 2
"""Answers in a row that lead nowhere (empty, cut, a tool that is not there, arguments that are none): one may be mended."""
CONTEXT_SHARE = 0.85
"""Of the context window that a conversation may fill before it is compacted."""
CHARS_PER_TOKEN = 3.0
"""Low on purpose: texts have more characters to a token, and a bound must hold."""
FINISH_TOOL = "finish"


class RunStatus(StrEnum):
    DONE = "done"
    GAVE_UP = "gave_up"
    """The agent said that it could not do it."""
    FAILED = "failed"
    LIMIT_REACHED = "limit_reached"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    status: RunStatus
    summary: str
    code: str | None = None
    """The error's code where it failed; the limit's name where one was reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    steps: int = 100
    """Requests to the model."""
    tokens: int | None = None
    """Input and output of all requests together."""
    output_tokens: int | None = None
    """Of all answers together."""
    cost_usd: Decimal | None = None
    time_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    context_tokens: int
    max_output_tokens: int
    price: Price | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """``messages`` is the whole conversation of the task, earlier runs included; the last one is the user's at the start."""

    messages: tuple[Message, ...]
    tools: frozenset[str]
    limits: RunLimits
    model: ModelFacts
    overhead_chars: int = 0
    """Of the instructions and the descriptions of tools, which go with each request."""
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal | None = Decimal(0)
    """``None``: the price is unknown."""
    elapsed_s: float = 0.0
    """Of model, tools and waits; what nobody was at between two workers does not count."""
    retries: int = 0
    wait_s: float = 0.0
    """Before the next request."""
    faults: int = 0
    compactions: int = 0
    """Since the model answered last."""
    compact_next: bool = False
    outcome: Outcome | None = None


# What happened


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    message: AssistantMessage
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFailed:
    code: str
    message: str
    repeat_is_safe: bool
    retry_after_s: float | None = None
    context_too_long: bool = False
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsAnswered:
    """``faults``: how many of the calls named no tool or carried arguments that are none."""

    results: tuple[ToolResult, ...]
    faults: int = 0
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    reason: str = "interrupted by the user"


Event = Answered | ModelFailed | ToolsAnswered | Compacted | Interrupted


# What to do


@dataclass(frozen=True, slots=True, kw_only=True)
class AskModel:
    after_s: float = 0.0
    """Wait so long first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTools:
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compact:
    target_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    outcome: Outcome


Action = AskModel | CallTools | Compact | End


def decide(state: RunState) -> Action:
    if state.outcome is not None:
        return End(outcome=state.outcome)
    if calls := _open_calls(state):
        return CallTools(calls=calls)
    reached = _limit_reached(state)
    if reached is not None:
        return End(outcome=reached)
    does_not_fit = estimated_tokens(state) > _room(state) and state.compactions < MAX_COMPACTIONS_IN_A_ROW
    if state.compact_next or does_not_fit:
        return Compact(target_chars=_target_chars(state))
    return AskModel(after_s=state.wait_s)


def apply(state: RunState, event: Event) -> RunState:
    """Nothing changes a run that has its outcome. Raises: Broken: for what cannot have happened in this state."""
    if state.outcome is not None:
        return state
    match event:
        case Answered():
            return _answered(state, event)
        case ModelFailed():
            return _model_failed(state, event)
        case ToolsAnswered():
            return _tools_answered(state, event)
        case Compacted():
            return replace(state, messages=event.messages, compactions=state.compactions + 1, compact_next=False)
        case Interrupted():
            return _ended(_with_open_calls_settled(state), RunStatus.INTERRUPTED, event.reason)
        case _:
            assert_never(event)


def _answered(state: RunState, event: Answered) -> RunState:
    message = event.message
    if _open_calls(state):
        raise Broken("The model was asked before its tool calls were answered.")
    price = state.model.price
    state = replace(
        state,
        messages=(*state.messages, message),
        steps=state.steps + 1,
        usage=state.usage + message.usage,
        cost_usd=None if price is None or state.cost_usd is None else state.cost_usd + price.of(message.usage),
        elapsed_s=state.elapsed_s + state.wait_s + event.elapsed_s,
        retries=0,
        wait_s=0.0,
        compactions=0,
    )
    if message.finish is FinishReason.REFUSED:
        refused = message.text or "The model refuses to answer."
        return _ended(_with_open_calls_settled(state), RunStatus.FAILED, refused, code="content_refused")
    if message.calls:
        return state
    if message.finish is FinishReason.LENGTH:
        return _fault(
            state, "Your answer was cut off at the limit of its length. Go on, in smaller steps.", "answer_cut"
        )
    if not message.text.strip():
        return _fault(state, "Your answer was empty. Go on with the task, or call `finish`.", "answer_empty")
    return _ended(state, RunStatus.DONE, message.text.strip())


def _fault(state: RunState, advice: str, code: str) -> RunState:
    faults = state.faults + 1
    if faults >= MAX_FAULTS_IN_A_ROW:
        return _ended(state, RunStatus.FAILED, f"The model went wrong {faults} times in a row ({code}).", code=code)
    return replace(state, messages=(*state.messages, UserMessage(text=advice)), faults=faults)


def _model_failed(state: RunState, event: ModelFailed) -> RunState:
    state = replace(state, elapsed_s=state.elapsed_s + state.wait_s + event.elapsed_s)
    if event.context_too_long and state.compactions < MAX_COMPACTIONS_IN_A_ROW:
        return replace(state, compact_next=True)
    asked_too_much = (event.retry_after_s or 0.0) > LONGEST_ASKED_WAIT_S
    if not event.repeat_is_safe or state.retries >= MAX_MODEL_RETRIES or asked_too_much:
        return _ended(state, RunStatus.FAILED, event.message, code=event.code)
    backoff_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**state.retries)
    return replace(state, retries=state.retries + 1, wait_s=max(backoff_s, event.retry_after_s or 0.0))


def _tools_answered(state: RunState, event: ToolsAnswered) -> RunState:
    calls = _open_calls(state)
    if not calls or [call.id for call in calls] != [result.call_id for result in event.results]:
        raise Broken(
            "The answers of tools are not those to the calls of the last message, one each and in their order."
        )
    state = replace(
        state,
        messages=(*state.messages, ToolMessage(results=event.results)),
        elapsed_s=state.elapsed_s + event.elapsed_s,
    )
    finish = _finish_of(calls, event.results)
    if finish is not None:
        return replace(state, outcome=finish)
    if not event.faults or event.faults < len(event.results):
        return replace(state, faults=0)
    faults = state.faults + 1
    if faults >= MAX_FAULTS_IN_A_ROW:
        said = event.results[-1].content
        return _ended(
            state, RunStatus.FAILED, f"The model's tool calls cannot be understood: {said}", code="bad_tool_call"
        )
    return replace(state, faults=faults)


def _finish_of(calls: tuple[ToolCall, ...], results: tuple[ToolResult, ...]) -> Outcome | None:
    """What a call of ``finish`` that went through said. What is not plainly a success is none."""
    for call, result in zip(calls, results, strict=True):
        if call.name == FINISH_TOOL and not result.is_error:
            arguments = _object(call.arguments)
            done = str(arguments.get("success", True)).lower() in ("true", "1", "yes", "on", "y", "t")
            status = RunStatus.DONE if done else RunStatus.GAVE_UP
            return Outcome(status=status, summary=str(arguments.get("summary") or ""))
    return None


def _object(arguments: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _open_calls(state: RunState) -> tuple[ToolCall, ...]:
    last = state.messages[-1]
    return last.calls if isinstance(last, AssistantMessage) else ()


def _with_open_calls_settled(state: RunState) -> RunState:
    return replace(state, messages=with_open_calls_settled(state.messages))


def with_open_calls_settled(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Providers refuse a conversation with calls that nobody answered."""
    last = messages[-1] if messages else None
    if not (isinstance(last, AssistantMessage) and last.calls):
        return messages
    results = tuple(
        ToolResult(call_id=call.id, name=call.name, content="The run ended before this was done.", is_error=True)
        for call in last.calls
    )
    return (*messages, ToolMessage(results=results))


def _ended(state: RunState, status: RunStatus, summary: str, *, code: str | None = None) -> RunState:
    return replace(state, outcome=Outcome(status=status, summary=summary, code=code))


# Limits


def _limit_reached(state: RunState) -> Outcome | None:
    """Asked before each request, by what it may take at most: a limit is never found to have been passed."""
    limits = state.limits
    if state.steps >= limits.steps:
        return _reached("steps", f"The run has made {state.steps} steps, as many as it may.")
    if state.elapsed_s + state.wait_s >= limits.time_s:
        waits = f", and would have to wait {state.wait_s:.0f} s" if state.wait_s else ""
        return _reached("time", f"The run has taken {state.elapsed_s:.0f} s of {limits.time_s:.0f}{waits}.")
    estimate = estimated_tokens(state)
    used = state.usage.input_tokens + state.usage.output_tokens
    most = used + estimate + state.model.max_output_tokens
    if limits.tokens is not None and most > limits.tokens:
        return _reached(
            "tokens",
            f"The next request could take the run to {most} tokens, above {limits.tokens}; it has used {used}.",
        )
    most = state.usage.output_tokens + state.model.max_output_tokens
    if limits.output_tokens is not None and most > limits.output_tokens:
        return _reached(
            "output",
            f"The next answer could take the run's to {most} tokens, above {limits.output_tokens}; "
            f"they have {state.usage.output_tokens}.",
        )
    if limits.cost_usd is not None:
        if state.model.price is None or state.cost_usd is None:
            return _reached("cost", "The price of this model is unknown, so that a limit of cost cannot be kept.")
        bound = state.model.price.upper_bound(input_tokens=estimate, output_tokens=state.model.max_output_tokens)
        if state.cost_usd + bound > limits.cost_usd:
            return _reached(
                "cost",
                f"The next request could cost up to {bound:.4f} USD and take the run above {limits.cost_usd} USD; "
                f"it has cost {state.cost_usd:.4f} USD.",
            )
    return None


def _reached(name: str, text: str) -> Outcome:
    return Outcome(status=RunStatus.LIMIT_REACHED, summary=text, code=name)


# Room


def message_chars(message: Message) -> int:
    return sum(map(len, _texts(message)))


def _texts(message: Message) -> Iterator[str]:
    match message:
        case UserMessage():
            yield message.text
        case AssistantMessage():
            for part in message.parts:
                yield part.arguments if isinstance(part, ToolCall) else part.text
        case ToolMessage():
            for result in message.results:
                yield result.content
        case _:
            assert_never(message)


def _size(text: str) -> int:
    """A character that is not ASCII counts by its bytes: some scripts have a token or more for each."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def estimated_tokens(state: RunState) -> int:
    size = state.overhead_chars + sum(_size(text) for message in state.messages for text in _texts(message))
    return int(size / CHARS_PER_TOKEN) + 8 * len(state.messages)


def _room(state: RunState) -> int:
    return int(CONTEXT_SHARE * (state.model.context_tokens - state.model.max_output_tokens))


def _target_chars(state: RunState) -> int:
    """Half of the room, less with each time that it was not enough."""
    share = 0.5 / (1 + state.compactions)
    return max(2000, int(_room(state) * share * CHARS_PER_TOKEN) - state.overhead_chars)
