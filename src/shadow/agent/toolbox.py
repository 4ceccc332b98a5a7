"""The tools of a run: what the model is told of them, and one way to call any of them."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from shadow.core.conversation import ToolCall, ToolDescription, ToolResult
from shadow.core.errors import OutcomeUnknown, ShadowError, Unavailable
from shadow.core.events import MAX_EXCERPT_CHARS, CommandStarted, TaskEvent, TodoItem, WorkspaceAway
from shadow.core.ids import Operation
from shadow.execution.interface import ToolExecutor

Told = Callable[[TaskEvent], None]
A = TypeVar("A", bound=BaseModel)

MAX_ERROR_CHARS = 4000
"""Errors quote what was asked for, which may be long."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """What the tools of one run share."""

    executor: ToolExecutor
    told: Told
    """Gets events while a tool works: output of its command, a changed list of things to do."""
    operation: Callable[[str], Operation]
    """The operation of a call, by the call's id: the same each time, so that a repeat is answered with the first result."""
    clock: Callable[[], float]
    step: int = 0
    """Which answer of the model the calls belong to: providers may use an id of a call again in a later one."""
    todo: tuple[TodoItem, ...] = ()
    commands: list[str] = field(default_factory=list[str])
    """Ids of the commands that this run started."""
    stopping: bool = False
    """What runs is to be ended: the run was stopped, or has taken too long."""
    told_to: dict[str, int] = field(default_factory=dict[str, int])
    """By call: the end of the output that was told before the run was taken up again."""

    def started(self, command_id: str, *, call_id: str, background: bool) -> None:
        if command_id not in self.commands:
            self.commands.append(command_id)
            self.told(CommandStarted(call_id=call_id, command_id=command_id, background=background))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tool says to the model, bounded."""

    content: str
    is_error: bool = False
    exit_code: int | None = None
    """Where a command ran and exited by itself; scripts and replays hold a run to it."""
    failure: ShadowError | None = None
    """What the executor raised, where this tells of it."""


class Tool(ABC, Generic[A]):
    """One tool. ``arguments`` is the model of its arguments; their field descriptions are the model's documentation."""

    name: str
    arguments: type[A]
    changes: bool = True
    """Whether it may change something: then it runs alone and in its turn."""

    @property
    @abstractmethod
    def description(self) -> str: ...

    @abstractmethod
    async def call(self, arguments: A, bench: Bench, *, call_id: str) -> Answer:
        """Raises: ShadowError: told to the model with its mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    result: ToolResult
    is_fault: bool
    """Whether the call itself was wrong: no such tool, or arguments that are none."""


class Toolbox:
    def __init__(self, tools: Sequence[Tool[Any]], bench: Bench) -> None:
        self._tools: Mapping[str, Tool[Any]] = {tool.name: tool for tool in tools}
        self.bench = bench
        self.descriptions = tuple(
            ToolDescription(name=tool.name, description=tool.description, parameters=_schema(tool.arguments))
            for tool in tools
        )

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._tools)

    def only_reads(self, name: str) -> bool:
        tool = self._tools.get(name)
        return tool is not None and not tool.changes

    async def call(self, call: ToolCall) -> Called:
        """Never raises for what the model did wrong or what the workspace refused: that is an answer."""
        tool = self._tools.get(call.name)
        if tool is None:
            return _fault(call, f"There is no tool {call.name[:100]!r}. There are: {', '.join(sorted(self._tools))}.")
        try:
            given = json.loads(call.arguments or "{}")
        except (ValueError, RecursionError) as error:
            return _fault(call, f"The arguments are not JSON: {error}. Call it again with one JSON object.")
        try:
            arguments = tool.arguments.model_validate(given)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'arguments'}: {f['msg']}" for f in error.errors()[:5])
            faults = faults[:MAX_ERROR_CHARS]
            return _fault(call, f"The arguments are not right: {faults}. Call it again with them corrected.")
        try:
            answer = await tool.call(arguments, self.bench, call_id=call.id)
        except (Unavailable, OutcomeUnknown) as error:
            answer = Answer(content=_away(error), is_error=True, failure=error)
        except ShadowError as error:
            answer = Answer(content=str(error)[:MAX_ERROR_CHARS], is_error=True, failure=error)
        if isinstance(answer.failure, Unavailable | OutcomeUnknown):
            self.bench.told(_event(call, answer.failure))
        result = ToolResult(
            call_id=call.id,
            name=call.name,
            content=answer.content,
            is_error=answer.is_error,
            exit_code=answer.exit_code,
        )
        return Called(result=result, is_fault=False)


def _away(error: Unavailable | OutcomeUnknown) -> str:
    """For the model, which cannot attach to anything: what it can do."""
    said = error.message[:MAX_ERROR_CHARS]
    if isinstance(error, OutcomeUnknown):
        return f"outcome unknown: {said} Look at what is there before you do it again."
    wait_s = _retry_in_s(error)
    later = f" in {wait_s:.0f} s (not before)" if wait_s else ""
    return (
        f"unavailable: {said} Nothing was done. The workspace may come back: call it again{later}. If it stays away, call "
        "finish with success=false and say so."
    )


def _event(call: ToolCall, error: Unavailable | OutcomeUnknown) -> WorkspaceAway:
    return WorkspaceAway(
        call_id=call.id,
        code="outcome_unknown" if isinstance(error, OutcomeUnknown) else "unavailable",
        message=error.message[:MAX_EXCERPT_CHARS],
        retry_in_s=_retry_in_s(error),
    )


def _retry_in_s(error: ShadowError) -> float | None:
    wait_s = error.details.get("retry_in_s")
    return float(wait_s) if isinstance(wait_s, int | float) else None


def _fault(call: ToolCall, content: str) -> Called:
    """``content`` may quote half characters of the call, which no provider takes back."""
    content = content.encode("utf-8", "backslashreplace").decode()
    result = ToolResult(call_id=call.id, name=call.name, content=content, is_error=True)
    return Called(result=result, is_fault=True)


@cache
def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    schema = arguments.model_json_schema()
    schema.pop("title", None)
    for value in schema.get("properties", {}).values():
        value.pop("title", None)
    return schema
