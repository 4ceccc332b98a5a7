"""A model that says what a file says: for demonstrations, tests, and the CI of others. No key, no network, no cost.

It keeps no place of its own: which step is next follows from the conversation, so that a task can be continued by another
process. Only the faults that a script injects are counted here.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

from pydantic import JsonValue

from shadow.agent.deltas import deltas_of
from shadow.agent.model import Model
from shadow.agent.script_file import Expectation, Fault, FaultKind, ScriptedCall, ScriptFile, Step, load_script
from shadow.core.conversation import (
    AssistantMessage,
    AssistantPart,
    Delta,
    FinishReason,
    Message,
    ModelRequest,
    Reasoning,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
)
from shadow.core.errors import ShadowError
from shadow.core.models import (
    ContentRefused,
    ContextTooLong,
    ModelError,
    ModelKeyRefused,
    ModelOverloaded,
    ModelQuotaExceeded,
    ModelRateLimited,
    ModelUnreachable,
    Price,
)

PROVIDER = "scripted"
MAX_SHOWN_CHARS = 2000


class ScriptExpectationFailed(ModelError):
    """``details``: ``file``, ``line``, ``call_id``, ``tool``, ``wanted`` and ``got``."""

    code = "script_expectation_failed"


class ScriptEnded(ModelError):
    """The run goes on, but the script has no further step."""

    code = "script_ended"


def open_scripted(path: Path) -> Model:
    """``scripted:FILE``. Raises: ScriptRefused."""
    return ScriptedModel(load_script(path))


class ScriptedModel(Model):
    def __init__(self, file: ScriptFile) -> None:
        self._file = file
        self._steps = file.script.steps
        self._faults: Counter[int] = Counter()
        # Ids of calls are unique in a task, also where it is continued with another script.
        self._id_prefix = f"call_{sha256(self.name.encode(errors='surrogateescape')).hexdigest()[:8]}"

    @property
    def name(self) -> str:
        return f"{PROVIDER}:{self._file.path}"

    @property
    def context_tokens(self) -> int:
        return self._file.script.model.context_tokens

    @property
    def max_output_tokens(self) -> int:
        return self._file.script.model.max_output_tokens

    @property
    def price(self) -> Price | None:
        price = self._file.script.model.price
        if price is None:
            return None
        return Price(input=price.input, output=price.output, cache_read=price.cache_read, cache_write=price.cache_write)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | AssistantMessage]:
        number = self._said(request.messages)
        self._check(request.messages, number)
        if number >= len(self._steps):
            raise ScriptEnded(
                f"{self._file.path}: the run goes on, but the script has only {len(self._steps)} steps.",
                mend="Let its last step call `finish`, or say something without a call.",
            )
        step = self._steps[number]
        await asyncio.sleep(step.delay_s)
        answer = self._answer(step, number, self._captured(request.messages, number))
        pieces = list(deltas_of(answer))
        fault = step.fault
        if fault is not None and self._faults[number] < fault.times:
            self._faults[number] += 1
            if fault.kind is FaultKind.CUT:
                for piece in islice(pieces, (len(pieces) + 1) // 2):
                    yield piece
            raise _error_of(fault)
        for piece in pieces:
            await asyncio.sleep(self._file.script.model.pace_s)
            yield piece
        yield answer

    def check_end(self, messages: Sequence[Message]) -> None:
        self._check(messages, self._said(messages))

    async def aclose(self) -> None:
        pass

    def _said(self, messages: Sequence[Message]) -> int:
        """How many steps of this script the conversation has."""
        for message in reversed(messages):
            if isinstance(message, AssistantMessage) and message.model == self.name and message.provider_data:
                return int(message.provider_data["step"]) + 1
        return 0

    def _id(self, step: int, call: int) -> str:
        return f"{self._id_prefix}_{step + 1}_{call + 1}"

    def _answer(self, step: Step, number: int, captured: dict[str, str]) -> AssistantMessage:
        parts: list[AssistantPart] = []
        if step.reasoning:
            parts.append(Reasoning(text=step.reasoning))
        if step.text:
            parts.append(Text(text=step.text))
        for index, call in enumerate(step.calls):
            arguments = _filled(call.arguments, captured)
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            parts.append(ToolCall(id=self._id(number, index), name=call.tool, arguments=text))
        finish = FinishReason.TOOL_CALLS if step.calls else FinishReason.STOP
        return AssistantMessage(
            parts=tuple(parts),
            model=self.name,
            usage=Usage(
                input_tokens=step.tokens.input,
                output_tokens=step.tokens.output,
                cache_read_tokens=step.tokens.cache_read,
                cache_write_tokens=step.tokens.cache_write,
            ),
            finish=FinishReason(step.finish) if step.finish else finish,
            provider_data={"step": number},
        )

    def _captured(self, messages: Sequence[Message], number: int) -> dict[str, str]:
        """What the named groups of ``matches`` found in the answers so far."""
        results = _results_by_id(messages)
        found: dict[str, str] = {}
        for position, step in enumerate(self._steps[:number]):
            for index, call in enumerate(step.calls):
                result = results.get(self._id(position, index))
                if result and call.expect and call.expect.matches:
                    match = re.search(call.expect.matches, result.content, re.MULTILINE)
                    found |= {
                        name: text for name, text in (match.groupdict() if match else {}).items() if text is not None
                    }
        return found

    def _check(self, messages: Sequence[Message], number: int) -> None:
        """Hold what the tools answered to the last step against what it expects. Raises: ScriptExpectationFailed."""
        if number == 0:
            return
        results = _results_by_id(messages)
        for index, call in enumerate(self._steps[number - 1].calls):
            result = results.get(self._id(number - 1, index))
            if call.expect is None:
                continue
            wanted = "an answer" if result is None else _unmet(call.expect, result)
            if wanted is not None:
                line = self._file.line("steps", number - 1, "calls", index, "expect")
                raise self._failed(call, self._id(number - 1, index), line, wanted, result)

    def _failed(
        self, call: ScriptedCall, call_id: str, line: int, wanted: str, result: ToolResult | None
    ) -> ScriptExpectationFailed:
        got = "nothing" if result is None else _shown(result)
        return ScriptExpectationFailed(
            f"{self._file.path}:{line}: `{call.tool}` did not answer as the script expects.\nWanted: {wanted}\nGot: {got}",
            details={
                "file": str(self._file.path),
                "line": line,
                "call_id": call_id,
                "tool": call.tool,
                "wanted": wanted,
                "got": got,
            },
        )


def _results_by_id(messages: Sequence[Message]) -> dict[str, ToolResult]:
    return {r.call_id: r for message in messages if isinstance(message, ToolMessage) for r in message.results}


def _unmet(expect: Expectation, result: ToolResult) -> str | None:
    """The first thing that is not as expected, in words."""
    if expect.is_error is not None and result.is_error is not expect.is_error:
        return (
            "a refusal of the tool (is_error: true)" if expect.is_error else "no refusal of the tool (is_error: false)"
        )
    if expect.exit_code is not None and result.exit_code != expect.exit_code:
        return f"exit code {expect.exit_code}"
    for text in expect.contains:
        if text not in result.content:
            return f"a text that contains {text!r}"
    for text in expect.lacks:
        if text in result.content:
            return f"a text without {text!r}"
    if expect.matches is not None and not re.search(expect.matches, result.content, re.MULTILINE):
        return f"a text that matches {expect.matches!r}"
    return None


def _shown(result: ToolResult) -> str:
    text, half = result.content, MAX_SHOWN_CHARS // 2
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[:half]}\n[… {len(text) - 2 * half} characters …]\n{text[-half:]}"
    code = "none" if result.exit_code is None else result.exit_code
    return f"is_error: {str(result.is_error).lower()}, exit code: {code}, text:\n{text}"


def _filled(value: JsonValue, captured: dict[str, str]) -> JsonValue:
    """``${name}`` in texts becomes what was captured under that name; any other ``${…}`` is the shell's."""
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda match: captured.get(match[1], match[0]), value)
    if isinstance(value, dict):
        return {key: _filled(item, captured) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, captured) for item in value]
    return value


def _error_of(fault: Fault) -> ShadowError:
    details = {} if fault.retry_after_s is None else {"retry_after_s": fault.retry_after_s}
    return _ERRORS[fault.kind](f"The script makes this step fail: {fault.kind}.", details=details)


_ERRORS: dict[FaultKind, Callable[..., ShadowError]] = {
    FaultKind.RATE_LIMIT: ModelRateLimited,
    FaultKind.OVERLOADED: ModelOverloaded,
    FaultKind.CUT: ModelUnreachable,
    FaultKind.QUOTA: ModelQuotaExceeded,
    FaultKind.KEY_REFUSED: ModelKeyRefused,
    FaultKind.CONTEXT_TOO_LONG: ContextTooLong,
    FaultKind.CONTENT_REFUSED: ContentRefused,
}
