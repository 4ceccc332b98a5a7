"""Making room in a conversation: what tools answered goes first, oldest first, then whole steps. Pure.

What the user said stays, and so do the newest messages; of these, tools' answers go last, and the very last answer never. What
is left out is named in its place, so that the model knows that it can look again.
"""

import re
from dataclasses import replace

from shadow.agent.loop import message_chars
from shadow.core.conversation import AssistantMessage, Message, ToolMessage, ToolResult, UserMessage

KEEP_LAST = 6
LEFT_OUT_ABOVE_CHARS = 200
_NOTE = re.compile(r"\[(\d+) earlier messages of this conversation were left out to make room\. ")


def compact(messages: tuple[Message, ...], *, target_chars: int) -> tuple[Message, ...]:
    """A conversation of ``target_chars`` at most, as far as the user's and the newest messages allow.

    Calls keep their answers, and a repeat changes nothing.
    """
    newest = max(1, len(messages) - KEEP_LAST)
    kept = _with_short_answers(messages, range(newest), target_chars)
    kept = _without_steps(kept, target_chars)
    return _with_short_answers(kept, range(len(kept) - 1), target_chars)


def _chars(messages: tuple[Message, ...]) -> int:
    return sum(map(message_chars, messages))


def _with_short_answers(messages: tuple[Message, ...], where: range, target_chars: int) -> tuple[Message, ...]:
    kept = list(messages)
    total = _chars(messages)
    for index in where:
        message = kept[index]
        if total > target_chars and isinstance(message, ToolMessage):
            shorter = ToolMessage(results=tuple(_shortened(result) for result in message.results))
            total += message_chars(shorter) - message_chars(message)
            kept[index] = shorter
    return tuple(kept)


def _shortened(result: ToolResult) -> ToolResult:
    if len(result.content) <= LEFT_OUT_ABOVE_CHARS:
        return result
    note = f"[{len(result.content)} characters were left out here to make room. Call the tool again if you need them.]"
    return replace(result, content=note)


def _without_steps(messages: tuple[Message, ...], target_chars: int) -> tuple[Message, ...]:
    """Whole steps (what the model said, and the answers to its calls) go, from the oldest on."""
    excess = _chars(messages) - target_chars
    if excess <= 0:
        return messages
    first, *rest = messages
    dropped = 0
    if rest and isinstance(rest[0], UserMessage) and (note := _NOTE.match(rest[0].text)):
        dropped = int(note[1])
        excess -= message_chars(rest.pop(0))
    kept: list[Message] = []
    before = dropped
    while rest:
        size = 2 if isinstance(rest[0], AssistantMessage) and rest[0].calls else 1
        if excess + len(_note(dropped).text) <= 0 or len(rest) - size < KEEP_LAST:
            break
        step, rest = rest[:size], rest[size:]
        if isinstance(step[0], UserMessage):
            kept.extend(step)
        else:
            dropped += size
            excess -= sum(map(message_chars, step))
    if dropped == before:
        return messages
    return (first, _note(dropped), *kept, *rest)


def _note(dropped: int) -> UserMessage:
    return UserMessage(
        text=f"[{dropped} earlier messages of this conversation were left out to make room. The files in the workspace "
        "show what was done; look at them and at `git diff` where you need to know.]"
    )
