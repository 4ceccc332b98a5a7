"""A run on record, to be played back: what the model answered and what the tools answered, as JSON lines, secrets removed.

The first line says the version and what the model was; each other line is an event of the task's log. Lines are appended one by
one as things happen, so that a crash leaves the beginning of the run; a last line without its end does not count.
"""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shadow.agent.model import Model
from shadow.core.conversation import AssistantMessage, ToolResult
from shadow.core.errors import AlreadyExists, Denied, LimitExceeded, Rejected, ShadowError
from shadow.core.events import ModelAnswered, ModelRequestFailed, RunStarted, TaskEvent, ToolFinished
from shadow.core.secrets import Redactor
from shadow.db.codec import decode_event

VERSION = 1
MAX_BYTES = 512 * 1024 * 1024
_KEPT = RunStarted | ModelAnswered | ModelRequestFailed | ToolFinished


class RecordingRefused(Rejected):
    """A recording that cannot be read: not there, damaged, or of a newer version."""

    code = "recording_refused"


class Recorder:
    """Gets the events of a run (it is a watcher of its log) and writes those that a replay needs."""

    def __init__(self, descriptor: int, redactor: Redactor) -> None:
        self._descriptor = descriptor
        self._redactor = redactor
        self._size = 0
        self.failure: OSError | None = None
        """What kept it from going on. The run does not end for that; whoever opened the recording is told."""

    def __call__(self, event: TaskEvent) -> None:
        if isinstance(event, _KEPT):
            self.write(self._redactor.value(asdict(event)))

    def write(self, value: dict[str, Any]) -> None:
        if self.failure is not None:
            return
        line = json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            self.failure = error
            os.ftruncate(self._descriptor, self._size)
        else:
            self._size += len(line)


@contextmanager
def open_recording(path: Path, *, model: Model, redactor: Redactor) -> Generator[Recorder]:
    """A new file for its user alone. Raises: AlreadyExists, Denied; at the end of the block LimitExceeded (disk full)."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise AlreadyExists(f"{path} is there already.", mend="Record into a new file.") from error
    except OSError as error:
        raise Denied(f"{path} cannot be written: {error.strerror}.", mend="Record into another directory.") from error
    try:
        recorder = Recorder(descriptor, redactor)
        recorder.write(
            {
                "shadow_recording": VERSION,
                "model": model.name,
                "context_tokens": model.context_tokens,
                "max_output_tokens": model.max_output_tokens,
            }
        )
        yield recorder
        if recorder.failure is not None:
            raise LimitExceeded(
                f"{path} is not complete: {recorder.failure.strerror}.",
                mend="What is there can be replayed up to its end.",
            )
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAnswer:
    """One answer of the model, what had failed before it, and what the tools answered to its calls, by the calls' ids."""

    message: AssistantMessage
    failures: tuple[ModelRequestFailed, ...]
    results: dict[str, ToolResult] = field(default_factory=dict[str, ToolResult])


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    model: str
    context_tokens: int
    max_output_tokens: int
    answers: tuple[RecordedAnswer, ...]
    failures_at_end: tuple[ModelRequestFailed, ...]


def load_recording(path: Path) -> Recording:
    """Raises: RecordingRefused: with the line that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecordingRefused(f"The recording {path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise RecordingRefused(f"The recording {path} is larger than {MAX_BYTES} bytes.")
    whole, _, _torn = data.rpartition(b"\n")
    head, *lines = whole.split(b"\n")
    answers: list[RecordedAnswer] = []
    failures: list[ModelRequestFailed] = []
    facts = _head(path, head)
    for number, line in enumerate(lines, 2):
        match _event(path, number, line):
            case ModelAnswered(message=message):
                answers.append(RecordedAnswer(message=message, failures=tuple(failures)))
                failures = []
            case ModelRequestFailed() as failure:
                failures.append(failure)
            case ToolFinished(result=result):
                if not answers or result.call_id not in {call.id for call in answers[-1].message.calls}:
                    raise _damaged(path, number, "a tool answers that nobody called")
                answers[-1].results[result.call_id] = result
            case _:
                pass
    return Recording(**facts, answers=tuple(answers), failures_at_end=tuple(failures))


def _head(path: Path, line: bytes) -> dict[str, Any]:
    value = _json(path, 1, line)
    if not isinstance(value.get("shadow_recording"), int):
        raise _damaged(path, 1, "this is no recording of Shadow")
    if value["shadow_recording"] > VERSION:
        raise RecordingRefused(
            f"{path} was made by a newer version.", mend="Use the Shadow that made it, or a newer one."
        )
    try:
        return {
            "model": str(value["model"]),
            "context_tokens": int(value["context_tokens"]),
            "max_output_tokens": int(value["max_output_tokens"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, 1, "what the model was is missing") from error


def _event(path: Path, number: int, line: bytes) -> TaskEvent:
    value = _json(path, number, line)
    try:
        return decode_event(str(value.get("kind")), line.decode())
    except ShadowError as error:
        raise _damaged(path, number, error.message) from error


def _json(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, "not JSON") from error
    if not isinstance(value, dict):
        raise _damaged(path, number, "not an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _damaged(path: Path, line: int, what: str) -> RecordingRefused:
    return RecordingRefused(f"{path}:{line}: {what}.", mend="Record the run again.", details={"line": line})
