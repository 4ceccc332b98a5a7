"""Events as rows hold them, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.conversation import AssistantMessage, ToolResult, Usage, UserMessage
from shadow.core.errors import Broken
from shadow.core.events import (
    CallAdded,
    FileChange,
    ModelAnswered,
    RunFinished,
    RunStarted,
    TaskEvent,
    TextAdded,
    TodoChanged,
    TodoItem,
    ToolFinished,
    WorkDelivered,
)
from shadow.db.codec import decode_event, encode_event
from tests.support.conversations import assistant_messages

text = st.text() | st.sampled_from(["\ud800", "\0", "\udcff\udcfe"])
events = st.one_of(
    st.builds(TextAdded, text=text, reasoning=st.booleans()),
    st.builds(CallAdded, call_id=text, name=text, arguments=text),
    st.builds(ModelAnswered, message=assistant_messages(), took_ms=st.floats(0, 1e6), cost_usd=st.none() | text),
    st.builds(RunStarted, run=st.integers(0, 9), message=st.builds(UserMessage, text=text)),
    st.builds(
        ToolFinished,
        result=st.builds(
            ToolResult,
            call_id=text,
            name=text,
            content=text,
            is_error=st.booleans(),
            exit_code=st.none() | st.integers(0, 255),
        ),
        took_ms=st.floats(0, 1e6),
    ),
    st.builds(
        TodoChanged,
        items=st.lists(st.builds(TodoItem, text=text, status=st.sampled_from(["pending", "in_progress", "done"]))).map(
            tuple
        ),
    ),
    st.builds(
        WorkDelivered,
        how=st.sampled_from(["branch", "push", "patch"]),
        where=text,
        commit=text,
        commits=st.integers(0, 9),
        changes=st.lists(st.builds(FileChange, path=text, added=st.none() | st.integers(0), removed=st.none())).map(
            tuple
        ),
    ),
    st.builds(
        RunFinished,
        run=st.integers(0, 9),
        status=text,
        summary=text,
        usage=st.builds(Usage, input_tokens=st.integers(0, 2**40)),
        cost_usd=st.none() | text,
        took_ms=st.floats(0, 1e9),
    ),
)


@given(events)
def test_every_event_comes_back_from_its_row(event: TaskEvent) -> None:
    body = encode_event(event)
    assert body.isascii()
    assert decode_event(event.kind, body) == event


def test_what_a_provider_needs_to_see_again_comes_back() -> None:
    message = AssistantMessage(parts=(), model="m", provider_data={"signature": ["a", 1, None, {"b": True}]})
    event = ModelAnswered(message=message, took_ms=1.0)
    assert decode_event(event.kind, encode_event(event)) == event


@pytest.mark.parametrize("body", ["", "{}", '{"kind": "from_tomorrow"}', '{"kind": "text_added"}', "[1]"])
def test_an_event_of_tomorrow_or_a_damaged_one_is_told_as_such(body: str) -> None:
    with pytest.raises(Broken):
        decode_event("text_added", body)
