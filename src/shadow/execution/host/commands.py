"""Commands of the host executor: asked of the holder, their output read from the byte logs that it writes."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from typing import Any

from shadow.core.commands import Command, CommandResult, CommandSpec, Gap, Output, check_spec
from shadow.core.errors import NotFound, Rejected
from shadow.core.ids import CommandId, Operation, is_id, is_terminal_id, make_id
from shadow.execution.holder.log_files import LogReader
from shadow.execution.host.described import command_of
from shadow.execution.host.holder_client import HolderClient

READ_BYTES = 1024 * 1024
STDIN_PIECE_BYTES = 256 * 1024
FOLLOW_TIMEOUT_S = 20.0


class HostCommands:
    """What ``ToolExecutor`` says of commands. ``cwd`` in a spec has been checked and is relative to the root."""

    def __init__(self, holder: HolderClient, *, state_dir: str) -> None:
        self._holder = holder
        self._logs = os.path.join(state_dir, "commands")

    async def start(self, spec: CommandSpec, operation: Operation) -> Command:
        return await self._start(spec, operation, wait_s=None)

    async def start_hidden(self, spec: CommandSpec) -> Command:
        """A command of the executor's own, which nobody finds in a list or in the journal; ``forget`` it in the end."""
        return await self._start(spec, None, wait_s=None)

    async def forget(self, command_id: CommandId, *, grace_s: float) -> None:
        """End what is left of a hidden command's tree, and remove its output."""
        await self._holder.call("kill", {"command": _checked(command_id), "grace_s": grace_s})
        await self._holder.call("forget", {"command": _checked(command_id)})

    async def run(
        self, spec: CommandSpec, operation: Operation, *, wait_s: float | None, output_limit_bytes: int
    ) -> CommandResult:
        command = await self._start(spec, operation, wait_s=1e9 if wait_s is None else wait_s)
        return CommandResult(command=command, output=tuple(self._excerpt(command, output_limit_bytes)))

    async def list(self) -> Sequence[Command]:
        answer = await self._holder.call("list", {})
        return [command_of(value) for value in answer["commands"]]

    async def get(self, command_id: CommandId) -> Command:
        return command_of((await self._holder.call("get", {"command": _checked(command_id)}))["command"])

    async def wait(self, command_id: CommandId, *, timeout_s: float | None) -> Command:
        answer = await self._holder.call("wait", {"command": _checked(command_id), "timeout_s": timeout_s})
        return command_of(answer["command"])

    async def read_output(self, command_id: CommandId, *, after: int, follow: bool) -> AsyncIterator[Output | Gap]:
        command = await self.get(command_id)
        if after > command.output_end:
            raise Rejected(f"The command has written {command.output_end} bytes so far; there is no offset {after}.")
        with closing(self._reader(command_id)) as log:
            if not follow:
                offset = after
                while offset < command.output_end:
                    for piece in _pieces(log, offset, command.output_end):
                        offset = piece.end
                        yield piece
                return
            reader = make_id("reader", entropy=os.urandom(12))
            try:
                async for piece in self._follow(command_id, log, after, reader):
                    yield piece
            finally:
                if not self._holder.closed.done():
                    await self._holder.call("unfollow", {"command": _checked(command_id), "reader": reader})

    async def write_stdin(self, command_id: CommandId, data: bytes, *, offset: int | None, close: bool) -> int:
        accepted = 0
        pieces = range(0, max(1, len(data)), STDIN_PIECE_BYTES)
        for start in pieces:
            answer = await self._holder.call(
                "stdin",
                {
                    "command": _checked(command_id),
                    "offset": offset + start if offset is not None else None,
                    "close": close and start == pieces[-1],
                },
                blob=data[start : start + STDIN_PIECE_BYTES],
            )
            accepted = answer["accepted"]
        return accepted

    async def signal(self, command_id: CommandId, signal: int, operation: Operation) -> Command:
        fields = {
            "command": _checked(command_id),
            "signal": signal,
            "operation": operation.id,
            "epoch": operation.epoch,
        }
        return command_of((await self._holder.call("signal", fields))["command"])

    async def kill(self, command_id: CommandId, operation: Operation, *, grace_s: float) -> Command:
        fields = {"command": _checked(command_id), "grace_s": grace_s, "epoch": operation.epoch}
        return command_of((await self._holder.call("kill", fields))["command"])

    async def _start(self, spec: CommandSpec, operation: Operation | None, *, wait_s: float | None) -> Command:
        """Without an operation it is a hidden one."""
        check_spec(spec)
        fields: dict[str, Any] = {
            "spec": {
                "argv": spec.argv,
                "cwd": spec.cwd,
                "env": dict(spec.env),
                "stdin": spec.stdin,
                "timeout_s": spec.timeout_s,
                "log_limit_bytes": spec.log_limit_bytes,
                "overflow": spec.overflow,
            },
            "operation": operation.id if operation is not None else "",
            "wait_s": wait_s,
            "hidden": operation is None,
        }
        if operation is not None:
            fields["epoch"] = operation.epoch
        return command_of((await self._holder.call("start", fields))["command"])

    async def _follow(
        self, command_id: CommandId, log: LogReader, offset: int, reader: str
    ) -> AsyncIterator[Output | Gap]:
        while True:
            answer = await self._holder.call(
                "follow",
                {"command": _checked(command_id), "after": offset, "timeout_s": FOLLOW_TIMEOUT_S, "reader": reader},
            )
            end: int = answer["end"]
            if answer["command"] is not None and offset >= end:
                return
            while offset < end:
                for piece in _pieces(log, offset, end):
                    offset = piece.end
                    yield piece
                if end - offset > READ_BYTES:
                    # Far behind a log that goes on: say where we are, before more is dropped.
                    break

    def _excerpt(self, command: Command, limit_bytes: int) -> Iterator[Output | Gap]:
        """All of the output, or its first and its last half with a gap between."""
        start, end = command.output_start, command.output_end
        if end == 0:
            return
        if limit_bytes < 0:
            raise Rejected(f"output_limit_bytes cannot be {limit_bytes}.")
        with closing(self._reader(command.id)) as log:
            if start > 0:
                yield Gap(start=0, end=start)
            if end - start <= limit_bytes:
                yield from _all_pieces(log, start, end)
                return
            head_end = start + limit_bytes // 2
            tail_start = end - (limit_bytes - limit_bytes // 2)
            yield from _all_pieces(log, start, head_end)
            yield Gap(start=head_end, end=tail_start)
            yield from _all_pieces(log, tail_start, end)

    def _reader(self, command_id: CommandId) -> LogReader:
        if not is_id(command_id):
            raise Rejected(f"{command_id!r} is not the id of a command.")
        return LogReader(os.path.join(self._logs, command_id))


def _pieces(log: LogReader, after: int, end: int) -> Iterator[Output | Gap]:
    return log.read(after=after, end=end, limit_bytes=READ_BYTES)


def _all_pieces(log: LogReader, after: int, end: int) -> Iterator[Output | Gap]:
    offset = after
    while offset < end:
        for piece in _pieces(log, offset, end):
            offset = piece.end
            yield piece


def _checked(command_id: CommandId) -> CommandId:
    """Raises: NotFound: terminals are not commands."""
    if is_terminal_id(command_id):
        raise NotFound(f"There is no command {command_id!r} in this workspace.", mend="Use the calls for terminals.")
    return command_id
