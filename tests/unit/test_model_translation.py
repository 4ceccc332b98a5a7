"""Our conversation as pydantic-ai's, and back: nothing is lost on the way."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.usage import RequestUsage

from shadow.agent.providers.sendable import MAKER
from shadow.agent.providers.translation import from_response, to_response
from shadow.core.conversation import AssistantMessage, FinishReason, ModelRequest, Usage, UserMessage
from shadow.core.events import ModelAnswered
from shadow.db.codec import decode_event, encode_event

REQUEST = ModelRequest(instructions="i", messages=(UserMessage(text="u"),), tools=(), max_output_tokens=1)
TEXT = st.text(max_size=10)
ID = st.none() | st.text(min_size=1, max_size=6)
DETAILS: st.SearchStrategy[dict[str, Any] | None] = st.none() | st.dictionaries(
    TEXT, st.text() | st.integers() | st.lists(st.booleans(), max_size=2), min_size=1, max_size=2
)
BY = st.sampled_from(["openai", "anthropic"])
PARTS = st.one_of(
    st.builds(TextPart, content=TEXT, id=ID, provider_name=BY, provider_details=DETAILS),
    st.builds(ThinkingPart, content=TEXT, id=ID, signature=ID, provider_name=BY, provider_details=DETAILS),
    st.builds(
        ToolCallPart, tool_name=TEXT, args=TEXT, tool_call_id=TEXT, id=ID, provider_name=BY, provider_details=DETAILS
    ),
)


@given(st.lists(PARTS, max_size=6), ID, ID)
def test_a_response_comes_back_as_it_was_also_through_json(parts: list[Any], url: str | None, response_id: str | None):
    response = ModelResponse(
        parts=parts,
        model_name="m-2026",
        provider_name="openai",
        provider_url=url,
        canonical_system="openai",
        provider_response_id=response_id,
        finish_reason="stop",
        usage=RequestUsage(input_tokens=10, output_tokens=2, cache_read_tokens=5, cache_write_tokens=1),
    )
    ours = from_response(response, maker="me", request=REQUEST)
    event = decode_event("model_answered", encode_event(ModelAnswered(message=ours, took_ms=0)))
    assert isinstance(event, ModelAnswered)
    for message in (ours, event.message):
        back = to_response(message)
        assert list(back.parts) == parts
        assert (back.model_name, back.provider_name, back.provider_url) == ("m-2026", "openai", url)
        assert (back.provider_response_id, back.canonical_system) == (response_id, "openai")
    assert ours.usage == Usage(input_tokens=10, output_tokens=2, cache_read_tokens=5, cache_write_tokens=1)


def answer(parts: list[Any], finish: Any, **more: Any) -> AssistantMessage:
    response = ModelResponse(parts=parts, model_name="m", finish_reason=finish, **more)
    return from_response(response, maker="me", request=REQUEST)


def test_a_stop_with_calls_is_a_stop_for_the_calls():
    """Some servers say `stop` and call."""
    call = ToolCallPart(tool_name="x", args={"a": 1}, tool_call_id="1")
    assert answer([call], "stop").finish is FinishReason.TOOL_CALLS
    assert json.loads(answer([call], "stop").calls[0].arguments) == {"a": 1}
    assert answer([], None).finish is FinishReason.UNKNOWN


def test_the_words_of_a_refusal_are_its_text():
    refused = answer([], "content_filter", provider_details={"refusal": "I cannot help with that."})
    assert (refused.text, refused.finish) == ("I cannot help with that.", FinishReason.REFUSED)


def test_details_that_are_no_json_become_some():
    from datetime import UTC, datetime

    said = answer([], "stop", provider_details={"timestamp": datetime.now(UTC), "odd": {1: object()}})
    assert json.loads(json.dumps(dict(said.provider_data or {})))[MAKER] == "me"
