"""Terminals of the host executor: asked of the holder, what they show read from the byte logs that it writes."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any

from shadow.core.errors import NotFound, Rejected
from shadow.core.ids import CommandId, Operation, TerminalId, is_id, is_terminal_id, make_id
from shadow.core.terminals import Terminal, TerminalSize, TerminalSpec, check_terminal_spec, check_writes
from shadow.execution.holder.log_files import LogReader
from shadow.execution.host.described import terminal_of
from shadow.execution.host.holder_client import HolderClient
from shadow.execution.host.recordings import record
from shadow.execution.host.terminal_feed import TerminalFeed
from shadow.execution.host.terminal_reader import TerminalReader
from shadow.execution.interface import TerminalAttachment, TerminalEvent

DEFAULT_ENV: Mapping[str, str] = {"TERM": "xterm-256color"}
TYPED_PIECE_BYTES = 64 * 1024


class HostTerminals:
    """What ``ToolExecutor`` says of terminals. ``cwd`` in a spec has been checked and is relative to the root."""

    def __init__(self, holder: HolderClient, *, state_dir: str) -> None:
        self._holder = holder
        self._logs = os.path.join(state_dir, "commands")
        self._feeds: dict[TerminalId, TerminalFeed] = {}

    async def create(self, spec: TerminalSpec, operation: Operation) -> Terminal:
        check_terminal_spec(spec)
        fields: dict[str, Any] = {
            "spec": {
                "argv": spec.argv,
                "cwd": spec.cwd,
                "env": {**DEFAULT_ENV, **spec.env},
                "stdin": "open",
                "timeout_s": None,
                "log_limit_bytes": spec.log_limit_bytes,
                "overflow": "drop_oldest",
            },
            **_size(spec.size),
            "operation": operation.id,
            "epoch": operation.epoch,
            "wait_s": None,
        }
        return terminal_of((await self._holder.call("start", fields))["command"])

    async def list(self) -> Sequence[Terminal]:
        return [terminal_of(value) for value in (await self._holder.call("terminals", {}))["commands"]]

    async def get(self, terminal_id: TerminalId) -> Terminal:
        return await self._ask("get", terminal_id)

    async def resize(self, terminal_id: TerminalId, size: TerminalSize, operation: Operation | None = None) -> Terminal:
        """Without an operation it is a reader's wish, which no epoch fences."""
        epoch = {} if operation is None else {"epoch": operation.epoch}
        return await self._ask("resize", terminal_id, **_size(size), **epoch)

    async def signal(self, terminal_id: TerminalId, signal: int, operation: Operation) -> Terminal:
        return await self._ask("signal", terminal_id, signal=signal, operation=operation.id, epoch=operation.epoch)

    async def kill(self, terminal_id: TerminalId, operation: Operation, *, grace_s: float) -> Terminal:
        return await self._ask("kill", terminal_id, grace_s=grace_s, epoch=operation.epoch)

    async def close(self, terminal_id: TerminalId, operation: Operation, *, grace_s: float) -> None:
        await self._ask("close", terminal_id, grace_s=grace_s, epoch=operation.epoch)

    async def write(self, terminal_id: TerminalId, data: bytes, *, writer: str, offset: int) -> int:
        if not is_id(writer):
            raise Rejected("A writer is named by an id: a-z, 0-9, _ and -, at most 64 characters.")
        accepted = offset
        for start in range(0, max(1, len(data)), TYPED_PIECE_BYTES):
            fields = {"command": _checked(terminal_id), "writer": writer, "offset": offset + start}
            answer = await self._holder.call("type", fields, blob=data[start : start + TYPED_PIECE_BYTES])
            accepted = answer["accepted"]
        return accepted

    @asynccontextmanager
    async def attach(
        self,
        terminal_id: TerminalId,
        *,
        after: int | None,
        snapshots: bool,
        scrollback_lines: int,
        lag_bytes: int | None,
        read_only: bool,
    ) -> AsyncGenerator[TerminalAttachment]:
        terminal = await self.get(terminal_id)
        if after is not None and after > terminal.output_end:
            raise Rejected(
                f"The terminal has shown {terminal.output_end} bytes so far; there is no offset {after}.",
                details={"output_end": terminal.output_end},
            )
        async with self._feed(terminal) as feed:
            with closing(LogReader(self._directory(terminal_id))) as log:
                reader = TerminalReader(
                    feed,
                    log,
                    after=after,
                    snapshots=snapshots or after is None,
                    scrollback_lines=scrollback_lines,
                    lag_bytes=lag_bytes,
                    clock=time.monotonic,
                )
                attachment = HostAttachment(self, terminal_id, reader, read_only=read_only)
                try:
                    yield attachment
                finally:
                    await attachment.aclose()

    @asynccontextmanager
    async def _feed(self, terminal: Terminal) -> AsyncGenerator[TerminalFeed]:
        """The one that all readers of the terminal share."""
        feed = self._feeds.get(terminal.id)
        if feed is None or feed.failure is not None:
            feed = TerminalFeed(self._holder, self._directory(terminal.id), terminal)
            self._feeds[terminal.id] = feed
        feed.refresh(terminal)
        try:
            async with feed.followed():
                yield feed
        finally:
            if not feed.readers and self._feeds.get(terminal.id) is feed:
                del self._feeds[terminal.id]

    def _directory(self, terminal_id: str) -> str:
        return os.path.join(self._logs, terminal_id)

    async def record(self, source: CommandId | TerminalId) -> AsyncIterator[bytes]:
        described = (await self._holder.call("get", {"command": source}))["command"]
        for piece in record(described, self._directory(described["id"])):
            yield piece

    async def _ask(self, op: str, terminal_id: TerminalId, **fields: object) -> Terminal:
        answer = await self._holder.call(op, {"command": _checked(terminal_id), **fields})
        return terminal_of(answer["command"])


class HostAttachment(TerminalAttachment):
    def __init__(
        self, terminals: HostTerminals, terminal_id: TerminalId, reader: TerminalReader, *, read_only: bool
    ) -> None:
        self._terminals = terminals
        self._read_only = read_only
        self._id = terminal_id
        self._events = reader.events()
        self._writer = make_id("writer", entropy=os.urandom(12))
        self._typed = 0
        self._typing = asyncio.Lock()

    def __aiter__(self) -> AsyncIterator[TerminalEvent]:
        return self._events

    async def write(self, data: bytes) -> None:
        check_writes(self._read_only)
        async with self._typing:
            self._typed = await self._terminals.write(self._id, data, writer=self._writer, offset=self._typed)

    async def aclose(self) -> None:
        await self._events.aclose()

    async def resize(self, size: TerminalSize) -> None:
        check_writes(self._read_only)
        await self._terminals.resize(self._id, size)


def _checked(terminal_id: TerminalId) -> TerminalId:
    if not is_terminal_id(terminal_id):
        raise NotFound(f"There is no terminal {terminal_id!r} in this workspace.")
    return terminal_id


def _size(size: TerminalSize) -> dict[str, int]:
    return {"columns": size.columns, "rows": size.rows}
