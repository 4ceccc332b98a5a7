"""A conversation with a language model as values: what was said, which tools were called, what they answered. No I/O, no clock.

What a provider needs to see again as it was (signatures of reasoning, ids of its own) travels in ``provider_data``: JSON that
nobody here looks into.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one request, or of many together. Cached ones are part of ``input_tokens``."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    """The answer reached the limit of output tokens."""
    REFUSED = "refused"
    """The provider's or the model's content policy."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    text: str
    provider_data: Mapping[str, Any] | None = None
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    text: str
    provider_data: Mapping[str, Any] | None = None
    kind: Literal["reasoning"] = "reasoning"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    id: str
    name: str
    arguments: str
    """JSON as the model wrote it; it may be no JSON at all."""
    provider_data: Mapping[str, Any] | None = None
    kind: Literal["tool_call"] = "tool_call"


AssistantPart = Text | Reasoning | ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMessage:
    text: str
    kind: Literal["user"] = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantMessage:
    parts: tuple[AssistantPart, ...]
    model: str
    """As the provider named what answered."""
    usage: Usage = field(default_factory=Usage)
    finish: FinishReason = FinishReason.STOP
    provider_data: Mapping[str, Any] | None = None
    kind: Literal["assistant"] = "assistant"

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    call_id: str
    name: str
    content: str
    is_error: bool = False
    """Whether the tool could not do what was asked; ``content`` says what to do instead."""
    exit_code: int | None = None
    """Of the command that the tool ran to its end; what providers send is ``content`` alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolMessage:
    """The answers to all calls of one assistant message, in their order."""

    results: tuple[ToolResult, ...]
    kind: Literal["tool"] = "tool"


Message = UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDescription:
    """What a model is told of a tool."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON Schema of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    text: str
    kind: Literal["text_delta"] = "text_delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    text: str
    kind: Literal["reasoning_delta"] = "reasoning_delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of a call's arguments; the first one of a call may have no arguments yet."""

    call_id: str
    name: str
    arguments: str
    kind: Literal["tool_call_delta"] = "tool_call_delta"


Delta = TextDelta | ReasoningDelta | ToolCallDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """Everything that a model gets."""

    instructions: str
    messages: Sequence[Message]
    tools: Sequence[ToolDescription]
    max_output_tokens: int
