"""What providers get to see of a conversation: the same as was said, in a shape that none of them refuses. Pure.

Providers refuse what our record may hold: calls without an answer, answers without a call, repeated ids, empty texts, two
user turns in a row, half of a surrogate pair, reasoning that somebody else signed. What is changed here changes in the request
alone; the conversation stays as it was.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shadow.core.conversation import (
    AssistantMessage,
    AssistantPart,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)

MAKER = "maker"
"""Key of ``AssistantMessage.provider_data``: who answered. What a maker signed is sent back to no other."""
NO_TEXT = "(no text)"
NO_OUTPUT = "(no output)"
NOT_ANSWERED = "This call was not answered."
GO_ON = "Go on."
INVALID_ARGUMENTS = "invalid_arguments"
"""The one argument of a call whose arguments were no JSON object: their text."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


def sendable(messages: Sequence[Message], *, maker: str, id_length: int | None = None) -> tuple[Message, ...]:
    """``messages`` as ``maker`` takes them: user and assistant alternate, from user to user; each call has its answer.

    ``id_length``: how long ids of calls have to be, for models that want letters and digits of exact length.
    """
    made: list[Message] = []
    ids = _Ids(length=id_length)
    for index, message in enumerate(messages):
        match message:
            case UserMessage():
                _add_user(made, clean(message.text))
            case AssistantMessage():
                sent = _assistant(message, maker, ids)
                if sent is None:
                    continue
                if not made or isinstance(made[-1], AssistantMessage):
                    made.append(UserMessage(text=GO_ON))
                made.append(sent)
                if sent.calls:
                    following = messages[index + 1] if index + 1 < len(messages) else None
                    made.append(_answers(message, sent, following))
            case ToolMessage():
                pass  # went out with its calls; without any, there is nobody to tell
    if not made or isinstance(made[-1], AssistantMessage):
        made.append(UserMessage(text=GO_ON))
    return tuple(made)


def clean(text: str) -> str:
    """``text`` as JSON in UTF-8 can carry it: pairs of surrogates joined, halves replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean_json(value: Any) -> Any:
    """``value`` with all of its texts cleaned."""
    match value:
        case str():
            return clean(value)
        case list():
            return [clean_json(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {clean(str(key)): clean_json(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            return value


def json_object(arguments: str) -> str:
    """``arguments`` as a JSON object, which some providers insist on; ``INVALID_ARGUMENTS`` where they are none."""
    try:
        given: Any = json.loads(arguments, parse_constant=_refuse) if arguments.strip() else {}
        if isinstance(given, dict):
            return json.dumps(clean_json(given), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        pass
    return json.dumps({INVALID_ARGUMENTS: clean(arguments)}, separators=(",", ":"))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _add_user(made: list[Message], text: str) -> None:
    text = text if text.strip() else NO_TEXT
    if made and isinstance(made[-1], UserMessage):
        made[-1] = UserMessage(text=f"{made[-1].text}\n\n{text}")
    else:
        made.append(UserMessage(text=text))


def _assistant(message: AssistantMessage, maker: str, ids: "_Ids") -> AssistantMessage | None:
    ours = (message.provider_data or {}).get(MAKER) == maker
    parts: list[AssistantPart] = []
    for part in message.parts:
        data: Mapping[str, Any] | None = clean_json(dict(part.provider_data)) if ours and part.provider_data else None
        match part:
            case Reasoning():
                if ours:
                    # A signature covers the text: what would change in it makes it invalid, and was invalid before.
                    parts.append(replace(part, text=clean(part.text), provider_data=data))
            case Text():
                if part.text.strip():
                    parts.append(replace(part, text=clean(part.text), provider_data=data))
            case ToolCall():
                name = _NOT_IN_NAMES.sub("_", part.name)[:64] or "unnamed"
                arguments = json_object(part.arguments)
                parts.append(replace(part, id=ids.add(part.id), name=name, arguments=arguments, provider_data=data))
    while parts and isinstance(parts[-1], Reasoning):
        parts.pop()  # it led to nothing; providers want what it led to right behind it
    if not parts:
        return None
    return replace(message, parts=tuple(parts), provider_data=message.provider_data if ours else None)


def _answers(original: AssistantMessage, sent: AssistantMessage, following: Message | None) -> ToolMessage:
    given = list(following.results) if isinstance(following, ToolMessage) else []
    results: list[ToolResult] = []
    for was, call in zip(original.calls, sent.calls, strict=True):
        index = next((i for i, result in enumerate(given) if result.call_id == was.id), None)
        if index is None:
            answer = ToolResult(call_id=call.id, name=call.name, content=NOT_ANSWERED, is_error=True)
        else:
            result = given.pop(index)
            content = clean(result.content) if result.content.strip() else NO_OUTPUT
            answer = ToolResult(call_id=call.id, name=call.name, content=content, is_error=result.is_error)
        results.append(answer)
    return ToolMessage(results=tuple(results))


@dataclass(slots=True, kw_only=True)
class _Ids:
    """Ids of calls that providers take, each of them once, the same for the same conversation."""

    length: int | None
    used: set[str] = field(default_factory=set[str])

    def add(self, given: str) -> str:
        chosen = given if self.length is None and _ID.fullmatch(given) else self._derived(given, 0)
        repeat = 0
        while chosen in self.used:
            repeat += 1
            chosen = self._derived(given, repeat)
        self.used.add(chosen)
        return chosen

    def _derived(self, given: str, repeat: int) -> str:
        digest = hashlib.sha256(f"{repeat}:{given}".encode("utf-8", "surrogatepass")).hexdigest()
        return digest[: self.length] if self.length is not None else f"call_{digest[:32]}"
