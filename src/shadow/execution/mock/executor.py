"""The mock's ``ToolExecutor``: files, search and simulated commands of a workspace in memory."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from shadow.core.commands import Command, CommandResult, CommandSpec, Gap, Output, check_spec
from shadow.core.errors import Unavailable
from shadow.core.files import (
    DEFAULT_LISTING_LIMIT,
    DEFAULT_READ_LIMIT_BYTES,
    FileContent,
    FileLines,
    FileStat,
    Listing,
    Replacement,
)
from shadow.core.ids import CommandId, Operation, OperationId, make_id
from shadow.core.search import FileSearchResult, GrepQuery, GrepResult
from shadow.core.workspaces import Capabilities, Health, check_lease
from shadow.execution.lines import check_range
from shadow.execution.mock.commands import Running
from shadow.execution.mock.files import PIECE_BYTES
from shadow.execution.mock.searching import grep, search_files
from shadow.execution.mock.unsupported import UnsupportedParts
from shadow.execution.mock.workspace import MockWorkspace, split_bytes, split_output

T = TypeVar("T")


class MockToolExecutor(UnsupportedParts):
    """Several may share one workspace, each with its epoch."""

    def __init__(self, workspace: MockWorkspace, *, capabilities: Capabilities, epoch: int) -> None:
        self._workspace = workspace
        self._files = workspace.files
        self._commands = workspace.commands
        self._capabilities = capabilities
        self._epoch = epoch
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def epoch(self) -> int:
        return self._epoch

    async def health(self) -> Health:
        return await self._ask("health", self._workspace.health)

    async def renew_lease(self, lease_s: float) -> None:
        check_lease(lease_s)
        await self._ask("renew_lease", lambda: self._workspace.set_lease(lease_s))

    async def aclose(self) -> None:
        self._closed = True

    # Files

    async def stat(self, path: str, *, follow: bool = True) -> FileStat:
        return await self._ask("stat", lambda: self._files.stat(path, follow=follow))

    async def read_file(
        self, path: str, *, offset: int = 0, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileContent:
        return await self._ask("read_file", lambda: self._files.read_file(path, offset=offset, limit_bytes=limit_bytes))

    async def read_lines(
        self, path: str, *, first: int = 1, last: int | None = None, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileLines:
        return await self._ask(
            "read_lines", lambda: self._files.read_lines(path, first=first, last=last, limit_bytes=limit_bytes)
        )

    async def stream_file(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> AsyncIterator[bytes]:
        check_range(offset=offset, limit_bytes=limit_bytes)

        async def pieces() -> AsyncIterator[bytes]:
            content, _ = self._files.open(path)
            end = len(content) if limit_bytes is None else min(len(content), offset + limit_bytes)
            for start in range(offset, end, PIECE_BYTES):
                yield content[start : min(end, start + PIECE_BYTES)]

        self._check_open()
        async for piece in self._workspace.stream("stream_file", pieces(), size=len, split=split_bytes):
            yield piece

    async def write_file(
        self,
        path: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        create_parents: bool = True,
        exclusive: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> FileStat:
        return await self._once(
            operation,
            "write_file",
            lambda: self._files.write_file(
                path, content, mode=mode, create_parents=create_parents, exclusive=exclusive, expected=expected
            ),
        )

    async def search_replace(
        self, path: str, *, old: str, new: str, expected: str | None = None, operation: Operation | None = None
    ) -> Replacement:
        return await self._change(
            operation,
            "search_replace",
            lambda: self._files.search_replace(path, old=old, new=new, expected=expected),
        )

    async def make_directory(
        self, path: str, *, create_parents: bool = True, operation: Operation | None = None
    ) -> FileStat:
        return await self._change(
            operation, "make_directory", lambda: self._files.make_directory(path, create_parents=create_parents)
        )

    async def move(
        self,
        source: str,
        target: str,
        *,
        overwrite: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> FileStat:
        return await self._change(
            operation, "move", lambda: self._files.move(source, target, overwrite=overwrite, expected=expected)
        )

    async def delete(
        self,
        path: str,
        *,
        recursive: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> None:
        await self._change(
            operation, "delete", lambda: self._files.delete(path, recursive=recursive, expected=expected)
        )

    async def list_directory(
        self,
        path: str = ".",
        *,
        recursive: bool = False,
        after: str | None = None,
        limit: int = DEFAULT_LISTING_LIMIT,
    ) -> Listing:
        return await self._ask(
            "list_directory",
            lambda: self._files.list_directory(path, recursive=recursive, after=after, limit=limit),
        )

    # Search

    async def grep(self, query: GrepQuery) -> GrepResult:
        return await self._ask("grep", lambda: grep(self._files.tree, query, clock=self._workspace.time.now))

    async def search_files(self, query: str, *, path: str = ".", limit: int = 50) -> FileSearchResult:
        return await self._ask("search_files", lambda: search_files(self._files.tree, query, path=path, limit=limit))

    # Commands

    async def start(self, spec: CommandSpec, *, operation: Operation | None = None) -> Command:
        return (await self._start("start", spec, operation)).describe()

    async def run(
        self,
        spec: CommandSpec,
        *,
        wait_s: float | None = None,
        output_limit_bytes: int = 1024 * 1024,
        operation: Operation | None = None,
    ) -> CommandResult:
        command = await self._start("run", spec, operation)

        async def wait() -> CommandResult:
            await self._commands.wait(command, wait_s)
            return self._commands.excerpt(command, output_limit_bytes)

        return await self._workspace.while_alive("run", wait)

    async def _start(self, what: str, spec: CommandSpec, operation: Operation | None) -> Running:
        async def start() -> Running:
            check_spec(spec)
            _, where = self._files.tree.directory(spec.cwd)
            return self._commands.start(replace(spec, cwd=where))

        # The journal knows both as one: a `run` repeats what was begun by `start`.
        return await self._once(operation, what, start, journaled_as="start")

    async def list_commands(self) -> Sequence[Command]:
        return await self._ask("list_commands", self._commands.list)

    async def get_command(self, command_id: CommandId) -> Command:
        return await self._ask("get_command", lambda: self._commands.get(command_id).describe())

    async def wait(self, command_id: CommandId, *, timeout_s: float | None = None) -> Command:
        async def wait() -> Command:
            return await self._commands.wait(self._commands.get(command_id), timeout_s)

        self._check_open()
        return await self._workspace.call("wait", wait)

    async def read_output(
        self, command_id: CommandId, *, after: int = 0, follow: bool = True
    ) -> AsyncIterator[Output | Gap]:
        async def pieces() -> AsyncIterator[Output | Gap]:
            command = self._commands.get(command_id)
            async for piece in self._commands.read_output(command, after=after, follow=follow):
                yield piece

        self._check_open()
        stream = self._workspace.stream("read_output", pieces(), size=_bytes_of, split=split_output)
        async for piece in stream:
            yield piece

    async def write_stdin(
        self, command_id: CommandId, data: bytes, *, offset: int | None = None, close: bool = False
    ) -> int:
        async def write() -> int:
            return await self._commands.get(command_id).stdin.write(data, offset=offset, close=close)

        self._check_open()
        return await self._workspace.call("write_stdin", write)

    async def signal(self, command_id: CommandId, signal: int, *, operation: Operation | None = None) -> Command:
        return await self._change(
            operation, "signal", lambda: self._commands.signal(self._commands.get(command_id), signal)
        )

    async def kill(self, command_id: CommandId, *, grace_s: float = 0.0, operation: Operation | None = None) -> Command:
        return await self._once(
            operation, "kill", lambda: self._commands.kill(self._commands.get(command_id), grace_s=grace_s)
        )

    # Calls

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("This executor was closed.", mend="Attach again.")

    async def _ask(self, what: str, answer: Callable[[], T]) -> T:
        async def action() -> T:
            return answer()

        self._check_open()
        return await self._workspace.call(what, action)

    async def _change(self, operation: Operation | None, what: str, change: Callable[[], T]) -> T:
        async def action() -> T:
            return change()

        return await self._once(operation, what, action)

    async def _once(
        self,
        operation: Operation | None,
        what: str,
        action: Callable[[], Awaitable[T]],
        *,
        journaled_as: str | None = None,
    ) -> T:
        self._check_open()
        entropy = self._workspace.chances.entropy
        operation = operation or Operation(id=OperationId(make_id("op", entropy=entropy(16))), epoch=self._epoch)
        operations = self._workspace.operations
        return await self._workspace.call(what, lambda: operations.once(operation, journaled_as or what, action))


def _bytes_of(piece: Output | Gap) -> int:
    return len(piece.data) if isinstance(piece, Output) else 0
