"""A whole answer in pieces, as a model that streams would send it. Pure."""

import re
from collections.abc import Iterator

from shadow.core.conversation import AssistantMessage, Delta, Reasoning, ReasoningDelta, Text, TextDelta, ToolCallDelta

MAX_PIECES = 50
"""Of one part of an answer."""
_WORD = re.compile(r"\s*\S+\s*|\s+")
_ARGUMENTS_CHARS = 16


def deltas_of(message: AssistantMessage) -> Iterator[Delta]:
    """Text by words, arguments by a few characters; together they are the message's parts, in order."""
    for part in message.parts:
        if isinstance(part, Text):
            yield from (TextDelta(text=piece) for piece in _words(part.text))
        elif isinstance(part, Reasoning):
            yield from (ReasoningDelta(text=piece) for piece in _words(part.text))
        else:
            yield ToolCallDelta(call_id=part.id, name=part.name, arguments="")
            size = max(_ARGUMENTS_CHARS, -(-len(part.arguments) // MAX_PIECES))
            for start in range(0, len(part.arguments), size):
                piece = part.arguments[start : start + size]
                yield ToolCallDelta(call_id=part.id, name=part.name, arguments=piece)


def _words(text: str) -> Iterator[str]:
    words = _WORD.findall(text)
    at_once = -(-len(words) // MAX_PIECES) or 1
    for start in range(0, len(words), at_once):
        yield "".join(words[start : start + at_once])
