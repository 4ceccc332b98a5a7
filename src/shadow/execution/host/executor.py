"""The host executor: does the work on the files and processes that it sees, with a holder for everything that must last."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from shadow.core.commands import Command, CommandResult, CommandSpec, Gap, Output, check_spec
from shadow.core.errors import Broken, Conflict, LimitExceeded, NotADirectory, NotFound, OutcomeUnknown, ShadowError
from shadow.core.files import (
    DEFAULT_LISTING_LIMIT,
    DEFAULT_READ_LIMIT_BYTES,
    FileContent,
    FileKind,
    FileLines,
    FileStat,
    Listing,
    Replacement,
)
from shadow.core.git import (
    DEFAULT_DIFF_LIMIT_BYTES,
    DEFAULT_GIT_LIMIT,
    DEFAULT_GIT_TIMEOUT_S,
    GitBranches,
    GitCheckpoint,
    GitDiff,
    GitFileChanges,
    GitHead,
    GitLog,
    GitPerson,
    GitStatus,
)
from shadow.core.ids import CommandId, Operation, OperationId, TerminalId, make_id
from shadow.core.search import FileSearchResult, GrepQuery, GrepResult
from shadow.core.terminals import (
    DEFAULT_LAG_BYTES,
    DEFAULT_SCROLLBACK_LINES,
    Terminal,
    TerminalSize,
    TerminalSpec,
    check_terminal_spec,
)
from shadow.core.trees import TreeReceipt
from shadow.core.workspaces import Capabilities, Health, Isolation
from shadow.execution.holder.config import HolderConfig, holder_argv
from shadow.execution.host.commands import HostCommands
from shadow.execution.host.files import HostFiles
from shadow.execution.host.git import HostGit
from shadow.execution.host.git_checkpoints import HostCheckpoints
from shadow.execution.host.git_process import GitRunner
from shadow.execution.host.git_repository import Repositories
from shadow.execution.host.holder_client import HolderClient
from shadow.execution.host.search import HostSearch
from shadow.execution.host.terminals import HostTerminals
from shadow.execution.host.trees import HostTrees
from shadow.execution.host.watching import HostWatches
from shadow.execution.interface import TerminalAttachment, ToolExecutor, WatchEvent

T = TypeVar("T")

HOLDER_EXIT_LIMIT_S = 15.0


class HostExecutor(ToolExecutor):
    """Files and search directly; commands, git and operations through the holder."""

    def __init__(
        self, holder: HolderClient, *, root: Path, state_dir: str, isolation: Isolation, epoch: int, network: bool
    ) -> None:
        self._holder = holder
        self._files = HostFiles(root)
        self._trees = HostTrees(root, locks=self._files.locks)
        self._watches = HostWatches(root)
        self._search = HostSearch(root)
        self._commands = HostCommands(holder, state_dir=state_dir)
        self._terminals = HostTerminals(holder, state_dir=state_dir)
        repositories = Repositories(GitRunner(self._commands), root=root, state_dir=state_dir)
        self._git = HostGit(repositories)
        self._checkpoints = HostCheckpoints(repositories, state_dir=state_dir)
        self._epoch = epoch
        self._capabilities = Capabilities(
            isolation=isolation,
            survives_sidecar=True,
            network=network,
            git=True,
            terminals=True,
            trees=True,
            watching=True,
        )
        self._in_flight: dict[OperationId, asyncio.Future[Any]] = {}

    @staticmethod
    async def connect(holder_fd: int, *, root: str, state_dir: str, isolation: Isolation) -> "HostExecutor":
        """Use the holder at the other end of the socket ``holder_fd``."""
        holder = await HolderClient.connect(socket.socket(fileno=holder_fd))
        hello = await holder.call("hello", {})
        return HostExecutor(
            holder,
            root=Path(root),
            state_dir=state_dir,
            isolation=isolation,
            epoch=hello["epoch"],
            network=isolation is Isolation.NONE,
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def holder_gone(self) -> Awaitable[None]:
        return asyncio.shield(self._holder.closed)

    async def health(self) -> Health:
        return Health(**await self._holder.call("hello", {}))

    async def renew_lease(self, lease_s: float) -> None:
        await self._holder.call("lease", {"lease_s": lease_s})

    async def aclose(self) -> None:
        self._holder.close()

    # Files

    async def stat(self, path: str, *, follow: bool = True) -> FileStat:
        return await self._files.stat(path, follow=follow)

    async def read_file(
        self, path: str, *, offset: int = 0, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileContent:
        return await self._files.read_file(path, offset=offset, limit_bytes=limit_bytes)

    async def read_lines(
        self, path: str, *, first: int = 1, last: int | None = None, limit_bytes: int = DEFAULT_READ_LIMIT_BYTES
    ) -> FileLines:
        return await self._files.read_lines(path, first=first, last=last, limit_bytes=limit_bytes)

    def stream_file(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> AsyncIterator[bytes]:
        return self._files.stream_file(path, offset=offset, limit_bytes=limit_bytes)

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
        async def write() -> FileStat:
            return await self._files.write_file(
                path, content, mode=mode, create_parents=create_parents, exclusive=exclusive, expected=expected
            )

        # What was conditional may have been done: then a second time would be refused.
        again = None if exclusive or expected is not None else write
        return await self._once(operation, "write", write, decode=_file_stat, again=again)

    async def search_replace(
        self, path: str, *, old: str, new: str, expected: str | None = None, operation: Operation | None = None
    ) -> Replacement:
        return await self._once(
            operation,
            "search_replace",
            lambda: self._files.search_replace(path, old=old, new=new, expected=expected),
            decode=lambda value: Replacement(**value),
        )

    async def make_directory(
        self, path: str, *, create_parents: bool = True, operation: Operation | None = None
    ) -> FileStat:
        async def make() -> FileStat:
            return await self._files.make_directory(path, create_parents=create_parents)

        return await self._once(operation, "make_directory", make, decode=_file_stat, again=make)

    async def move(
        self,
        source: str,
        target: str,
        *,
        overwrite: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> FileStat:
        return await self._once(
            operation,
            "move",
            lambda: self._files.move(source, target, overwrite=overwrite, expected=expected),
            decode=_file_stat,
        )

    async def delete(
        self,
        path: str,
        *,
        recursive: bool = False,
        expected: str | None = None,
        operation: Operation | None = None,
    ) -> None:
        async def delete_again() -> None:
            with suppress(NotFound):
                await self._files.delete(path, recursive=recursive)

        await self._once(
            operation,
            "delete",
            lambda: self._files.delete(path, recursive=recursive, expected=expected),
            decode=lambda _: None,
            again=None if expected is not None else delete_again,
        )

    async def list_directory(
        self,
        path: str = ".",
        *,
        recursive: bool = False,
        after: str | None = None,
        limit: int = DEFAULT_LISTING_LIMIT,
    ) -> Listing:
        return await self._files.list_directory(path, recursive=recursive, after=after, limit=limit)

    # Trees and changes

    def download_tree(self, path: str = ".") -> AsyncIterator[bytes]:
        return self._trees.download(path)

    async def upload_tree(
        self, path: str, tar: AsyncIterable[bytes], *, operation: Operation | None = None
    ) -> TreeReceipt:
        async def upload() -> TreeReceipt:
            return await self._trees.upload(path, tar)

        return await self._once(
            operation, "upload_tree", upload, decode=lambda value: TreeReceipt(**value), again=upload
        )

    def watch(self, path: str = ".") -> AsyncIterator[WatchEvent]:
        return self._watches.watch(path)

    # Search

    async def grep(self, query: GrepQuery) -> GrepResult:
        return await self._search.grep(query)

    async def search_files(self, query: str, *, path: str = ".", limit: int = 50) -> FileSearchResult:
        return await self._search.search_files(query, path=path, limit=limit)

    # Commands

    async def start(self, spec: CommandSpec, *, operation: Operation | None = None) -> Command:
        return await self._commands.start(await self._checked(spec), self._operation(operation))

    async def run(
        self,
        spec: CommandSpec,
        *,
        wait_s: float | None = None,
        output_limit_bytes: int = 1024 * 1024,
        operation: Operation | None = None,
    ) -> CommandResult:
        return await self._commands.run(
            await self._checked(spec),
            self._operation(operation),
            wait_s=wait_s,
            output_limit_bytes=output_limit_bytes,
        )

    async def list_commands(self) -> Sequence[Command]:
        return await self._commands.list()

    async def get_command(self, command_id: CommandId) -> Command:
        return await self._commands.get(command_id)

    async def wait(self, command_id: CommandId, *, timeout_s: float | None = None) -> Command:
        return await self._commands.wait(command_id, timeout_s=timeout_s)

    def read_output(self, command_id: CommandId, *, after: int = 0, follow: bool = True) -> AsyncIterator[Output | Gap]:
        return self._commands.read_output(command_id, after=after, follow=follow)

    async def write_stdin(
        self, command_id: CommandId, data: bytes, *, offset: int | None = None, close: bool = False
    ) -> int:
        return await self._commands.write_stdin(command_id, data, offset=offset, close=close)

    async def signal(self, command_id: CommandId, signal: int, *, operation: Operation | None = None) -> Command:
        return await self._commands.signal(command_id, signal, self._operation(operation))

    async def kill(self, command_id: CommandId, *, grace_s: float = 0.0, operation: Operation | None = None) -> Command:
        return await self._commands.kill(command_id, self._operation(operation), grace_s=grace_s)

    # Terminals

    async def create_terminal(self, spec: TerminalSpec, *, operation: Operation | None = None) -> Terminal:
        check_terminal_spec(spec)
        spec = replace(spec, cwd=await self._checked_cwd(spec.cwd))
        return await self._terminals.create(spec, self._operation(operation))

    async def list_terminals(self) -> Sequence[Terminal]:
        return await self._terminals.list()

    async def get_terminal(self, terminal_id: TerminalId) -> Terminal:
        return await self._terminals.get(terminal_id)

    def attach_terminal(
        self,
        terminal_id: TerminalId,
        *,
        after: int | None = 0,
        snapshots: bool = False,
        scrollback_lines: int = DEFAULT_SCROLLBACK_LINES,
        lag_bytes: int | None = DEFAULT_LAG_BYTES,
        read_only: bool = False,
    ) -> AbstractAsyncContextManager[TerminalAttachment]:
        return self._terminals.attach(
            terminal_id,
            after=after,
            snapshots=snapshots,
            scrollback_lines=scrollback_lines,
            lag_bytes=lag_bytes,
            read_only=read_only,
        )

    async def write_terminal(self, terminal_id: TerminalId, data: bytes, *, writer: str, offset: int) -> int:
        return await self._terminals.write(terminal_id, data, writer=writer, offset=offset)

    async def resize_terminal(
        self, terminal_id: TerminalId, size: TerminalSize, *, operation: Operation | None = None
    ) -> Terminal:
        return await self._terminals.resize(terminal_id, size, self._operation(operation))

    async def signal_terminal(
        self, terminal_id: TerminalId, signal: int, *, operation: Operation | None = None
    ) -> Terminal:
        return await self._terminals.signal(terminal_id, signal, self._operation(operation))

    async def kill_terminal(
        self, terminal_id: TerminalId, *, grace_s: float = 0.0, operation: Operation | None = None
    ) -> Terminal:
        return await self._terminals.kill(terminal_id, self._operation(operation), grace_s=grace_s)

    async def close_terminal(
        self, terminal_id: TerminalId, *, grace_s: float = 0.0, operation: Operation | None = None
    ) -> None:
        await self._terminals.close(terminal_id, self._operation(operation), grace_s=grace_s)

    def record(self, source: CommandId | TerminalId) -> AsyncIterator[bytes]:
        return self._terminals.record(source)

    # Git

    async def git_status(
        self, repository: str = ".", *, limit: int = DEFAULT_GIT_LIMIT, timeout_s: float = DEFAULT_GIT_TIMEOUT_S
    ) -> GitStatus:
        return await self._git.status(repository, limit=limit, timeout_s=timeout_s)

    async def git_diff(
        self,
        repository: str = ".",
        *,
        base: str | None = "HEAD",
        merge_base: bool = False,
        paths: Sequence[str] = (),
        context_lines: int = 3,
        limit_bytes: int = DEFAULT_DIFF_LIMIT_BYTES,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitDiff:
        return await self._git.diff(
            repository,
            base=base,
            merge_base=merge_base,
            paths=paths,
            context_lines=context_lines,
            limit_bytes=limit_bytes,
            timeout_s=timeout_s,
        )

    async def git_file_changes(
        self,
        repository: str = ".",
        *,
        base: str = "HEAD",
        merge_base: bool = False,
        limit: int = DEFAULT_GIT_LIMIT,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitFileChanges:
        return await self._git.file_changes(
            repository, base=base, merge_base=merge_base, limit=limit, timeout_s=timeout_s
        )

    async def git_log(
        self,
        repository: str = ".",
        *,
        revision: str = "HEAD",
        exclude: str | None = None,
        skip: int = 0,
        limit: int = 50,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
    ) -> GitLog:
        return await self._git.log(
            repository, revision=revision, exclude=exclude, skip=skip, limit=limit, timeout_s=timeout_s
        )

    async def git_branches(
        self, repository: str = ".", *, limit: int = DEFAULT_GIT_LIMIT, timeout_s: float = DEFAULT_GIT_TIMEOUT_S
    ) -> GitBranches:
        return await self._git.branches(repository, limit=limit, timeout_s=timeout_s)

    async def git_create_branch(
        self,
        name: str,
        repository: str = ".",
        *,
        start: str = "HEAD",
        checkout: bool = False,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        async def create() -> GitHead:
            with self._watches.paused():
                return await self._git.create_branch(
                    name, repository, start=start, checkout=checkout, timeout_s=timeout_s
                )

        return await self._once(operation, "git_create_branch", create, decode=_git_head)

    async def git_checkout(
        self,
        revision: str,
        repository: str = ".",
        *,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        async def checkout() -> GitHead:
            with self._watches.paused():
                return await self._git.checkout(revision, repository, timeout_s=timeout_s)

        return await self._once(operation, "git_checkout", checkout, decode=_git_head, again=checkout)

    async def git_commit(
        self,
        message: str,
        repository: str = ".",
        *,
        author: GitPerson | None = None,
        co_authors: Sequence[GitPerson] = (),
        paths: Sequence[str] | None = None,
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        async def commit() -> GitHead:
            with self._watches.paused():
                return await self._git.commit(
                    message, repository, author=author, co_authors=co_authors, paths=paths, timeout_s=timeout_s
                )

        return await self._once(operation, "git_commit", commit, decode=_git_head)

    async def git_checkpoint(
        self,
        name: str,
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitCheckpoint:
        async def take() -> GitCheckpoint:
            return await self._checkpoints.take(name, repository, timeout_s=timeout_s)

        return await self._once(
            operation, "git_checkpoint", take, decode=lambda value: GitCheckpoint(**value), again=take
        )

    async def git_restore(
        self,
        checkpoint: GitCheckpoint,
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> GitHead:
        async def restore() -> GitHead:
            with self._watches.paused():
                return await self._checkpoints.restore(checkpoint, repository, timeout_s=timeout_s)

        return await self._once(operation, "git_restore", restore, decode=_git_head, again=restore)

    async def git_drop_checkpoints(
        self,
        names: Sequence[str],
        *,
        repository: str = ".",
        timeout_s: float = DEFAULT_GIT_TIMEOUT_S,
        operation: Operation | None = None,
    ) -> None:
        async def drop() -> None:
            await self._checkpoints.drop(names, repository, timeout_s=timeout_s)

        await self._once(operation, "git_drop_checkpoints", drop, decode=lambda _: None, again=drop)

    # Operations

    def _operation(self, operation: Operation | None) -> Operation:
        return operation or Operation(id=OperationId(make_id("op", entropy=os.urandom(16))), epoch=self._epoch)

    async def _checked(self, spec: CommandSpec) -> CommandSpec:
        """The spec with its directory relative to the root. Raises: PathRefused, NotFound, NotADirectory, Rejected."""
        check_spec(spec)
        return replace(spec, cwd=await self._checked_cwd(spec.cwd))

    async def _checked_cwd(self, cwd: str) -> str:
        if cwd == ".":
            return cwd
        stat = await self._files.stat(cwd)
        if stat.kind is not FileKind.DIRECTORY:
            raise NotADirectory(f"The working directory {cwd!r} is not a directory.")
        return stat.path

    async def _once(
        self,
        operation: Operation | None,
        what: str,
        action: Callable[[], Awaitable[T]],
        *,
        decode: Callable[[dict[str, Any]], T],
        again: Callable[[], Awaitable[T]] | None = None,
    ) -> T:
        """Do ``action`` unless this operation was done; ``again`` is what a repeat after an unknown outcome may do."""
        operation = self._operation(operation)
        under_way = self._in_flight.get(operation.id)
        if under_way is not None:
            return await asyncio.shield(under_way)
        task = asyncio.ensure_future(self._begin_and_finish(operation, what, action, decode, again))
        self._in_flight[operation.id] = task
        task.add_done_callback(lambda _: self._in_flight.pop(operation.id, None))
        try:
            # Once begun it is finished and recorded, whether or not the caller still waits.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_retrieve)
            raise

    async def _begin_and_finish(
        self,
        operation: Operation,
        what: str,
        action: Callable[[], Awaitable[T]],
        decode: Callable[[dict[str, Any]], T],
        again: Callable[[], Awaitable[T]] | None,
    ) -> T:
        name = {"operation": operation.id}
        try:
            answer = await self._holder.call("begin", {**name, "what": what, "epoch": operation.epoch})
            done = answer["result"]
        except Conflict as error:
            if error.details.get("operation") != operation.id:
                raise
            if again is None:
                raise OutcomeUnknown(error.message, mend=error.mend, details=error.details) from error
            action, done = again, None
        if done is not None:
            return decode(done)
        try:
            result = await action()
        except ShadowError:
            await self._holder.call("finish", {**name, "result": None})
            raise
        with suppress(LimitExceeded):  # done, with nowhere to write that down: a repeat is answered as unknown
            await self._holder.call("finish", {**name, "result": asdict(result) if result is not None else {}})  # pyright: ignore[reportArgumentType, reportCallIssue]
        return result


def _retrieve(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


def _file_stat(value: dict[str, Any]) -> FileStat:
    values: dict[str, Any] = {**value, "kind": FileKind(value["kind"])}
    return FileStat(**values)


def _git_head(value: dict[str, Any]) -> GitHead:
    return GitHead(**value)


@asynccontextmanager
async def open_host(
    root: Path, state_dir: Path, *, base_env: dict[str, str] | None = None
) -> AsyncGenerator[HostExecutor, None]:
    """A host executor with a holder of its own and no walls, for use in this process; ends every command at the end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    config = HolderConfig(
        workspace_id="host",
        root=str(root),
        state_dir=str(state_dir),
        token="",
        isolation=Isolation.NONE,
        lease_s=None,
        epoch=1,
        base_env=base_env if base_env is not None else {"PATH": os.defpath, "HOME": str(root), "LANG": "C.UTF-8"},
        control_fd=theirs.fileno(),
    )
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *holder_argv(sys.executable),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env={},
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(config.to_json())
    process.stdin.close()
    try:
        executor = await HostExecutor.connect(
            ours.detach(), root=str(root), state_dir=str(state_dir), isolation=Isolation.NONE
        )
    except ShadowError as error:
        text = (await process.stderr.read(65536)).decode("utf-8", "replace")
        raise Broken(f"The holder did not start: {text.strip() or error.message}") from error
    try:
        yield executor
    finally:
        # Its last connection closes: the holder ends every command, then itself.
        await executor.aclose()
        async with asyncio.timeout(HOLDER_EXIT_LIMIT_S):
            await process.wait()
