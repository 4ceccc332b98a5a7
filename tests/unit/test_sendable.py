"""What is sent to providers: valid for each of them, whatever the conversation holds."""

import json
import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.providers.sendable import INVALID_ARGUMENTS, MAKER, clean, json_object, sendable
from shadow.core.conversation import (
    AssistantMessage,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)  # surrogates too
IDS = st.sampled_from(["call_1", "call_2", "toolu_9", "", "not an id", "ü" * 70, "\ud800"])
CALLS = st.builds(ToolCall, id=IDS, name=ANY_TEXT, arguments=ANY_TEXT | st.just('{"path": "a"}') | st.just("[1]"))
DATA = st.none() | st.just({"id": "x", "signature": "s", "provider": "p"})
PARTS = (
    st.builds(Text, text=ANY_TEXT, provider_data=DATA) | st.builds(Reasoning, text=ANY_TEXT, provider_data=DATA) | CALLS
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(UserMessage, text=ANY_TEXT),
    st.builds(
        AssistantMessage,
        parts=st.lists(PARTS, max_size=5).map(tuple),
        model=st.just("m"),
        provider_data=st.none() | st.sampled_from([{MAKER: "me"}, {MAKER: "you"}]),
    ),
    st.builds(
        ToolMessage,
        results=st.lists(
            st.builds(ToolResult, call_id=IDS, name=ANY_TEXT, content=ANY_TEXT, is_error=st.booleans()), max_size=4
        ).map(tuple),
    ),
)
CONVERSATIONS = st.lists(MESSAGES, max_size=10)


def answered(*calls: ToolCall, maker: str = "me") -> tuple[Message, ...]:
    results = tuple(ToolResult(call_id=call.id, name=call.name, content="ok") for call in calls)
    assistant = AssistantMessage(parts=calls, model="m", provider_data={MAKER: maker})
    return (UserMessage(text="go"), assistant, ToolMessage(results=results))


@given(CONVERSATIONS)
def test_user_and_assistant_alternate_and_the_user_begins_and_ends(messages: list[Message]):
    roles = ["a" if isinstance(message, AssistantMessage) else "u" for message in _turns(messages)]
    assert roles == [("u", "a")[index % 2] for index in range(len(roles))]
    assert len(roles) % 2 == 1


def _turns(messages: Sequence[Message]) -> list[Message]:
    """With what tools answered and what the user says right after it as one turn."""
    sent = sendable(messages, maker="me")
    return [
        message
        for index, message in enumerate(sent)
        if not (isinstance(message, UserMessage) and index and isinstance(sent[index - 1], ToolMessage))
    ]


@given(CONVERSATIONS)
def test_each_call_has_its_one_answer_right_after_it_and_each_id_is_there_once(messages: list[Message]):
    sent = sendable(messages, maker="me")
    ids: list[str] = []
    for index, message in enumerate(sent):
        if isinstance(message, AssistantMessage) and message.calls:
            following = sent[index + 1]
            assert isinstance(following, ToolMessage)
            assert [result.call_id for result in following.results] == [call.id for call in message.calls]
            ids += [call.id for call in message.calls]
        if isinstance(message, ToolMessage):
            before = sent[index - 1]
            assert isinstance(before, AssistantMessage)
            assert before.calls
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", id_) for id_ in ids)


@given(CONVERSATIONS)
def test_all_texts_are_there_and_can_be_encoded_and_all_arguments_are_objects(messages: list[Message]):
    for message in sendable(messages, maker="me"):
        match message:
            case UserMessage(text=text):
                assert text.strip()
                text.encode()
            case ToolMessage(results=results):
                for result in results:
                    assert result.content.strip()
                    result.content.encode()
            case AssistantMessage(parts=parts):
                assert parts
                assert not isinstance(parts[-1], Reasoning)
                for part in parts:
                    match part:
                        case ToolCall():
                            assert isinstance(json.loads(part.arguments), dict)
                            assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", part.name)
                        case Text():
                            assert part.text.strip()
                            part.text.encode()
                        case Reasoning():
                            part.text.encode()


@given(CONVERSATIONS)
def test_what_another_model_signed_is_left_out(messages: list[Message]):
    for message in sendable(messages, maker="me"):
        if isinstance(message, AssistantMessage) and (message.provider_data or {}).get(MAKER) != "me":
            assert not any(isinstance(part, Reasoning) or part.provider_data for part in message.parts)


@given(CONVERSATIONS)
def test_what_is_sendable_stays_as_it_is(messages: list[Message]):
    once = sendable(messages, maker="me")
    assert sendable(once, maker="me") == once


@given(CONVERSATIONS, MESSAGES)
def test_what_was_sent_before_is_sent_the_same_again(messages: list[Message], more: Message):
    """Or no prompt cache would hit: only the last turn may differ."""
    before, after = sendable(messages, maker="me"), sendable([*messages, UserMessage(text="go on"), more], maker="me")
    kept = [message for message in before[:-1] if not isinstance(message, ToolMessage)]
    again = [message for message in after if not isinstance(message, ToolMessage)]
    assert again[: len(kept)] == kept


def test_a_usual_conversation_goes_out_as_it_is():
    messages = answered(
        ToolCall(id="a", name="read_file", arguments='{"path":"x"}'), ToolCall(id="b", name="ls", arguments="{}")
    )
    assert sendable(messages, maker="me") == messages


def test_ids_of_exact_length_where_a_model_wants_them():
    (_, assistant, answers) = sendable(
        answered(ToolCall(id="a", name="x", arguments="{}"), ToolCall(id="b", name="x", arguments="{}")),
        maker="me",
        id_length=9,
    )
    assert isinstance(assistant, AssistantMessage)
    assert isinstance(answers, ToolMessage)
    ids = [call.id for call in assistant.calls]
    assert all(re.fullmatch(r"[a-z0-9]{9}", id_) for id_ in ids)
    assert ids == [result.call_id for result in answers.results]


@given(ANY_TEXT)
def test_cleaning_leaves_nothing_that_cannot_be_encoded_and_changes_nothing_else(text: str):
    clean(text).encode()
    if not re.search("[\ud800-\udfff]", text):
        assert clean(text) == text


def test_pairs_of_surrogates_are_joined_and_halves_replaced():
    assert clean("a\ud83d\ude00b") == "a\U0001f600b"
    assert clean("\udcff") == "�"


@given(ANY_TEXT)
def test_arguments_are_an_object_whatever_they_are(text: str):
    assert isinstance(json.loads(json_object(text)), dict)


def test_arguments_that_are_none_are_kept_as_a_text():
    assert json.loads(json_object('{"path": "a')) == {INVALID_ARGUMENTS: '{"path": "a'}
    assert json.loads(json_object("[1]")) == {INVALID_ARGUMENTS: "[1]"}
    assert json.loads(json_object('{"x": NaN}')) == {INVALID_ARGUMENTS: '{"x": NaN}'}
    assert json_object("") == "{}"
    assert json.loads(json_object("[" * 100_000)) == {INVALID_ARGUMENTS: "[" * 100_000}
