"""A recorded run played back: the answers of its model against real tools, whose answers must be those of the recording.

Exit codes, errors and what file tools say must be the same; output of commands after ``normalising``. Like a scripted model it
keeps no place of its own: where it stands follows from the conversation.
"""

import difflib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from shadow.agent.deltas import deltas_of
from shadow.agent.model import Model
from shadow.agent.normalising import IDS, normalised
from shadow.agent.recording import RecordedAnswer, load_recording
from shadow.core.conversation import (
    AssistantMessage,
    AssistantPart,
    Delta,
    Message,
    ModelRequest,
    ToolCall,
    ToolMessage,
    ToolResult,
)
from shadow.core.errors import error_from_code
from shadow.core.events import ModelRequestFailed
from shadow.core.models import ModelError, Price
from shadow.core.secrets import Redactor

PROVIDER = "replay"
COMMAND_TOOLS = frozenset({"run_terminal_cmd", "read_command", "write_command_stdin", "stop_command"})
"""Whose answers are output of commands."""
_RUNNING = ("running in the background", "still running")
MAX_DIFF_CHARS = 6000
MAX_DIFF_LINES = 3000


class ReplayDiverged(ModelError):
    """A tool answered something else than in the recording. ``details``: ``call_id``, ``tool``, ``what``, ``diff``."""

    code = "replay_diverged"


class ReplayEnded(ModelError):
    """The run goes on, but the recording does not."""

    code = "replay_ended"


def open_replay(path: Path, *, redactor: Redactor) -> Model:
    """``replay:FILE``. ``redactor``: as when it was recorded. Raises: RecordingRefused."""
    return ReplayModel(path, redactor=redactor)


class ReplayModel(Model):
    def __init__(self, path: Path, *, redactor: Redactor) -> None:
        self._path = path
        self._redactor = redactor
        self._recording = load_recording(path)
        self._failed: Counter[int] = Counter()

    @property
    def name(self) -> str:
        return f"{PROVIDER}:{self._path}"

    @property
    def context_tokens(self) -> int:
        return self._recording.context_tokens

    @property
    def max_output_tokens(self) -> int:
        return self._recording.max_output_tokens

    @property
    def price(self) -> Price | None:
        """Nothing is asked of anybody, so it is free."""
        return Price(input=Decimal(0), output=Decimal(0))

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | AssistantMessage]:
        answers = self._recording.answers
        number = self._said(request.messages)
        self._compare(request.messages, number)
        if number < len(answers):
            self._fail_as_recorded(number, answers[number].failures)
        else:
            self._fail_as_recorded(number, self._recording.failures_at_end)
            raise ReplayEnded(
                f"{self._path}: the run goes on, but the recording ends after {len(answers)} answers.",
                mend="It was cut off there: record the run again to its end.",
            )
        recorded = answers[number].message
        ids = self._ids(request.messages, number)
        answer = replace(
            recorded,
            parts=tuple(_with_ids(part, ids) for part in recorded.parts),
            model=self.name,
            provider_data={"answer": number},
        )
        for piece in deltas_of(answer):
            yield piece
        yield answer

    def check_end(self, messages: Sequence[Message]) -> None:
        self._compare(messages, self._said(messages))

    async def aclose(self) -> None:
        pass

    def _said(self, messages: Sequence[Message]) -> int:
        for message in reversed(messages):
            if isinstance(message, AssistantMessage) and message.model == self.name and message.provider_data:
                return int(message.provider_data["answer"]) + 1
        return 0

    def _fail_as_recorded(self, number: int, failures: Sequence[ModelRequestFailed]) -> None:
        """Failures that were waited out and repeated are passed over; what the run had to react to happens again."""
        lasting = [failure for failure in failures if not failure.repeat_is_safe]
        position = self._failed[number]
        if position < len(lasting):
            self._failed[number] += 1
            failure = lasting[position]
            raise error_from_code(failure.code, failure.message, mend=None, details={})

    def _ids(self, messages: Sequence[Message], number: int) -> dict[str, str]:
        """What ids of the recording (of commands above all) are called now."""
        found: dict[str, str] = {}
        for recorded, actual in _pairs(self._recording.answers[:number], messages):
            before, now = IDS.findall(recorded.content), IDS.findall(actual.content)
            if len(before) == len(now):
                found.update(zip(before, now, strict=True))
        return found

    def _compare(self, messages: Sequence[Message], number: int) -> None:
        """The tools' answers to the last answer of the model. Raises: ReplayDiverged."""
        if number == 0:
            return
        answer = self._recording.answers[number - 1]
        actual = _results_behind(messages, self.name)
        for call in answer.message.calls:
            recorded, now = answer.results.get(call.id), actual.get(call.id)
            if recorded is None or now is None:
                raise self._diverged(call, "has no answer", recorded, now)
            now = replace(now, content=self._redactor.text(now.content))
            what = _difference(recorded, now)
            if what is not None:
                raise self._diverged(call, what, recorded, now)

    def _diverged(
        self, call: ToolCall, what: str, recorded: ToolResult | None, now: ToolResult | None
    ) -> ReplayDiverged:
        diff = _diff(recorded, now)
        return ReplayDiverged(
            f"{self._path}: `{call.name}` ({call.id}) {what}. Recorded and now:\n{diff}",
            mend="If the new answer is right, record the run again.",
            details={"call_id": call.id, "tool": call.name, "what": what, "diff": diff},
        )


