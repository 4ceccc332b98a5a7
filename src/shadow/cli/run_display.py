"""A run as it happens: calm lines for a person, plain ones where no terminal reads them, or one JSON event a line."""

import json
import sys
from dataclasses import asdict
from typing import Any, assert_never, cast

from shadow.cli.outcome import wants_colour
from shadow.cli.text import span
from shadow.core.events import (
    AttemptFailed,
    CallAdded,
    CheckFinished,
    CheckpointFailed,
    CheckpointTaken,
    CommandOutput,
    CommandStarted,
    ConversationCompacted,
    EgressSeen,
    ModelAnswered,
    ModelAsked,
    ModelRequestFailed,
    QueueChanged,
    RolledBack,
    RunFinished,
    RunStarted,
    StateChanged,
    StepFailed,
    StepFinished,
    StepStarted,
    TaskCreated,
    TaskEvent,
    TaskFailed,
    TextAdded,
    TodoChanged,
    ToolFinished,
    ToolStarted,
    WorkCommitted,
    WorkDelivered,
    WorkspaceAway,
)
from shadow.terminal.neutral import printable

ARGUMENT_CHARS = 90
OUTPUT_LINES = 12
_COLOURS = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_MARKS = {"pending": "○", "in_progress": "◐", "done": "●"}


class JsonLines:
    """For programs: each event as it is told, one object a line on stdout."""

    def __call__(self, event: TaskEvent) -> None:
        sys.stdout.write(json.dumps(asdict(event), ensure_ascii=True) + "\n")
        sys.stdout.flush()


