"""Making room: what may go goes, what must stay stays."""

from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.compaction import KEEP_LAST, LEFT_OUT_ABOVE_CHARS, compact
from shadow.agent.loop import message_chars
from shadow.core.conversation import AssistantMessage, Message, Text, ToolCall, ToolMessage, ToolResult, UserMessage
from tests.support.conversations import assert_providers_take, conversations

targets = st.integers(0, 8000)


def size(messages: tuple[Message, ...]) -> int:
    return sum(map(message_chars, messages))


def least(messages: tuple[Message, ...]) -> int:
    """What stays in any case: the user's words, the newest messages (their answers by notes), the last one, and one note."""
    newest = messages[-KEEP_LAST - 1 :]
    stays = sum(message_chars(m) for m in messages if isinstance(m, UserMessage))
    stays += sum(message_chars(m) for m in newest if isinstance(m, AssistantMessage))
    stays += sum(
        min(len(r.content), LEFT_OUT_ABOVE_CHARS) for m in newest if isinstance(m, ToolMessage) for r in m.results
    )
    return stays + message_chars(messages[-1]) + 300


@given(conversations(), targets)
def test_it_fits_where_it_can(messages: tuple[Message, ...], target: int) -> None:
    assert size(compact(messages, target_chars=target)) <= max(target, least(messages))


@given(conversations(), targets)
def test_what_fits_is_left_alone(messages: tuple[Message, ...], target: int) -> None:
    if size(messages) <= target:
        assert compact(messages, target_chars=target) == messages


@given(conversations(), targets)
def test_providers_still_take_it(messages: tuple[Message, ...], target: int) -> None:
    assert_providers_take(compact(messages, target_chars=target))


@given(conversations(), targets)
def test_the_words_of_the_user_and_the_newest_messages_stay(messages: tuple[Message, ...], target: int) -> None:
    kept = compact(messages, target_chars=target)
    assert kept[0] == messages[0]
    assert kept[-1] == messages[-1]
    users = [m for m in kept if isinstance(m, UserMessage)]
    assert [m for m in users if "were left out to make room" not in m.text] == [
        m for m in messages if isinstance(m, UserMessage)
    ]
    newest = [m for m in messages[-KEEP_LAST:] if isinstance(m, AssistantMessage)]
    assert [m for m in kept if isinstance(m, AssistantMessage)][len(newest) * -1 :] == newest or not newest


@given(conversations(), targets)
def test_a_repeat_changes_nothing(messages: tuple[Message, ...], target: int) -> None:
    once = compact(messages, target_chars=target)
    assert compact(once, target_chars=target) == once


@given(conversations(max_steps=30), targets, targets)
def test_what_was_left_out_is_counted_over_all_times(messages: tuple[Message, ...], first: int, second: int) -> None:
    kept = compact(compact(messages, target_chars=first), target_chars=second)
    notes = [m.text for m in kept if isinstance(m, UserMessage) and "were left out to make room" in m.text]
    missing = len(messages) - (len(kept) - len(notes))
    assert len(notes) == (1 if missing else 0)
    if missing:
        assert notes[0].startswith(f"[{missing} earlier messages")


def test_old_answers_go_first_and_are_named() -> None:
    messages: list[Message] = [UserMessage(text="Mend it.")]
    for number in range(8):
        messages.append(
            AssistantMessage(parts=(ToolCall(id=f"{number}", name="read_file", arguments="{}"),), model="m")
        )
        messages.append(ToolMessage(results=(ToolResult(call_id=f"{number}", name="read_file", content="x" * 1000),)))
    kept = compact(tuple(messages), target_chars=6000)
    assert len(kept) == len(messages)
    contents = [m.results[0].content for m in kept if isinstance(m, ToolMessage)]
    assert [content.startswith("[1000 characters were left out") for content in contents] == [True] * 3 + [False] * 5


def test_the_instruction_of_a_later_run_is_not_lost_in_a_long_one() -> None:
    messages: list[Message] = [
        UserMessage(text="First."),
        AssistantMessage(parts=(Text(text="Done."),), model="m"),
        UserMessage(text="Second."),
    ]
    messages += [AssistantMessage(parts=(Text(text="thinking " * 50),), model="m") for _ in range(30)]
    kept = compact(tuple(messages), target_chars=1000)
    assert len(kept) < len(messages)
    assert UserMessage(text="Second.") in kept