def _results_behind(messages: Sequence[Message], model: str) -> dict[str, ToolResult]:
    """The tools' answers behind the last message of ``model``."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, AssistantMessage) and message.model == model:
            following = messages[index + 1] if index + 1 < len(messages) else None
            return {r.call_id: r for r in following.results} if isinstance(following, ToolMessage) else {}
    return {}


def _pairs(answers: Sequence[RecordedAnswer], messages: Sequence[Message]) -> list[tuple[ToolResult, ToolResult]]:
    """Recorded and actual results, as far as the conversation still has them. Ids of calls may come back in later steps."""
    pairs: list[tuple[ToolResult, ToolResult]] = []
    for message, following in pairwise(messages):
        if not (isinstance(message, AssistantMessage) and isinstance(following, ToolMessage)):
            continue
        number = (message.provider_data or {}).get("answer")
        if isinstance(number, int) and number < len(answers):
            recorded = answers[number].results
            pairs.extend((recorded[r.call_id], r) for r in following.results if r.call_id in recorded)
    return pairs


def _with_ids(part: AssistantPart, ids: dict[str, str]) -> AssistantPart:
    if not isinstance(part, ToolCall):
        return part
    return replace(part, arguments=IDS.sub(lambda found: ids.get(found[0], found[0]), part.arguments))


def _difference(recorded: ToolResult, now: ToolResult) -> str | None:
    if recorded.is_error is not now.is_error:
        return "refuses what it did before" if now.is_error else "does what it refused before"
    if recorded.exit_code != now.exit_code:
        return "ends with another exit code"
    if _comparable(recorded) != _comparable(now):
        return "answers something else"
    return None


def _comparable(result: ToolResult) -> str:
    if result.name not in COMMAND_TOOLS:
        return result.content
    if result.content.startswith(_RUNNING):
        # How far a command that runs has come depends on the moment.
        return next(state for state in _RUNNING if result.content.startswith(state))
    return normalised(result.content)


def _diff(recorded: ToolResult | None, now: ToolResult | None) -> str:
    before, after = _lines(recorded), _lines(now)
    diff = "\n".join(difflib.unified_diff(before, after, "recorded", "now", lineterm=""))
    if len(diff) > MAX_DIFF_CHARS:
        diff = f"{diff[:MAX_DIFF_CHARS]}\n[… {len(diff) - MAX_DIFF_CHARS} more characters]"
    return diff


def _lines(result: ToolResult | None) -> list[str]:
    if result is None:
        return ["(no answer)"]
    code = "none" if result.exit_code is None else result.exit_code
    head = f"is_error: {str(result.is_error).lower()}, exit code: {code}"
    return [head, *_comparable(result).split("\n")[:MAX_DIFF_LINES]]
