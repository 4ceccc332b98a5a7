"""The agent's tools on an executor, called as a model calls them; keeps what they tell."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shadow.agent.toolbox import Bench, Called, Toolbox
from shadow.agent.tools.all import make_tools
from shadow.core.conversation import ToolCall, ToolResult
from shadow.core.errors import Unsupported
from shadow.core.events import CommandOutput, TaskEvent
from shadow.core.ids import Operation, OperationId
from shadow.execution.interface import ToolExecutor
from tests.support.implementations import OPENERS

KINDS = ("host", "sandbox")


@dataclass
class ToolBench:
    executor: ToolExecutor
    told: list[TaskEvent] = field(default_factory=list[TaskEvent])

    def __post_init__(self) -> None:
        self._calls = 0
        self.bench = Bench(
            executor=self.executor, told=self.told.append, operation=self._operation, clock=time.monotonic
        )
        self.toolbox = Toolbox(make_tools(), self.bench)

    def _operation(self, call_id: str) -> Operation:
        digest = hashlib.sha256(f"{id(self)} {call_id}".encode()).hexdigest()[:32]
        return Operation(id=OperationId(f"op_{digest}"), epoch=self.executor.epoch)

    async def called(self, tool: str, *, call_id: str | None = None, **arguments: object) -> Called:
        self._calls += 1
        call = ToolCall(id=call_id or f"Call/{self._calls}", name=tool, arguments=json.dumps(arguments))
        async with asyncio.timeout(60):
            return await self.toolbox.call(call)

    async def __call__(self, tool: str, *, call_id: str | None = None, **arguments: object) -> ToolResult:
        called = await self.called(tool, call_id=call_id, **arguments)
        assert not called.is_fault, called.result.content
        return called.result

    async def text(self, tool: str, **arguments: object) -> str:
        """What a call answers that must go well."""
        result = await self(tool, **arguments)
        assert not result.is_error, result.content
        return result.content

    async def error(self, tool: str, **arguments: object) -> str:
        """What a call answers that must be refused."""
        result = await self(tool, **arguments)
        assert result.is_error, result.content
        return result.content

    async def write(self, path: str, content: bytes | str) -> None:
        await self.executor.write_file(path, content.encode() if isinstance(content, str) else content)

    async def read(self, path: str) -> bytes:
        return (await self.executor.read_file(path)).content

    @property
    def output(self) -> list[CommandOutput]:
        return [event for event in self.told if isinstance(event, CommandOutput)]


@asynccontextmanager
async def open_bench(kind: str, directory: Path) -> AsyncGenerator[ToolBench]:
    """Skips with the reason where this host cannot make such a workspace."""
    try:
        opened = OPENERS[kind](directory)
        executor = await opened.__aenter__()
    except Unsupported as reason:
        pytest.skip(str(reason))
    try:
        yield ToolBench(executor)
    finally:
        await opened.__aexit__(None, None, None)
