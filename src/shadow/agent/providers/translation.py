"""Our conversation as pydantic-ai's messages, and back. No I/O.

What a provider wants to see again travels in ``provider_data`` as JSON: of a message who made it (``MAKER``) and its ids; of a
part its id, signature and details.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition
from pydantic_core import to_jsonable_python

from shadow.agent.providers.sendable import MAKER, clean, clean_json
from shadow.core.conversation import (
    AssistantMessage,
    AssistantPart,
    Delta,
    FinishReason,
    Message,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolDescription,
    ToolMessage,
    Usage,
    UserMessage,
)
from shadow.core.conversation import ModelRequest as OurRequest

_FINISH: Mapping[str | None, FinishReason] = {
    "stop": FinishReason.STOP,
    "tool_call": FinishReason.TOOL_CALLS,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.REFUSED,
}
_CHARS_PER_TOKEN = 3


def to_messages(messages: Sequence[Message], *, instructions: str) -> list[ModelMessage]:
    """``messages`` as ``sendable`` makes them."""
    made: list[ModelMessage] = []
    parts: list[ModelRequestPart] = []
    for message in messages:
        match message:
            case UserMessage():
                parts.append(UserPromptPart(content=message.text))
            case ToolMessage():
                parts += [
                    ToolReturnPart(
                        tool_name=result.name,
                        content=result.content,
                        tool_call_id=result.call_id,
                        outcome="failed" if result.is_error else "success",
                    )
                    for result in message.results
                ]
            case AssistantMessage():
                made += [ModelRequest(parts=parts, instructions=instructions), to_response(message)]
                parts = []
    return [*made, ModelRequest(parts=parts, instructions=instructions)]


def to_response(message: AssistantMessage) -> ModelResponse:
    data = message.provider_data or {}
    return ModelResponse(
        parts=[_to_part(part) for part in message.parts],
        model_name=message.model,
        provider_name=data.get("provider"),
        provider_url=data.get("url"),
        canonical_system=data.get("system"),
        provider_response_id=data.get("response_id"),
    )


def _to_part(part: AssistantPart) -> ModelResponsePart:
    data = part.provider_data or {}
    id_, by, details = data.get("id"), data.get("provider"), data.get("details")
    match part:
        case Text():
            return TextPart(content=part.text, id=id_, provider_name=by, provider_details=details)
        case Reasoning():
            return ThinkingPart(
                content=part.text,
                id=id_,
                signature=data.get("signature"),
                provider_name=by,
                provider_details=details,
            )
        case ToolCall():
            return ToolCallPart(
                tool_name=part.name,
                args=part.arguments,
                tool_call_id=part.id,
                id=id_,
                provider_name=by,
                provider_details=details,
            )


def to_parameters(tools: Sequence[ToolDescription]) -> ModelRequestParameters:
    definitions = [
        ToolDefinition(
            name=tool.name,
            description=clean(tool.description),
            parameters_json_schema=clean_json(dict(tool.parameters)),
        )
        for tool in tools
    ]
    return ModelRequestParameters(function_tools=definitions)


def from_response(response: ModelResponse, *, maker: str, request: OurRequest) -> AssistantMessage:
    """What was answered. A provider that counts no tokens is counted for by an upper estimate: a limit has to hold."""
    parts = tuple(part for part in map(_from_part, response.parts) if part is not None)
    finish = _FINISH.get(response.finish_reason, FinishReason.UNKNOWN)
    if finish is FinishReason.STOP and any(isinstance(part, ToolCall) for part in parts):
        finish = FinishReason.TOOL_CALLS
    details = dict(response.provider_details or {})
    refusal = details.get("refusal")
    if finish is FinishReason.REFUSED and isinstance(refusal, str) and refusal and not parts:
        parts = (Text(text=clean(refusal)),)
    data = {
        "provider": response.provider_name,
        "url": response.provider_url,
        "system": response.canonical_system,
        "response_id": response.provider_response_id,
        "details": details,
    }
    used = response.usage
    usage = Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.cache_read_tokens,
        cache_write_tokens=used.cache_write_tokens,
    )
    return AssistantMessage(
        parts=parts,
        model=response.model_name or "",
        usage=usage if used.input_tokens or used.output_tokens else _estimated(request, parts),
        finish=finish,
        provider_data={MAKER: maker, **_json_of(data)},
    )


def _from_part(part: ModelResponsePart) -> AssistantPart | None:
    match part:
        case TextPart():
            return Text(text=clean(part.content), provider_data=_data_of(part))
        case ThinkingPart():
            return Reasoning(text=clean(part.content), provider_data=_data_of(part, signature=part.signature))
        case ToolCallPart():
            arguments = _arguments(part.args)
            return ToolCall(
                id=part.tool_call_id, name=clean(part.tool_name), arguments=arguments, provider_data=_data_of(part)
            )
        case _:
            return None  # of tools that run at the provider, which no request asks for


def _data_of(part: TextPart | ThinkingPart | ToolCallPart, *, signature: str | None = None) -> Mapping[str, Any] | None:
    data = {
        "id": part.id,
        "signature": signature,
        "provider": part.provider_name,
        "details": part.provider_details,
    }
    return _json_of(data) or None


def _json_of(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if value is not None and value != {}}
    return clean_json(to_jsonable_python(kept, fallback=str))


def _arguments(args: str | Mapping[str, Any] | None) -> str:
    return clean(args) if isinstance(args, str) else "" if args is None else json.dumps(dict(args))


def _estimated(request: OurRequest, parts: Sequence[AssistantPart]) -> Usage:
    given = len(request.instructions) + sum(len(json.dumps(dict(tool.parameters))) for tool in request.tools)
    for message in request.messages:
        match message:
            case UserMessage():
                given += len(message.text)
            case AssistantMessage():
                given += sum(map(_length, message.parts))
            case ToolMessage():
                given += sum(len(result.content) for result in message.results)
    said = sum(map(_length, parts))
    return Usage(input_tokens=given // _CHARS_PER_TOKEN + 1, output_tokens=said // _CHARS_PER_TOKEN + 1)


def _length(part: AssistantPart) -> int:
    return len(part.arguments) if isinstance(part, ToolCall) else len(part.text)


@dataclass(slots=True)
class Deltas:
    """The pieces that the events of one stream bring."""

    _calls: dict[int, tuple[str, str]] = field(default_factory=dict[int, tuple[str, str]])
    """Id and name of the call that is part ``index``."""

    def of(self, event: ModelResponseStreamEvent) -> Iterator[Delta]:
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                if text:
                    yield TextDelta(text=clean(text))
            case (
                PartStartEvent(part=ThinkingPart(content=text))
                | PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text))
            ):
                if text:
                    yield ReasoningDelta(text=clean(text))
            case PartStartEvent(index=index, part=ToolCallPart() as call):
                self._calls[index] = (call.tool_call_id, clean(call.tool_name))
                yield from self._of_call(index, call.args)
            case PartDeltaEvent(index=index, delta=ToolCallPartDelta() as delta) if index in self._calls:
                if delta.args_delta:
                    yield from self._of_call(index, delta.args_delta)
            case _:
                pass

    def _of_call(self, index: int, args: str | Mapping[str, Any] | None) -> Iterator[Delta]:
        id_, name = self._calls[index]
        yield ToolCallDelta(call_id=id_, name=name, arguments=_arguments(args))