class Lines:
    """For people, on stdout. Text of the model and of commands is made harmless for the terminal."""

    def __init__(self) -> None:
        self._colour = wants_colour(sys.stdout.isatty())
        self._open = ""
        """What the unfinished line holds: ``text``, ``reasoning``, ``output``, or nothing."""
        self._shown_lines: dict[str, int] = {}
        self._failure = ""
        """What the last step that failed said."""

    def __call__(self, event: TaskEvent) -> None:
        match event:
            case TaskCreated():
                self._line(f"Task: {printable(event.instruction)[:200]}", "bold")
                self._line(f"{printable(event.repository)} · {event.model}", "dim")
            case StepFinished():
                detail = f"  {printable(event.detail)}" if event.detail else ""
                self._line(f"✓ {event.name:<20} {event.took_ms:>6.0f} ms{detail}", "dim")
            case StepFailed():
                said = "as before" if event.message == self._failure else printable(event.message)
                self._failure = event.message
                self._line(f"✗ {event.name:<20} {event.took_ms:>6.0f} ms  {said}", "red")
            case AttemptFailed():
                said = "" if event.message == self._failure else f"{printable(event.message)[:200]}: "
                count = f"attempt {event.attempt} of {event.attempts}"
                self._line(f"… {said}{count} failed, the next is in {event.wait_s:.0f} s", "yellow")
            case RunStarted():
                self._line("")
            case TextAdded():
                self._stream(event.text, "reasoning" if event.reasoning else "text")
            case ToolStarted():
                self._line(f"→ {event.name} {_arguments(event.arguments)}", "cyan")
            case CommandOutput():
                self._output(event)
            case ToolFinished():
                self._tool_finished(event)
            case WorkspaceAway():
                done = "it was not done" if event.code == "unavailable" else "nobody can know whether it was done"
                self._line(f"! the workspace does not answer, {done}: {printable(event.message)[:200]}", "yellow")
            case TodoChanged():
                for item in event.items:
                    self._line(f"  {_MARKS[item.status]} {printable(item.text)}", "dim")
            case ModelRequestFailed():
                again = "; asking again" if event.repeat_is_safe else ""
                self._line(f"! the model's answer failed: {printable(event.message)}{again}", "yellow")
            case ConversationCompacted():
                self._line(
                    f"! the conversation was shortened from {event.before_chars} to {event.after_chars} characters",
                    "yellow",
                )
            case EgressSeen():
                what = "allowed" if event.allowed else "REFUSED"
                style = "dim" if event.allowed else "yellow"
                self._line(f"! network: {printable(event.host)}:{event.port} {what} ({printable(event.rule)})", style)
            case CheckFinished():
                if not event.passed:  # else its step has said all
                    self._line(f"✗ check `{printable(event.command)}`: {event.ending}", "red")
                    for line in event.output.rstrip().splitlines()[-OUTPUT_LINES:]:
                        self._line(f"  │ {printable(line)}", "dim")
            case WorkCommitted():
                self._line(f"✓ committed {event.commit[:12]}: {printable(event.message.partition(chr(10))[0])}", "dim")
            case QueueChanged():
                if event.messages:
                    self._line(f"… {len(event.messages)} waiting: {printable(event.messages[0].text)[:100]}", "dim")
            case CheckpointTaken():
                self._line(f"◇ {event.checkpoint_id}", "dim")
            case CheckpointFailed():
                self._line(f"! no checkpoint: {printable(event.message)[:200]}", "yellow")
            case RolledBack():
                self._line(f"↶ back to {event.checkpoint_id}, before event {event.to_seq + 1}", "bold")
            case StateChanged() | TaskFailed() | CommandStarted():
                pass  # told by what comes before or after them
            case StepStarted() | ModelAsked() | ModelAnswered() | CallAdded() | WorkDelivered() | RunFinished():
                pass  # told by what comes after them, or by the report at the end
            case _:
                assert_never(event)

    def _tool_finished(self, event: ToolFinished) -> None:
        first = event.result.content.strip().partition("\n")[0]
        if event.result.is_error:
            self._line(f"  ✗ {printable(first)[:200]}", "yellow")
        elif event.result.name != "run_terminal_cmd":
            lines = event.result.content.count("\n") + 1
            self._line(f"  {printable(first)[:100]}{f'  (+{lines - 1} lines)' if lines > 1 else ''}", "dim")
        elif self._shown_lines.pop(event.result.call_id, 0) >= OUTPUT_LINES:
            self._line(f"  │ … {printable(event.result.content.strip().splitlines()[-1])[:160]}", "dim")

    def _output(self, event: CommandOutput) -> None:
        for line in event.text.splitlines():
            shown = self._shown_lines.get(event.call_id, 0)
            self._shown_lines[event.call_id] = shown + 1
            if shown < OUTPUT_LINES:
                self._line(f"  │ {printable(line)[:200]}", "dim")

    def _stream(self, text: str, kind: str) -> None:
        if self._open != kind:
            self._end()
            self._open = kind
        # Line ends are kept; everything else that could steer a terminal is not.
        safe = "\n".join(printable(line) for line in text.split("\n"))
        self._write(safe, "dim" if kind == "reasoning" else "")

    def _line(self, text: str, style: str = "") -> None:
        self._end()
        self._write(text, style)
        sys.stdout.write("\n")
        sys.stdout.flush()

    def _end(self) -> None:
        if self._open:
            self._open = ""
            sys.stdout.write("\n")

    def _write(self, text: str, style: str) -> None:
        if style and self._colour and text:
            text = f"\x1b[{_COLOURS[style]}m{text}\x1b[0m"
        sys.stdout.write(text)
        sys.stdout.flush()


def _arguments(text: str) -> str:
    """The arguments on one line, the long ones cut."""
    try:
        values: Any = json.loads(text or "{}")
    except ValueError:
        return printable(text)[:ARGUMENT_CHARS]
    if not isinstance(values, dict):
        return printable(text)[:ARGUMENT_CHARS]
    pairs = cast("dict[str, object]", values)
    if "command" in pairs:
        return printable(str(pairs["command"]))[: 2 * ARGUMENT_CHARS]
    shown = " ".join(f"{name}={_cut(str(value))}" for name, value in pairs.items())
    return printable(shown)[: 2 * ARGUMENT_CHARS]


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else span(seconds)
