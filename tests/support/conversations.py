"""Conversations as Hypothesis draws them, and what every provider asks of one."""

from collections.abc import Sequence

from hypothesis import strategies as st

from shadow.core.conversation import (
    AssistantMessage,
    AssistantPart,
    FinishReason,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)

NAMES = ("read_file", "run_terminal_cmd", "finish", "no_such_tool")
ARGUMENTS = (
    "",
    "{}",
    "[]",
    "null",
    "not json",
    '{"path": "a"}',
    '{"summary": "all done"}',
    '{"summary": "no", "success": false}',
    '{"summary": "no", "success": "false"}',
    '{"summary": null, "success": 0}',
)
texts = st.text(max_size=30) | st.sampled_from(["", " ", "\ud800", "日本語" * 20])


NO_USAGE = st.just(Usage())
calls = st.tuples(st.sampled_from(NAMES), st.sampled_from(ARGUMENTS) | texts)


@st.composite
def assistant_messages(draw: st.DrawFn, *, usage: st.SearchStrategy[Usage] = NO_USAGE) -> AssistantMessage:
    parts: list[AssistantPart] = []
    if draw(st.booleans()):
        parts.append(Reasoning(text=draw(texts)))
    if draw(st.booleans()):
        parts.append(Text(text=draw(texts)))
    drawn = draw(st.lists(calls, max_size=3))
    parts.extend(ToolCall(id=f"c{n}", name=name, arguments=arguments) for n, (name, arguments) in enumerate(drawn))
    finish = draw(st.sampled_from(FinishReason))
    return AssistantMessage(parts=tuple(parts), model="test:model", usage=draw(usage), finish=finish)


def answers(to: Sequence[ToolCall], *, max_chars: int = 600) -> st.SearchStrategy[ToolMessage]:
    """One answer to each call."""
    size = st.integers(0, max_chars)
    return st.tuples(*(st.tuples(size, st.booleans()) for _ in to)).map(
        lambda drawn: ToolMessage(
            results=tuple(
                ToolResult(call_id=call.id, name=call.name, content="x" * chars, is_error=is_error)
                for call, (chars, is_error) in zip(to, drawn, strict=True)
            )
        )
    )


@st.composite
def conversations(draw: st.DrawFn, *, max_steps: int = 20, max_chars: int = 600) -> tuple[Message, ...]:
    """As they are before a request: the user's first, every call answered."""
    messages: list[Message] = [UserMessage(text=draw(texts))]
    for _ in range(draw(st.integers(0, max_steps))):
        if draw(st.integers(0, 5)) == 0:
            messages.append(UserMessage(text=draw(texts)))
            continue
        said = draw(assistant_messages())
        messages.append(said)
        if said.calls:
            messages.append(draw(answers(said.calls, max_chars=max_chars)))
    return tuple(messages)


def assert_providers_take(messages: Sequence[Message]) -> None:
    """The user begins; every call has one answer, in the message right behind it and in order; no answer is without a call."""
    assert isinstance(messages[0], UserMessage)
    waiting: tuple[str, ...] = ()
    for message in messages:
        if isinstance(message, ToolMessage):
            assert waiting, "answers without a call"
            assert tuple(result.call_id for result in message.results) == waiting
            waiting = ()
            continue
        assert not waiting, "calls without an answer"
        if isinstance(message, AssistantMessage):
            waiting = tuple(call.id for call in message.calls)
    assert not waiting, "calls without an answer"
